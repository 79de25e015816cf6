// Writes captioned pictures as a data set that training reads: tars, TSVs that list their members, lists of these
// TSVs, and a vocabulary of the captions' words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mdm/demo/shapes.h"
#include "mdm/media/image.h"

namespace mdm {

/// Writes shards `NAME-00000.tar` with `NAME-00000.tsv`, ..., and at the end the index that lists them, all in one
/// folder. A sample is two members: KEY.png and KEY.txt (the caption), so that the tars can also be read as a
/// webdataset. The columns of a shard's TSV are tar, file, caption and those of `extra_columns`; its dialect is that
/// of mdm/data/tsv.h. Names in TSVs are bare: the folder may be moved.
class ShardWriter {
 public:
  ShardWriter(std::filesystem::path index, std::string name, std::vector<std::string> extra_columns, size_t shard_size);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  /// `extra`: one value for each extra column; Error otherwise.
  void add(const Image& image, const std::string& caption, const std::vector<std::string>& extra = {});
  /// Writes what is open, and the index. Error when there was no sample.
  void finish();
  size_t size() const { return count_; }

 private:
  struct Shard;
  void open_shard();
  void close_shard();

  std::filesystem::path index_;
  std::string name_;
  std::vector<std::string> extra_columns_;
  size_t shard_size_;
  size_t count_ = 0;
  std::unique_ptr<Shard> shard_;
  std::vector<std::string> shard_files_;
};

/// The text of a vocabulary for the mdm tokenizer (lines `piece TAB score`): <pad>, </s>, <unk>; a space; all
/// printable ASCII characters and those of the captions, score -10; and every word of the captions (what stands
/// between spaces) with a space in front, score -1. So a caption of these words, with one space before each, becomes
/// one token a word, and another text its letters. At most `entries` lines: the rarest words are left out.
std::string caption_vocabulary(const std::vector<std::string>& captions, size_t entries = SIZE_MAX);

struct ShapeDataset {
  std::filesystem::path folder;
  uint64_t count = 20000;
  uint64_t validation_count = 512;  ///< scenes of the same split that are not in the training set
  int side = 32;
  uint64_t seed = 1;
  SceneShares shares;
  size_t shard_size = 1000;
};

struct EmojiDataset {
  std::filesystem::path folder;
  std::filesystem::path list_file, font_file;
  int side = 64;
  bool skin_tones = false;
  uint64_t validation_every = 0;  ///< every n-th entry goes to the validation list instead; 0: none
  size_t shard_size = 1000;
};

/// What was written.
struct WrittenDataset {
  std::filesystem::path train_list, validation_list, vocabulary;  ///< validation_list: empty when there is none
  size_t train_samples = 0, validation_samples = 0;
  size_t without_bitmap = 0;  ///< emoji that the font doesn't have
};

using CountProgress = std::function<void(size_t done, size_t total)>;

/// Scenes 0 to count - 1 of the split kSeen; validation scenes are those from 2^40 on.
WrittenDataset write_shape_dataset(const ShapeDataset& settings, const CountProgress& progress = {});
WrittenDataset write_emoji_dataset(const EmojiDataset& settings, const CountProgress& progress = {});

}  // namespace mdm
