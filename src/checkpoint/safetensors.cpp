// Reading safetensors: a streaming pass over the JSON header (no document tree, so nothing recurses and
// memory stays in proportion), then the checks on types, shapes and offsets.
#include "checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "mdm/core/error.h"

namespace mdm::checkpoint {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation

uint64_t read_header_length(std::string_view bytes) {
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(bytes[static_cast<size_t>(i)]);
  return length;
}

// One tensor of the header as it is being read.
struct HeaderTensor {
  bool has_type = false, has_shape = false, has_offsets = false;
  TensorRecord record;
  std::vector<uint64_t> offsets;
};

// Receives the events of the JSON parser. `where_` says which value is expected next.
class HeaderEvents final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderEvents(SafetensorsContent& content, std::vector<std::pair<uint64_t, uint64_t>>& ranges,
               const std::string& place)
      : content_(content), ranges_(ranges), place_(place) {}

  bool start_object(std::size_t) override {
    switch (where_) {
      case Where::kStart: where_ = Where::kTop; return true;
      case Where::kTopValue:
        if (key_ == "__metadata__") {
          if (seen_metadata_) wrong("names __metadata__ twice");
          seen_metadata_ = true;
          where_ = Where::kMetadata;
          return true;
        }
        tensor_ = HeaderTensor();
        where_ = Where::kTensor;
        return true;
      default: unexpected("an object");
    }
  }

  bool key(string_t& name) override {
    if (name.find('\0') != std::string::npos) wrong("has a name with a NUL byte: '", printable(name), "'");
    if (name.size() > kMaxNameBytes)
      wrong("has a name of ", name.size(), " bytes; at most ", kMaxNameBytes, " are allowed");
    switch (where_) {
      case Where::kTop:
        key_ = name;
        where_ = Where::kTopValue;
        return true;
      case Where::kMetadata:
        metadata_key_ = name;
        where_ = Where::kMetadataValue;
        return true;
      case Where::kTensor:
        if (name == "dtype") {
          if (tensor_.has_type) twice("dtype");
          where_ = Where::kType;
        } else if (name == "shape") {
          if (tensor_.has_shape) twice("shape");
          where_ = Where::kShape;
        } else if (name == "data_offsets") {
          if (tensor_.has_offsets) twice("data_offsets");
          where_ = Where::kOffsets;
        } else {
          wrong("has an unknown field '", printable(name), "' in tensor '", printable(key_),
                "'; dtype, shape and data_offsets are allowed");
        }
        return true;
      default: unexpected("a key");
    }
  }

  bool end_object() override {
    switch (where_) {
      case Where::kMetadata: where_ = Where::kTop; return true;
      case Where::kTensor: finish_tensor(); return true;
      case Where::kTop: where_ = Where::kEnd; return true;
      default: unexpected("the end of an object");
    }
  }

  bool start_array(std::size_t) override {
    if (where_ == Where::kShape) {
      where_ = Where::kShapeItem;
      tensor_.has_shape = true;
    } else if (where_ == Where::kOffsets) {
      where_ = Where::kOffsetItem;
      tensor_.has_offsets = true;
    } else {
      unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    where_ = Where::kTensor;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (where_ == Where::kShapeItem) {
      if (tensor_.record.shape.size() == kMaxDimensions) {
        wrong("gives tensor '", printable(key_), "' more than ", kMaxDimensions, " dimensions");
      }
      if (value > static_cast<uint64_t>(INT64_MAX)) wrong("gives tensor '", printable(key_), "' the size ", value);
      tensor_.record.shape.push_back(static_cast<int64_t>(value));
    } else if (where_ == Where::kOffsetItem) {
      if (tensor_.offsets.size() == 2) wrong("gives tensor '", printable(key_), "' more than two data_offsets");
      tensor_.offsets.push_back(value);
    } else {
      unexpected("a number");
    }
    return true;
  }

  bool string(string_t& text) override {
    if (where_ == Where::kMetadataValue) {
      content_.metadata.emplace_back(metadata_key_, text);
      where_ = Where::kMetadata;
    } else if (where_ == Where::kType) {
      const auto type = find_element_type(&ElementTypeInfo::safetensors, text);
      if (!type) {
        wrong("gives tensor '", printable(key_), "' the dtype '", printable(text),
              "'; BOOL, U8, I8, U16, I16, U32, I32, U64, I64, F16, BF16, F32 and F64 are supported");
      }
      tensor_.record.type = *type;
      tensor_.has_type = true;
      where_ = Where::kTensor;
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool number_integer(number_integer_t value) override { wrong("has the negative number ", value, at_tensor()); }
  bool number_float(number_float_t, const string_t& text) override {
    wrong("has the number ", printable(text, 40), " where a whole number is expected", at_tensor());
  }
  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool binary(binary_t&) override { unexpected("binary data"); }
  bool parse_error(std::size_t position, const std::string& token, const nlohmann::detail::exception& error) override {
    wrong("is no valid JSON at byte ", position, " ('", printable(token, 40), "'): ", printable(error.what(), 200));
  }

 private:
  enum class Where {
    kStart,
    kTop,
    kTopValue,
    kMetadata,
    kMetadataValue,
    kTensor,
    kType,
    kShape,
    kShapeItem,
    kOffsets,
    kOffsetItem,
    kEnd
  };

  template <typename... Parts>
  [[noreturn]] void wrong(const Parts&... parts) const {
    fail<CheckpointError>(place_, ": the safetensors header ", parts...);
  }
  [[noreturn]] void unexpected(const char* what) const { wrong("has ", what, " where it doesn't belong", at_tensor()); }
  [[noreturn]] void twice(const char* field) const {
    wrong("gives the ", field, " of tensor '", printable(key_), "' twice");
  }
  std::string at_tensor() const { return key_.empty() ? "" : concat(" (at '", printable(key_), "')"); }

  void finish_tensor() {
    if (!tensor_.has_type || !tensor_.has_shape || tensor_.offsets.size() != 2) {
      wrong("lacks ",
            !tensor_.has_type    ? "dtype"
            : !tensor_.has_shape ? "shape"
                                 : "two data_offsets",
            " for tensor '", printable(key_), "'");
    }
    if (content_.tensors.size() == kMaxTensors) wrong("has more than ", kMaxTensors, " tensors");
    tensor_.record.name = key_;
    ranges_.emplace_back(tensor_.offsets[0], tensor_.offsets[1]);
    content_.tensors.push_back(std::move(tensor_.record));
    where_ = Where::kTop;
  }

  SafetensorsContent& content_;
  std::vector<std::pair<uint64_t, uint64_t>>& ranges_;
  const std::string& place_;
  Where where_ = Where::kStart;
  std::string key_, metadata_key_;
  HeaderTensor tensor_;
  bool seen_metadata_ = false;
};

void check_unique_names(const SafetensorsContent& content, const std::string& place) {
  std::vector<std::string_view> names;
  const auto check = [&](const char* what) {
    std::sort(names.begin(), names.end());
    const auto twin = std::adjacent_find(names.begin(), names.end());
    if (twin != names.end()) {
      fail<CheckpointError>(place, ": the safetensors header names ", what, " '", printable(*twin), "' twice");
    }
    names.clear();
  };
  for (const auto& tensor : content.tensors) names.push_back(tensor.name);
  check("tensor");
  for (const auto& entry : content.metadata) names.push_back(entry.first);
  check("metadata");
}

// Sorted by offset the tensors must follow each other without a hole from 0 to the end of the file.
void check_tiling(const SafetensorsContent& content, const std::vector<std::pair<uint64_t, uint64_t>>& ranges,
                  uint64_t data_bytes, const std::string& place) {
  std::vector<uint32_t> order(ranges.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return ranges[a] < ranges[b]; });
  uint64_t expected = 0;
  for (const uint32_t i : order) {
    const auto& tensor = content.tensors[i];
    const auto [begin, end] = ranges[i];
    const auto bad = [&](const auto&... parts) {
      fail<CheckpointError>(place, ": tensor '", printable(tensor.name), "' ", parts...);
    };
    if (begin > end || end > data_bytes) {
      bad("has data_offsets [", begin, ", ", end, "), but the data section has ", data_bytes, " bytes");
    }
    if (begin != expected) {
      bad("begins at byte ", begin, " of the data section, ",
          begin < expected ? "inside the tensor before it" : "leaving a hole", " (expected ", expected, ")");
    }
    int64_t bytes = 0;
    if (!checked_numel(tensor.shape, bytes) || !checked_multiply(bytes, info(tensor.type).size, bytes)) {
      bad("has a shape whose size overflows");
    }
    if (static_cast<uint64_t>(bytes) != end - begin) {
      bad("needs ", bytes, " bytes for its shape and dtype, but has ", end - begin);
    }
    expected = end;
  }
  if (expected != data_bytes) {
    fail<CheckpointError>(place, ": the tensors end at byte ", expected, " of the data section, which has ", data_bytes,
                          " bytes");
  }
}

}  // namespace

bool looks_like_safetensors(std::string_view bytes) {
  return bytes.size() >= 9 && bytes[8] == '{' && read_header_length(bytes) <= bytes.size() - 8;
}

SafetensorsContent parse_safetensors(std::string_view bytes, const std::string& place) {
  if (bytes.size() < 8) fail<CheckpointError>(place, ": has ", bytes.size(), " bytes, too few for a safetensors file");
  const uint64_t length = read_header_length(bytes);
  if (length > kMaxHeaderBytes || length > bytes.size() - 8) {
    fail<CheckpointError>(place, ": claims a safetensors header of ", length, " bytes; at most ",
                          std::min<uint64_t>(kMaxHeaderBytes, bytes.size() - 8), " are possible here");
  }
  const std::string_view header = bytes.substr(8, length);
  if (header.empty() || header[0] != '{')
    fail<CheckpointError>(place, ": the safetensors header doesn't begin with '{'");

  SafetensorsContent content;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  HeaderEvents events(content, ranges, place);
  nlohmann::json::sax_parse(header.begin(), header.end(), &events);
  check_unique_names(content, place);

  const std::string_view data = bytes.substr(8 + length);
  check_tiling(content, ranges, data.size(), place);
  for (size_t i = 0; i < ranges.size(); ++i) {
    content.tensors[i].data = reinterpret_cast<const uint8_t*>(data.data()) + ranges[i].first;
  }
  return content;
}

}  // namespace mdm::checkpoint
