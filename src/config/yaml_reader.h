// YAML text -> tree of settings. The only place that knows yaml-cpp.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/value.h"

namespace mdm::settings {

/// Largest YAML file, bytes. yaml-cpp queues a whole line's tokens, up to 240 times the line's length in
/// memory, so this also bounds what a hostile file can take.
constexpr size_t kMaxYamlBytes = size_t{1} << 18;

/// The map that the text holds (an empty one for an empty text). `name` stands for the file in messages.
/// Of keys that occur twice the last counts, as in Python, with a warning; so does "a-b" for "a_b".
/// ConfigError for what is no YAML, is no map, nests too deep, is too large, or uses anchors, aliases,
/// merge keys, or tags other than those of plain values.
Value read_yaml(std::string_view text, const std::string& name, std::vector<std::string>* warnings);

}  // namespace mdm::settings
