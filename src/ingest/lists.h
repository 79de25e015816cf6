// The index TSVs of a scraped folder, and its division into training and validation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "ingest/shard.h"

namespace mdm::ingest {

struct SplitSettings {
  double validation_share = 0;
  uint64_t seed = 0;
};

struct WrittenLists {
  std::filesystem::path train, validation;  ///< empty where there is none
};

/// Writes NNNNN_train.tsv, NNNNN_validation.tsv of finished shards where they are missing or of another split, and
/// index.tsv, train.tsv and validation.tsv. Several processes may call it at a time.
WrittenLists write_lists(const std::filesystem::path& folder, const SplitSettings& split);

}  // namespace mdm::ingest
