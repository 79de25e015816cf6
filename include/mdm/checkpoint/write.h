// Writing named tensors: safetensors (one file or shards), and .pth files that Python's
// torch.load(weights_only=True) reads. Files appear under their name only when complete and checked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mdm/checkpoint/state_dict.h"

namespace mdm {

/// What a file keeps of a text encoder that was trained with the model: a TensorSection of this name.
inline constexpr const char* kTextEncoderSection = "text_encoder";
/// Beside it, an item with that encoder's vocabulary (the text of a .vocab file).
inline constexpr const char* kTextVocabularyItem = "text_vocabulary";

/// Tensors of another network in the same file. In a .pth they are a dictionary of this name beside
/// `state_dict`. Safetensors have no dictionaries: there the name and a dot stand before each tensor's name
/// (with_sections()).
struct TensorSection {
  std::string name;
  std::vector<NamedTensor> tensors;
};

/// The tensors and those of the sections under one name each, for safetensors.
std::vector<NamedTensor> with_sections(std::vector<NamedTensor> tensors, const std::vector<TensorSection>& sections);

struct WriteOptions {
  /// Floating-point tensors are written as this type; others stay as they are.
  std::optional<at::ScalarType> dtype;
};

/// Writes a safetensors file: the header in the order given, the values row-major and packed, largest
/// elements first. Tensors may be views, strided or on a device; one at a time is made contiguous.
/// `metadata` becomes __metadata__. Afterwards the file is read again and compared by checksum.
/// CheckpointError for names that are empty, not UTF-8 or given twice, and for dtypes the format lacks;
/// Error when the file can't be written.
void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {}, const WriteOptions& options = {});

/// Writes `folder`/model-0000i-of-0000n.safetensors and model.safetensors.index.json, cutting before
/// `max_shard_bytes` of values would be passed (a larger tensor has a shard of its own); the index comes
/// last. One shard alone is model.safetensors without an index. Returns the file to open. Errors as above.
std::filesystem::path write_sharded_safetensors(const std::filesystem::path& folder,
                                                const std::vector<NamedTensor>& tensors, uint64_t max_shard_bytes,
                                                const std::map<std::string, std::string>& metadata = {},
                                                const WriteOptions& options = {});

/// Writes {'state_dict': OrderedDict(tensors), section: OrderedDict(its tensors), ..., **items} as torch.save
/// does (zip layout), with plain values only. `items_json` is one JSON object; numbers, texts, lists and dictionaries
/// become Python's own, and
/// {"__float__": "nan"} and {"__int__": "123"}, as TensorFile::metadata_json() gives them, NaN and a big
/// whole number; it may not have a key state_dict or a section's name. Afterwards the file is read again and all
/// checksums are compared. Errors as above, and CheckpointError for unsigned types of more than 8 bits, which torch has
/// no storages for.
void write_pth(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
               const std::string& items_json = "{}", const WriteOptions& options = {},
               const std::vector<TensorSection>& sections = {});

}  // namespace mdm
