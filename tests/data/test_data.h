// Small data sets and captions for the tests of this room.
#pragma once

#include <pthread.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "mdm/data/captions.h"
#include "mdm/data/dataset.h"
#include "mdm/media/image.h"

namespace mdm::data_test {

/// A folder that is gone when the test ends.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  /// Writes a file and gives its path.
  std::string write(const std::string& name, const std::string& bytes) const;
  std::string path(const std::string& name) const { return (path_ / name).string(); }
  const std::filesystem::path& folder() const { return path_; }

 private:
  std::filesystem::path path_;
};

using Members = std::vector<std::pair<std::string, std::string>>;

/// Writes an archive with TarWriter.
std::string write_tar(const TemporaryFolder& folder, const std::string& name, const Members& members);
/// An archive with one member of `size` zeros that take no place on the disk.
std::string write_sparse_tar(const TemporaryFolder& folder, const std::string& name, const std::string& member,
                             uint64_t size);
/// A .npy file with a matrix (1, values.size()).
std::string npy_row(const std::vector<float>& values);
/// The bytes of a file.
std::string bytes_of(const std::string& file);

/// A picture whose bytes depend on `number`, as PNG.
std::string picture(int number, int width = 24, int height = 20);

/// `count` pictures in one archive with the captions "caption NUMBER" and an index of one shard; gives the index's
/// path. Picture `broken` are files that are no pictures.
std::string small_set(const TemporaryFolder& folder, int count, const std::vector<int>& broken = {});

/// A tokenizer that counts words: one id a word (its length), and an end.
std::unique_ptr<Tokenizer> word_tokenizer();

/// A caption of `words` words.
std::string words(int count);

/// A data set without pictures worth reading: captions with these numbers of words.
std::shared_ptr<const Dataset> captions_alone(const TemporaryFolder& folder, const std::vector<int>& word_counts);

/// While it lives, the system gives no thread: their stacks would be larger than the address space.
class NoNewThreads {
 public:
  NoNewThreads();
  ~NoNewThreads();
  NoNewThreads(const NoNewThreads&) = delete;
  NoNewThreads& operator=(const NoNewThreads&) = delete;

 private:
  pthread_attr_t before_;
};

/// MDM_MUTANTS, or 2,000.
size_t mutant_count();

}  // namespace mdm::data_test
