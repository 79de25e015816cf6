// Configs of data sets that lie elsewhere, in the reference's form.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace mdm {

/// The names below SUBSET in a file like
///   train: {files: [s3://bucket/cc12m/images_00.*.tsv]}
///   eval: {files: [s3://bucket/cc12m/validation.tsv]}
/// ConfigError when the file can't be read, or has no such list.
std::vector<std::string> read_download_config(const std::filesystem::path& file, const std::string& subset);

/// What a file like the reference's configs/dataset_creation/sample_cc12m.yaml says of a scrape; empty: not named.
struct ScrapeConfig {
  std::string urls;                        ///< cc12m_index: the list
  std::string output_dir;                  ///< cc12m_local_dir
  std::optional<double> validation_share;  ///< validation_percentage: a share, although it is called percentage
  std::optional<uint64_t> seed;            ///< split_seed
};

/// ConfigError when the file can't be read, or holds other keys or values.
ScrapeConfig read_scrape_config(const std::filesystem::path& file);

}  // namespace mdm
