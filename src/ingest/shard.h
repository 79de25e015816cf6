// A shard of `scrape` on the disk: open ones, that grow and survive any end of the process, and finished ones.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ingest/picture.h"
#include "ingest/url_list.h"

namespace mdm::ingest {

/// Names of a shard's files.
class ShardFiles {
 public:
  ShardFiles(const std::filesystem::path& folder, uint64_t number);

  /// "00000", what the names begin with.
  const std::string& name() const { return name_; }
  std::filesystem::path tar() const { return named("", ".tar"); }
  std::filesystem::path list() const { return named("", ".tsv"); }
  std::filesystem::path failures() const { return named("", "_failures.tsv"); }
  std::filesystem::path stats() const { return named("", "_stats.json"); }
  std::filesystem::path train() const { return named("", "_train.tsv"); }
  std::filesystem::path validation() const { return named("", "_validation.tsv"); }
  std::filesystem::path part() const { return named(".", ".tar.part"); }
  std::filesystem::path journal() const { return named(".", ".journal"); }

 private:
  std::filesystem::path named(const char* before, const char* after) const {
    return folder_ / (before + name_ + after);
  }

  std::filesystem::path folder_;
  std::string name_;
};

/// The key of a row in file names: nine digits or more.
std::string key_of(uint64_t row);

/// Rows [first, first + rows) of a list.
struct ShardRows {
  uint64_t number = 0;  ///< of the shard
  uint64_t first = 0;
  uint64_t rows = 0;
};

/// Whether the shard is finished, and its counts. A stats file that can't be read counts as absent.
bool read_finished(const ShardFiles& files, const ShardRows& rows, ScrapeCounts& counts);

/// Removes what the last step of finishing leaves when it is the one that a kill cuts off.
void drop_leftovers(const ShardFiles& files);

/// Makes a finished shard an open one in which the failures that `again` names are to do.
void reopen(const ShardFiles& files, const ShardRows& rows, bool (*again)(const std::string& cause));

/// An open shard. Pictures are appended to NNNNN.tar.part and failures to NNNNN.journal with one write each; what a
/// kill cuts off at their ends is dropped when they are opened again, and contents are checked against their SHA-256
/// then, since a loss of power may leave holes. Used by one thread at a time.
class OpenShard {
 public:
  /// Goes on with what is there.
  OpenShard(const std::filesystem::path& folder, const ShardRows& rows);
  ~OpenShard();
  OpenShard(const OpenShard&) = delete;
  OpenShard& operator=(const OpenShard&) = delete;

  const ShardRows& rows() const { return rows_; }
  bool is_done(uint64_t row) const { return done_[row - rows_.first]; }
  uint64_t left() const { return left_; }
  /// SHA-256 of the pictures that were there already.
  const std::vector<std::string>& digests() const { return digests_; }
  const ScrapeCounts& counts() const { return counts_; }

  void add(const UrlRow& row, const std::string& last_url, const Picture& picture);
  void fail_row(const UrlRow& row, const Failure& failure);
  /// Gives the files their final names, when all rows are done.
  void finish();

 private:
  void recover_pictures();
  void recover_failures();
  void mark(uint64_t row);
  void append(int descriptor, uint64_t& size, const std::string& bytes, const std::filesystem::path& path);

  ShardFiles files_;
  ShardRows rows_;
  std::vector<bool> done_;
  uint64_t left_ = 0;
  ScrapeCounts counts_;
  std::vector<std::string> digests_;
  int part_ = -1, journal_ = -1;
  uint64_t part_size_ = 0, journal_size_ = 0;
};

}  // namespace mdm::ingest
