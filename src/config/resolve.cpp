// From what the user wrote about the network to what it is built from: derived values, and every rule
// that a network must obey. The derivations are those of the reference's constructors
// (ml_mdm/models/unet.py: UNet.__init__, nested_unet.py: NestedUNet.__init__).
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "mdm/config/model_config.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

constexpr int64_t kAttentionGroups = 32;  // GroupNorm of the attention layers, not configurable
constexpr int64_t kHeads = 8;             // of every attention layer, not configurable

// Where a setting of level i stands in a config file.
std::string level_path(size_t level) {
  std::string path = "unet_config";
  for (size_t i = 0; i < level; ++i) path += ".inner_config";
  return path;
}

template <typename... Parts>
[[noreturn]] void reject(size_t level, const char* field, const Parts&... parts) {
  fail<ConfigError>(level_path(level), ".", field, ": ", parts...);
}

void repeat_or_check(std::vector<int64_t>& list, size_t count, size_t level, const char* field) {
  if (list.size() == 1) list.resize(count, list.front());
  if (list.size() != count) {
    reject(level, field, "has ", list.size(), " entries, but resolution_channels has ", count);
  }
}

void check_groups(int64_t channels, int64_t groups, size_t level, const char* where) {
  if (channels % groups != 0) {
    reject(level, "resnet_config.num_groups_norm", groups, " groups don't divide the ", channels, " channels ", where);
  }
}

void check_attention(int64_t channels, size_t level, const char* where) {
  if (channels % kAttentionGroups != 0) {
    reject(level, "resolution_channels", channels, " channels ", where, " attend; attention needs a multiple of ",
           kAttentionGroups);
  }
}

// Every GroupNorm's channel count, in the order in which the blocks are built.
void check_channels(const UNetConfig& config, size_t level) {
  const auto& widths = config.resolution_channels;
  const auto count = static_cast<int64_t>(widths.size());
  const int64_t groups = config.resnet_config.num_groups_norm;
  const auto attends = [&](int64_t i) {
    return std::find(config.attention_levels.begin(), config.attention_levels.end(), i) !=
               config.attention_levels.end() &&
           config.num_attention_layers[static_cast<size_t>(i)] > 0;
  };
  int64_t channels = widths[0];
  std::vector<int64_t> skips = {channels};
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    for (int64_t j = 0; j < config.num_resnets_per_resolution[at]; ++j) {
      check_groups(channels, groups, level, "on the way down");
      channels = widths[at];
      check_groups(channels, groups, level, "on the way down");
      if (attends(i)) check_attention(channels, level, "at an attention level");
      skips.push_back(channels);
    }
    if (i + 1 < count) skips.push_back(channels);
  }
  if (!config.skip_mid_blocks) check_attention(channels, level, "of the middle block");
  for (int64_t i = count - 1; i >= 0; --i) {
    const auto at = static_cast<size_t>(i);
    for (int64_t j = 0; j <= config.num_resnets_per_resolution[at]; ++j) {
      check_groups(channels + skips.back(), groups, level, "on the way up (with the skip connection)");
      skips.pop_back();
      channels = widths[at];
      check_groups(channels, groups, level, "on the way up");
      if (attends(i)) check_attention(channels, level, "at an attention level");
    }
  }
}

UNetConfig resolve_level(const UNetConfig& source, size_t level, bool innermost) {
  UNetConfig config = source;
  const size_t count = config.resolution_channels.size();
  if (count == 0) reject(level, "resolution_channels", "is empty");
  for (const int64_t width : config.resolution_channels) {
    if (width < 1 || width > 65536) reject(level, "resolution_channels", width, " is not in 1..65536");
  }
  repeat_or_check(config.num_resnets_per_resolution, count, level, "num_resnets_per_resolution");
  repeat_or_check(config.num_attention_layers, count, level, "num_attention_layers");
  for (size_t i = 0; i < count; ++i) {
    const int64_t resnets = config.num_resnets_per_resolution[i];
    const int64_t least = i > 0 && i + 1 == count ? 0 : 1;  // the others downsample their last resnet's output
    if (resnets < least || resnets > 1000) {
      reject(level, "num_resnets_per_resolution", resnets, " is not in ", least, "..1000");
    }
    if (config.num_attention_layers[i] < 0 || config.num_attention_layers[i] > 1000) {
      reject(level, "num_attention_layers", config.num_attention_layers[i], " is not in 0..1000");
    }
  }
  if (config.num_temporal_attention_layers) {
    repeat_or_check(*config.num_temporal_attention_layers, count, level, "num_temporal_attention_layers");
  }
  if (config.resnet_config.num_groups_norm < 1) reject(level, "resnet_config.num_groups_norm", "must be at least 1");
  if (config.resnet_config.dropout < 0 || config.resnet_config.dropout >= 1) {
    reject(level, "resnet_config.dropout", config.resnet_config.dropout, " is not in [0, 1)");
  }
  if (!config.temporal_dim) config.temporal_dim = 4 * config.resolution_channels[0];
  if (*config.temporal_dim < 8 || *config.temporal_dim % 8 != 0) {
    reject(level, "temporal_dim", *config.temporal_dim, " is not a positive multiple of 8");
  }
  if (config.temporal_mode && innermost) {
    reject(level, "temporal_mode", "works only in a level that holds another one");
  }
  if (config.temporal_positional_encoding) {
    reject(level, "temporal_positional_encoding", "is not supported (no model uses it)");
  }
  check_channels(config, level);
  return config;
}

int64_t level_ratio(const UNetConfig& config, size_t level) {
  const int64_t ratio = int64_t{1} << (config.resolution_channels.size() - 1);
  if (!config.temporal_mode || config.temporal_spatial_ds) return ratio;
  const auto root = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(ratio))));
  if (root * root != ratio) {
    reject(level, "temporal_mode", "needs an odd number of resolutions, so that the ratio ", ratio, " is a square");
  }
  return root;
}

}  // namespace

std::string ModelConfig::kind() const {
  if (levels.size() <= 1) return "unet";
  if (levels.size() == 2) return "nested_unet";
  return concat("nested", levels.size() - 1, "_unet");
}

std::vector<MicroCondition> parse_micro_conditioning(const std::string& text) {
  std::vector<MicroCondition> items;
  if (text.empty()) return items;
  size_t start = 0;
  while (start <= text.size()) {
    const size_t end = std::min(text.find(',', start), text.size());
    const std::string item = text.substr(start, end - start);
    const size_t colon = item.find(':');
    char* rest = nullptr;
    const std::string number = colon == std::string::npos ? "" : item.substr(colon + 1);
    const double value = std::strtod(number.c_str(), &rest);
    if (colon == std::string::npos || colon == 0 || number.empty() || *rest != '\0' || !std::isfinite(value)) {
      fail<ConfigError>("micro_conditioning: '", printable(item), "' is not of the form label:default");
    }
    const std::string name = item.substr(0, colon);
    if (name.find('.') != std::string::npos) {
      fail<ConfigError>("micro_conditioning: the label '", printable(name), "' must not hold a dot");
    }
    if (name == "scale" && value == 0) fail<ConfigError>("micro_conditioning: the default of scale must not be 0");
    for (const MicroCondition& other : items) {
      if (other.name == name) fail<ConfigError>("micro_conditioning: '", printable(name), "' stands there twice");
    }
    items.push_back({name, value});
    start = end + 1;
  }
  return items;
}

std::vector<ResolvedUNetConfig> resolve(const ModelConfig& model, int64_t text_dim) {
  if (model.levels.empty()) fail<ConfigError>("unet_config: the model has no level");
  std::vector<ResolvedUNetConfig> resolved;
  int64_t width = text_dim > 0 ? text_dim : -1;
  for (size_t i = 0; i < model.levels.size(); ++i) {
    const bool innermost = i + 1 == model.levels.size();
    ResolvedUNetConfig level;
    level.config = resolve_level(model.levels[i], i, innermost);
    if (i > 0) level.config.nesting = true;
    level.text_dim = width;
    if (width > 0 && level.config.conditioning_feature_proj_dim > 0) width = level.config.conditioning_feature_proj_dim;
    level.conditioning_dim = width;
    level.config.conditioning_feature_dim = width;
    level.micros = parse_micro_conditioning(level.config.micro_conditioning);
    if (innermost && width > 0) {
      if (level.config.skip_cond_emb) {
        reject(i, "skip_cond_emb", "must be false in the innermost level of a model with text: it reads the text");
      }
      if (level.config.num_lm_head_layers > 0 && width % kHeads != 0) {
        reject(i, "num_lm_head_layers", "the text's width ", width, " does not divide by the ", kHeads, " heads");
      }
    }
    resolved.push_back(std::move(level));
  }

  const ResolvedUNetConfig& inner = resolved.back();
  for (size_t i = 0; i + 1 < resolved.size() && width > 0; ++i) {
    const UNetConfig& config = resolved[i].config;
    if (*config.temporal_dim != *inner.config.temporal_dim) {
      reject(i, "temporal_dim", *config.temporal_dim, " differs from the innermost level's ",
             *inner.config.temporal_dim, ", but the text's embedding is added at every level");
    }
    for (const int64_t at : config.attention_levels) {
      const bool attends = at >= 0 && at < static_cast<int64_t>(config.num_attention_layers.size()) &&
                           config.num_attention_layers[static_cast<size_t>(at)] > 0;
      if (attends && resolved[i].conditioning_dim != inner.conditioning_dim) {
        reject(i, "attention_levels", "this level attends to text of width ", resolved[i].conditioning_dim,
               ", but the innermost level makes it ", inner.conditioning_dim, " wide");
      }
    }
  }
  return resolved;
}

std::vector<int64_t> level_scales(const ModelConfig& model) {
  std::vector<int64_t> scales(model.levels.size(), 1);
  for (size_t i = model.levels.size(); i-- > 1;) scales[i - 1] = scales[i] * level_ratio(model.levels[i - 1], i - 1);
  return scales;
}

}  // namespace mdm
