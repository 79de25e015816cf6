// The list of prompts of a run: flags, a text file, or the reference's TSV.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "mdm/config/sample_config.h"
#include "mdm/pipeline.h"

namespace mdm {

// One prompt a line. A file whose first line is a tab-separated header with a column `caption` (the
// reference's prompts_*.tsv, validation lists) gives that column. CRLF and a byte order mark are taken;
// empty lines are passed over. DataError for a file without any prompt, a line that is not UTF-8 (as flags refuse
// it), or a line above 1 MiB.
std::vector<std::string> read_prompts(const std::filesystem::path& file);

// All pictures that the settings ask for, in the order prompt by prompt; picture i has the seed `seed` + i.
std::vector<PictureRequest> picture_requests(const SampleConfig& sample, uint64_t seed);

}  // namespace mdm
