// The folder of a training run: numbered checkpoints from which it goes on, written so that a crash at any
// moment leaves the last complete one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "mdm/checkpoint/state_dict.h"

namespace mdm {

/// What goes into one checkpoint.
struct CheckpointContent {
  struct Part {
    std::string file;  ///< bare name, "weights.safetensors"
    std::vector<NamedTensor> tensors;
  };
  uint64_t step = 0;
  std::vector<Part> parts;
  std::string state_json;        ///< becomes state.json
  uint64_t companion_bytes = 0;  ///< that files outside of it will take; refused early when the disk lacks them
};

/// A checkpoint whose files are all there and hold what was written.
struct SavedCheckpoint {
  uint64_t step = 0;
  std::filesystem::path folder;
  std::string state_json;
};

/// DIR/ckpt_0001000/ holds the parts, state.json, and manifest.json with size and SHA-256 of each of them. A
/// checkpoint is written as ckpt_0001000.tmp.PID: each file is flushed to disk, the manifest comes last, then the
/// folder is flushed and renamed, and DIR flushed. What has no valid manifest does not count.
class RunDirectory {
 public:
  struct Options {
    int64_t keep_last = 3;   ///< checkpoints kept, >= 2
    int64_t keep_every = 0;  ///< those of steps that are multiples of it stay, too; 0: none
  };

  /// Makes the folder, takes its lock (DIR/lock) for as long as the object lives, and removes what a crash left
  /// half written. Error when another process has the lock, or the folder can't be written; ConfigError for
  /// options out of range.
  RunDirectory(std::filesystem::path folder, const Options& options);
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  /// Other options from now on; ConfigError for options out of range.
  void keep(const Options& options);

  /// The newest checkpoint of a folder as it lies there: not locked, not verified. Nothing when there is none.
  static std::optional<SavedCheckpoint> peek(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }

  /// Steps of the checkpoints that have a manifest, ascending; found by looking, no pointer is kept.
  std::vector<uint64_t> checkpoints() const;

  /// The newest checkpoint that is sound; its files are read in whole. Each newer one that isn't is warned about: one
  /// that is damaged is removed when the next is saved, one that can't be read now stays. Nothing when there is no
  /// folder of a checkpoint; CheckpointError when there are some and none is sound.
  std::optional<SavedCheckpoint> latest();

  /// Writes a checkpoint (in the place of one of the same step, which stays until then) and removes those that need not
  /// be kept. Throws Error with the system's reason when it can't be written; what was there before then still is.
  /// Files of older checkpoints that can't be removed are warned about.
  void save(const CheckpointContent& content);

  /// Files outside the checkpoints' folders that belong to a step: removed with its checkpoint.
  /// `pattern`: printf's, with one unsigned long long, e.g. "vis_model_%06llu.pth".
  void add_companion(std::string pattern);

 private:
  std::filesystem::path folder_of(uint64_t step) const { return folder_of(folder_, step); }
  static std::filesystem::path folder_of(const std::filesystem::path& run, uint64_t step);
  static std::vector<uint64_t> steps_of_folders(const std::filesystem::path& run, bool with_manifest);
  void take_lock();
  void remove_stale();
  void prune();
  bool remove_folder(const std::filesystem::path& folder);

  std::filesystem::path folder_;
  Options options_;
  int lock_ = -1;
  std::optional<uint64_t> verified_;  // newest that this process has written or checked
  std::set<uint64_t> damaged_;
  std::vector<std::string> companions_;
};

}  // namespace mdm
