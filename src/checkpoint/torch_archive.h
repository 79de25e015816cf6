// PyTorch's two file layouts (a zip archive since 1.6, concatenated pickles before): the pickled value, and
// where the bytes of each storage are. Free of LibTorch.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "checkpoint/open_file.h"
#include "checkpoint/pickle.h"
#include "checkpoint/tensor_record.h"
#include "checkpoint/zip_archive.h"

namespace mdm::checkpoint {

class TorchArchive {
 public:
  // `format` is kTorchZip or kTorchLegacy. CheckpointError naming the file when it is damaged.
  TorchArchive(std::shared_ptr<const FileBytes> file, FileFormat format);

  const Value& root() const { return *root_; }
  const ValueArena& arena() const { return arena_; }
  const ZipArchive* zip() const { return zip_.get(); }  // null: the legacy layout
  const std::string& place() const { return place_; }

  // Where the values of a pickled tensor lie, checked against the storage. CheckpointError naming `name`
  // when `value` is no tensor that can be read, or lies.
  TensorRecord tensor(const Value& value, std::string name) const;

  // The number of storages that the pickle refers to.
  size_t storage_count() const { return storages_.size(); }

 private:
  struct Storage {
    ElementType type = ElementType::kU8;
    bool untyped = false;
    std::string_view key;
    std::string_view unsupported;   // the name of a type that we can't read; empty: `type` is right
    int64_t numel = 0;              // as the pickle claims
    const uint8_t* data = nullptr;  // null: not in the file
    uint64_t bytes = 0;             // as the file has
  };

  // The elements of a storage that a tensor may lie in.
  struct Part {
    ElementType type;
    int64_t numel;
    const uint8_t* data;
  };

  void open_zip();
  void open_legacy();
  void read_legacy_storages(size_t offset, const Value& keys);
  void register_storages();
  Storage read_persistent_id(const Value& id) const;
  Part part_of_storage(const Value& tensor, const std::string& name) const;
  const Storage& storage_of(const Value& persistent, const std::string& name) const;

  std::shared_ptr<const FileBytes> file_;
  std::string place_;
  ValueArena arena_;
  std::unique_ptr<ZipArchive> zip_;
  std::string unpacked_pickle_, prefix_;
  const Value* root_ = nullptr;
  std::unordered_map<std::string_view, Storage> storages_;
};

// Whether the value is a tensor or parameter as torch.save pickles them (its storage is not looked at).
bool is_tensor(const Value& value);

// Whether it is meant to be one, readable or not (sparse and quantized tensors are not).
bool claims_tensor(const Value& value);

// Shape and dtype of such a tensor if they can be told without its storage, e.g. "float32" and {2, 3}.
struct TensorSummary {
  std::string_view dtype;
  std::vector<int64_t> shape;
};
std::optional<TensorSummary> summarize_tensor(const Value& value);

// "a dictionary", "a call of os.system", ... for error texts.
std::string describe(const Value& value);

}  // namespace mdm::checkpoint
