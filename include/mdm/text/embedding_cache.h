// Outputs of a text encoder that is not trained, kept on disk: a data set's captions go through T5 once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mdm/text/t5_text_encoder.h"
#include "mdm/text/text_encoder.h"

namespace mdm {

/// When a cache takes no more.
struct EmbeddingCacheLimits {
  size_t records = size_t{1} << 24;         ///< that it knows, with those of other processes
  uint64_t free_bytes = uint64_t{5} << 30;  ///< that stay free on the disk
};

/// Matrices (L, D) of float32 by token ids. A folder holds files `<identity>-<n>.embeddings`, each written at
/// its end by one process (which holds its lock) and read by all, so several processes add and read at a time.
/// A file that a crash has cut is used up to the last whole record; a record whose checksum differs is as good
/// as absent. Values come back to the bit; those that bfloat16 holds exactly take two bytes.
/// Memory: about 40 bytes a record. Not for use by several threads at a time.
class EmbeddingCache {
 public:
  /// `identity`: letters, digits, '-' and '_'; files of another identity are not looked at. Makes the folder.
  /// Error when it can't be made or read. Where nothing can be written, the cache is only read.
  EmbeddingCache(const std::filesystem::path& folder, const std::string& identity, int64_t width,
                 const EmbeddingCacheLimits& limits = {});
  ~EmbeddingCache();
  EmbeddingCache(const EmbeddingCache&) = delete;
  EmbeddingCache& operator=(const EmbeddingCache&) = delete;

  /// The matrix kept for `ids`, on the CPU; nothing when there is none that is sound.
  std::optional<at::Tensor> find(const std::vector<int32_t>& ids);
  /// Keeps `values` (L, D) float32. A failed write or a limit is logged once and ends the writing, not the run.
  void add(const std::vector<int32_t>& ids, const at::Tensor& values);

  struct Counts {
    uint64_t hits = 0, misses = 0, damaged = 0, added = 0;
  };
  const Counts& counts() const;
  /// The file that this process writes; empty when it only reads.
  const std::filesystem::path& own_file() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Names a T5's outputs: its files (names, sizes, times of change, first and last bytes), config, precision,
/// device type and padding.
std::string embedding_identity(const TextModelFiles& files, const TextConfig& text, const std::string& padding_token,
                               at::Device device);

/// T5TextEncoder with such a cache for training (Use::kTraining); prompts go through the encoder. The values
/// are those of T5TextEncoder itself.
class CachedTextEncoder final : public TextEncoder {
 public:
  CachedTextEncoder(std::unique_ptr<T5TextEncoder> encoder, std::unique_ptr<EmbeddingCache> cache);

  TextKind kind() const override { return encoder_->kind(); }
  int64_t width() const override { return encoder_->width(); }
  at::Device device() const override { return encoder_->device(); }
  const T5TextEncoder& encoder() const { return *encoder_; }
  const EmbeddingCache& cache() const { return *cache_; }

 protected:
  Rows encode_rows(const std::vector<std::string>& captions, int64_t max_length, Use use) override;
  int64_t forced_length() const override;

 private:
  std::unique_ptr<T5TextEncoder> encoder_;
  std::unique_ptr<EmbeddingCache> cache_;
};

}  // namespace mdm
