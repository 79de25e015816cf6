// Files of named tensors, opened for reading: safetensors, and PyTorch's .pth/.pt/.bin in its zip and
// legacy layouts. Nothing in a file is ever executed: pickles are read as inert data, whatever they ask for.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mdm {

/// What a file says about one of its tensors; checked against the file's size when it is opened.
struct TensorEntry {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  int64_t numel() const;
};

/// An opened file of named tensors. Tensors are looked at through the mapping: nothing is copied until
/// the caller copies.
class TensorFile {
 public:
  struct Options {
    bool map = true;  ///< false: read the file into memory (for file systems where it may shrink meanwhile)
    /// Where in a .pth the tensors are: a dotted path of dictionary keys. Unset: `state_dict`,
    /// `model_state_dict` or `model` if there (again below it), else the top level. Keys may hold dots.
    /// An error for safetensors, which have no dictionaries.
    std::optional<std::string> state_dict_path;
  };

  /// Recognises the format by its content. A folder, or a `*.index.json`, opens all shards of it.
  /// Throws CheckpointError naming the file and the place when it is no such file, is damaged, or lies
  /// about its sizes.
  static TensorFile open(const std::filesystem::path& path, const Options& options);
  static TensorFile open(const std::filesystem::path& path) { return open(path, Options()); }

  TensorFile(TensorFile&&) noexcept;
  TensorFile& operator=(TensorFile&&) noexcept;
  ~TensorFile();

  const std::filesystem::path& path() const;
  /// In the file's own order (for a .pth the order of the state_dict).
  const std::vector<TensorEntry>& entries() const;
  const TensorEntry* find(std::string_view name) const;
  /// The tensor's values. A view of the mapping (do not write to it; it keeps the mapping alive), or a
  /// copy where the file's layout does not allow one. CheckpointError when there is no such tensor.
  at::Tensor tensor(std::string_view name) const;
  /// The same, but the last one who lets go of a view also calls release(): for values that are read once, elsewhere.
  at::Tensor passing_tensor(std::string_view name) const;
  /// Says that a tensor's values have been read, so that the mapping need not keep them in memory: a file
  /// that is copied tensor by tensor then never counts twice. They can still be read again.
  void release(const TensorEntry& entry) const;
  /// What else a .pth holds beside the tensors, or a safetensors file's __metadata__, as JSON text
  /// ("{}" when nothing). Plain values, argparse.Namespace, the reference's config classes and the names
  /// of its enums stand for themselves; {"__float__": "nan"}, {"__int__": "123"} (beyond 64 bits),
  /// {"__bytes__": "hex"}, {"__set__": [...]} for what JSON lacks; unknown objects are {"__class__": ...,
  /// ...}. What is too deep or too long (8 MiB of text, a million values) is {"__cut__": reason}.
  /// Items that our converter stored in safetensors come back as they were.
  const std::string& metadata_json() const;

 private:
  struct Impl;
  explicit TensorFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
