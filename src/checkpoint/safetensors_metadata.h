// How the other items of a checkpoint travel in the __metadata__ of safetensors, which holds only texts:
// as JSON under one key. Free of LibTorch.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mdm::checkpoint {

inline constexpr std::string_view kItemsKey = "mdm_items";

// One JSON object: the items of kItemsKey (if it holds a plain JSON object) and the other texts.
std::string metadata_to_json(const std::vector<std::pair<std::string, std::string>>& metadata);

}  // namespace mdm::checkpoint
