// The folder that `scrape` writes: who may write it, and what it is made from.
#pragma once

#include <filesystem>
#include <string>

#include "mdm/ingest/scrape.h"

namespace mdm::ingest {

/// The list of a run: what it holds, so that another one is noticed.
struct ListIdentity {
  uint64_t bytes = 0;
  std::string sha256;
  uint64_t rows = 0;
};

/// Held while this worker works. Error when another process has it.
class WorkerLock {
 public:
  explicit WorkerLock(const ScrapeSettings& settings);
  ~WorkerLock();
  WorkerLock(const WorkerLock&) = delete;
  WorkerLock& operator=(const WorkerLock&) = delete;

 private:
  int descriptor_ = -1;
};

/// Writes scrape.json, or compares with the one that is there: ConfigError that names what differs.
void check_manifest(const ScrapeSettings& settings, const ListIdentity& list);

/// Removes what writes that a kill cut off have left of this worker's shards, and of the lists where `lists` says so
/// (then nobody else may be writing them).
void remove_cut_off(const std::filesystem::path& folder, int64_t worker, int64_t workers, bool lists);

/// Looks whether what is still to come fits on the disk, by what a picture has taken so far (or a guess before there
/// are any): Error when not even half of it does, a warning when not all of it.
void check_space(const ScrapeSettings& settings, uint64_t rows_to_do, const ScrapeCounts& so_far);

}  // namespace mdm::ingest
