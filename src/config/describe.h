// The table of all settings.
#pragma once

#include <string>
#include <vector>

#include "config/field.h"
#include "mdm/config/config.h"

namespace mdm::settings {

/// The fields that stand together under one path.
struct Group {
  std::string path;   ///< "unet_config.resnet_config", "sample"
  std::string title;  ///< for --help
  Section section = Section::kNone;
  bool flat = false;  ///< in files the fields may stand at the top level, without the path
  std::vector<Field> fields;
};

/// All groups of a config. The fields point into `config`, which must outlive them. A group stands before
/// the groups inside it; the levels of the model are chained by `inner_config`.
std::vector<Group> describe(Config& config);

/// Levels that an `unet_config` may nest, and the names for 1, 2, ... of them.
constexpr int kMaxLevels = 5;
const std::vector<std::string>& model_kinds();
/// A model of so many levels with the defaults that depend on a level's place: all but the innermost skip
/// their middle blocks and their text embedding, and all but the outermost are nested.
ModelConfig default_model(int levels);

}  // namespace mdm::settings
