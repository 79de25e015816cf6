// The TSVs that `fetch` brings: what they name, and how they are written again with local names.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace mdm::ingest {

struct ListContent {
  bool is_index = false;           ///< else a shard
  std::vector<std::string> names;  ///< of an index all, in their order; of a shard its tars, each once
};

/// DataError for what is neither an index nor a shard. `shown`: what errors call it.
ListContent read_list(const std::filesystem::path& file, const std::string& shown);

struct RewrittenList {
  uint64_t rows = 0, bad_rows = 0;
};

/// Writes a shard's TSV anew, with `local_name` of what stood in its columns tar and text_tar; rows for whose archive
/// that gives "" are left out, as are bad lines. Nothing is written when no row remains.
RewrittenList rewrite_list(const std::filesystem::path& file, const std::filesystem::path& target,
                           const std::string& shown, const std::function<std::string(const std::string&)>& local_name);

}  // namespace mdm::ingest
