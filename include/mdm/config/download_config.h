// Configs of data sets that lie elsewhere, in the reference's form.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace mdm {

/// The names below SUBSET in a file like
///   train: {files: [s3://bucket/cc12m/images_00.*.tsv]}
///   eval: {files: [s3://bucket/cc12m/validation.tsv]}
/// ConfigError when the file can't be read, or has no such list.
std::vector<std::string> read_download_config(const std::filesystem::path& file, const std::string& subset);

}  // namespace mdm
