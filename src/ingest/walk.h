// Through all archives of a listing: each is opened once, its samples are looked at by several threads, and what was
// found is handed on in the order of the listing.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "data/archive_file.h"
#include "ingest/listing.h"
#include "mdm/data/tar.h"
#include "mdm/media/decode.h"
#include "mdm/text/tokenizer.h"

namespace mdm::ingest {

/// A picture with its caption, as a list or the archive has it.
struct WalkedSample {
  std::string_view file;
  std::string_view caption;
  const TarMember* image = nullptr;  ///< null: the archive lacks it
  const TarMember* json = nullptr;
  std::string_view caption_problem;  ///< why there is no caption; empty: there is one
  std::string_view duplicate;        ///< in what way it is there twice; empty: it is not
};

/// What is known of a sample when it has been looked at.
struct SampleFacts {
  ImageFormat format = ImageFormat::kUnknown;
  bool sound = true;  ///< no fault
  uint32_t caption_bytes = 0;
  uint32_t caption_points = 0;  ///< code points
  int32_t tokens = -1;          ///< -1: not counted
  int32_t width = 0;            ///< pixels; 0: unreadable
  int32_t height = 0;
  bool blank = false;  ///< the caption is white space alone
  uint64_t image_bytes = 0;
  uint64_t key_hash = 0;      ///< of the file name up to the first dot
  uint64_t caption_hash = 0;  ///< of the caption
};

/// One archive and what was found in it. Lives until the function that takes it returns.
struct WalkedArchive {
  size_t number = 0;  ///< in the listing
  const ListedArchive* listed = nullptr;
  std::unique_ptr<detail::ArchiveFile> file;  ///< null: it can't be opened
  std::optional<TarIndex> index;              ///< none: it is no archive
  uint64_t lost = 0;                          ///< samples that lists name and that can't be looked at for that
  std::vector<WalkedSample> samples;
  std::vector<SampleFacts> facts;  ///< one a sample
  std::vector<Fault> faults;       ///< of the archive, then of the samples in their order
  std::deque<std::string> texts;   ///< what samples point to

  uint64_t bytes() const { return file ? file->size() : 0; }
};

struct WalkOptions {
  bool whole = true;                     ///< read all and decode pictures; else only headers are looked at
  bool unlisted = false;                 ///< pictures that no row names are faults
  const Tokenizer* tokenizer = nullptr;  ///< null: tokens are not counted
  std::unordered_set<int32_t> silent;    ///< ids that say nothing of a caption: silent_ids()
  int threads = 0;                       ///< 0: as many as the machine has
  const std::atomic<bool>* stop = nullptr;
  std::function<void(uint64_t bytes, uint64_t samples)> advance;  ///< by one thread at a time
};

/// The ids of spaces and of what is unknown.
std::unordered_set<int32_t> silent_ids(const Tokenizer& tokenizer);

/// Calls `take` for each archive in order, by one thread at a time. False when stopped before the end. Throws what
/// `take` throws. The rows of an archive are dropped when it has been taken.
bool walk(std::vector<ListedArchive>& archives, const WalkOptions& options,
          const std::function<void(const WalkedArchive&)>& take);

/// Opens an archive and finds its samples (archive faults).
void open_archive(WalkedArchive& archive, const WalkOptions& options);

/// Looks at sample `i`: its facts, and what is wrong with it.
void examine_sample(const WalkedArchive& archive, size_t i, const WalkOptions& options, SampleFacts& facts,
                    std::vector<Fault>& faults);

}  // namespace mdm::ingest
