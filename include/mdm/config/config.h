// All settings of a run, and how they are put together: defaults < config of a checkpoint < YAML files
// in the order given < flags in the order given.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mdm/config/diffusion_config.h"
#include "mdm/config/distributed_config.h"
#include "mdm/config/model_config.h"
#include "mdm/config/reader_config.h"
#include "mdm/config/runtime_config.h"
#include "mdm/config/sample_config.h"
#include "mdm/config/text_config.h"
#include "mdm/config/trainer_config.h"

namespace mdm {

/// In YAML the sections are `unet_config` (with `model: KIND` beside it), `diffusion_config` and
/// `reader_config`, as in the reference; the fields of the others stand at the top level, or below
/// `text:`, `trainer:`, `sample:`, `runtime:`, `distributed:`. A top-level name that several of these sections have
/// (`seed`, `batch_size`) sets it in all of them.
struct Config {
  ModelConfig model;
  DiffusionConfig diffusion;
  ReaderConfig reader;
  TextConfig text;
  TrainerConfig trainer;
  SampleConfig sample;
  RuntimeConfig runtime;
  DistributedConfig distributed;
};

/// Parts of a Config, as a set of bits.
enum class Section : unsigned {
  kNone = 0,
  kModel = 1,
  kDiffusion = 2,
  kReader = 4,
  kText = 8,
  kTrainer = 16,
  kSample = 32,
  kRuntime = 64,
  kDistributed = 128,
  kAll = 255,
};
constexpr Section operator|(Section a, Section b) {
  return static_cast<Section>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
constexpr bool contains(Section set, Section part) {
  return (static_cast<unsigned>(set) & static_cast<unsigned>(part)) != 0;
}

/// What the config is for: some settings must be right in one use and don't matter in another.
enum class ConfigUse {
  kTrain,
  kSample,
  kInspect,  ///< nothing is checked against the file system
};

/// Settings from the command line, in order: name without leading dashes, and value. Names as in YAML
/// ("unet_config.micro_conditioning", "lr"), '-' for '_' allowed, or the last part alone where only one
/// field has it (of the levels of a nested model the outermost is meant).
using Overrides = std::vector<std::pair<std::string, std::string>>;

/// A config and where it came from.
struct LoadedConfig {
  Config config;
  /// Dotted path of a field ("unet_config.inner_config.nesting") -> "FILE:LINE", "flag --NAME" or
  /// "checkpoint"; a field that is not in here has its default.
  std::map<std::string, std::string> origins;
  std::vector<std::string> warnings;  ///< duplicates, moved keys, ...; a user should see them
  std::vector<std::string> notes;     ///< keys that have no effect here; only of interest when asked for
  bool partial = false;               ///< LoadRequest::partial: what is not in `origins` may be another in the end
  bool goes_on = false;               ///< LoadRequest::goes_on
};

struct LoadRequest {
  std::vector<std::filesystem::path> yaml_files;
  Overrides overrides;
  ConfigUse use = ConfigUse::kInspect;
  /// Below the YAML files: the config inside a checkpoint (see config_from_json). Its model, diffusion, reader and text
  /// sections are used, and of `sample` the numbers that pictures are drawn with; in training all of it but for
  /// resume_from_ema, allow_config_change, device and log level. Empty: none.
  std::string checkpoint_json;
  Section flag_sections = Section::kAll;  ///< where the names of `overrides` are looked up
  /// A checkpoint's config is still to come below the files: nothing is checked yet that depends on its
  /// model or diffusion, not even that levels which are set exist.
  bool partial = false;
  /// A training goes on from a checkpoint: files that a fresh one would start from need not be there.
  bool goes_on = false;
};

/// Puts a config together. Throws ConfigError listing all problems found, each with file:line or flag,
/// the dotted path, what was found, what is allowed, and the nearest name of an unknown one.
/// YAML files may have up to 256 KiB; anchors, aliases, merge keys and tags of other types are refused.
/// Files that a YAML file names (text_model, vocab_file, checkpoint, file_list, ...) are taken from the
/// working directory, or from the YAML file's folder if they are only there. A YAML file for another kind
/// of model than the checkpoint's replaces the checkpoint's unet_config and diffusion_config whole.
LoadedConfig load(const LoadRequest& request);

/// The same, with warnings sent to the log.
Config load_config(const std::vector<std::filesystem::path>& yaml_files, const Overrides& overrides = {},
                   ConfigUse use = ConfigUse::kInspect);

/// As load(), from YAML text; `name` stands for the file in messages.
LoadedConfig load_yaml_text(std::string_view text, const std::string& name, const Overrides& overrides = {},
                            ConfigUse use = ConfigUse::kInspect);

/// The config as YAML that loads again to the same values. With `origins` each value is followed by a
/// comment that says where it came from.
std::string dump_yaml(const Config& config, Section sections = Section::kAll,
                      const std::map<std::string, std::string>* origins = nullptr);

/// The config out of a checkpoint's metadata: JSON of the reference's `args` (an argparse Namespace with
/// dataclasses inside; objects may carry "__class__", enums are names or objects with "name" or "value"),
/// or what config_to_json wrote. Keys that are not known there are reported in `warnings` (logged when
/// null): the file is not the user's to mend. Flat settings of the machine and of sampling (device, seed,
/// sample_dir, ...) of a reference file are not taken. ConfigError when it is no config.
Config config_from_json(const std::string& args_json, std::vector<std::string>* warnings = nullptr);

/// The config as a JSON object with one member per section, for our own checkpoints.
std::string config_to_json(const Config& config);

}  // namespace mdm
