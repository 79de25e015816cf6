// Emits a pickle of protocol 2 with plain values and tensors, of the instructions that PyTorch's
// weights_only loader knows. Free of LibTorch.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/element_type.h"

namespace mdm::checkpoint {

class PickleWriter {
 public:
  PickleWriter();

  void none();
  void boolean(bool value);
  void integer(int64_t value);
  void unsigned_integer(uint64_t value);
  // Decimal digits with an optional minus; false when it is no whole number of at most 600 digits.
  bool big_integer(std::string_view digits);
  void real(double value);
  void text(std::string_view value);  // UTF-8

  void begin_list();
  void end_list();
  void begin_dict();  // then key, value, key, value, ...
  void end_dict();
  void begin_ordered_dict();
  void end_ordered_dict() { end_dict(); }

  // A contiguous tensor whose storage is the archive's entry data/`key`.
  void tensor(ElementType type, const std::vector<int64_t>& shape, std::string_view key);

  // Ends the pickle and gives its bytes.
  std::string finish();

 private:
  void global(std::string_view module, std::string_view name);
  void sizes(const std::vector<int64_t>& values);
  void op(uint8_t code) { out_ += static_cast<char>(code); }

  std::string out_;
};

// Writes the members of one JSON object as keys and values of the dictionary that has been begun. Throws
// CheckpointError beginning with `place` for text that is no such object or has one of the keys `reserved`.
void pickle_json_members(PickleWriter& writer, std::string_view json, const std::vector<std::string>& reserved,
                         const std::string& place);

}  // namespace mdm::checkpoint
