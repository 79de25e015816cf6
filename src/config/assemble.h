// Layers of settings -> one Config.
#pragma once

#include <string>
#include <vector>

#include "config/value.h"
#include "mdm/config/config.h"

namespace mdm::settings {

/// What is said about a config while it is put together.
struct Report {
  std::vector<std::string> problems, warnings, notes;

  void problem(const std::string& text);
  /// Throws one ConfigError with all problems, if there are any.
  void throw_problems() const;
};

/// How strict a layer is read.
enum class LayerKind {
  kFile,        ///< YAML or flags: unknown keys are problems
  kCheckpoint,  ///< unknown keys are warnings; flat keys of sampling and machine are left out
};

/// The layer with every setting at its own path: top-level names moved into their sections, aliases and
/// the reference's misplaced keys resolved.
Value normalize(const Value& layer, LayerKind kind, Report& report);

/// The layer that flags make.
Value flag_layer(const Overrides& overrides, Section sections, Report& report);

/// Builds the config out of the merged layers and checks it as a whole (see LoadRequest::partial). ConfigError.
LoadedConfig build_config(const Value& tree, ConfigUse use, bool partial, bool goes_on, Report report);

/// Checks settings that depend on each other, and sets those that follow from others. Of a partial config
/// model and diffusion are not looked at.
void check_config(LoadedConfig& loaded, ConfigUse use, Report& report);

/// JSON text as a layer; ConfigError when it is none.
Value read_json(const std::string& text, const std::string& name);

}  // namespace mdm::settings
