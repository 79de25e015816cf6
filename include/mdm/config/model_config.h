// What a user can set about the network: UNet and NestedUNet.
// Field names and defaults are those of the reference (ml_mdm/models/unet.py: UNetConfig, ResNetConfig;
// nested_unet.py: NestedUNetConfig), so that its YAML files load unchanged.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mdm {

/// Residual blocks. Channel counts are set by the UNet that builds them.
struct ResNetConfig {
  int64_t num_channels = -1;       ///< input channels; -1: set by the builder
  int64_t output_channels = -1;    ///< output channels; -1: set by the builder
  int64_t num_groups_norm = 32;    ///< groups of every GroupNorm but those of attention (always 32)
  double dropout = 0.0;            ///< before the second convolution, in training only; [0, 1)
  bool use_attention_ffn = false;  ///< a feed-forward part after each attention layer
};

/// `label:default` of a micro-conditioning item, e.g. the image's size as `scale:64`.
struct MicroCondition {
  std::string name;
  double default_value = 0;
};

/// One level of the model. A plain UNet is one level; a nested one is a list of them, outermost (highest
/// resolution) first.
struct UNetConfig {
  std::vector<int64_t> num_resnets_per_resolution = {2};  ///< one number is repeated for all resolutions
  std::optional<int64_t> temporal_dim;  ///< width of the time embedding, a multiple of 8; unset: 4 x channels[0]
  std::vector<int64_t> attention_levels = {2, 3};                     ///< resolutions (0 = highest) that attend
  std::vector<int64_t> num_attention_layers = {1};                    ///< after each resnet; one number is repeated
  std::optional<std::vector<int64_t>> num_temporal_attention_layers;  ///< temporal mode only
  int64_t conditioning_feature_dim = -1;  ///< width of the text's features; -1: no text, or set from the text model
  int64_t conditioning_feature_proj_dim = -1;  ///< > 0: the text is projected to this width first
  int64_t num_lm_head_layers = 0;              ///< trained self-attention layers on top of the text's features
  bool masked_cross_attention = true;          ///< hide padding from cross-attention
  std::vector<int64_t> resolution_channels = {128, 256, 256, 512, 1024};
  bool skip_mid_blocks = false;    ///< default true in all but the innermost level
  bool skip_cond_emb = false;      ///< default true in all but the innermost level
  bool nesting = false;            ///< this level stands inside another; derived, kept for files
  std::string micro_conditioning;  ///< `label:default,label:default`; empty: none
  bool temporal_mode = false;
  bool temporal_spatial_ds = false;
  bool temporal_positional_encoding = false;
  ResNetConfig resnet_config;

  // The rest counts in levels that hold another one.
  bool skip_inner_unet_input = false;            ///< the inner level gets only the image, no features
  bool skip_normalization = false;               ///< don't divide the level's noisy input by its standard deviation
  std::string initialize_inner_with_pretrained;  ///< checkpoint of the inner level; empty: none
  bool freeze_inner_unet = false;                ///< the inner levels are not trained
  bool interp_conditioning = false;              ///< two layers that are never used (they exist in checkpoints)
};

/// The whole network.
struct ModelConfig {
  std::vector<UNetConfig> levels = {UNetConfig{}};  ///< outermost first; size 1 (unet) to 5 (nested4_unet)

  bool nested() const { return levels.size() > 1; }
  /// "unet", "nested_unet", "nested2_unet", "nested3_unet" or "nested4_unet".
  std::string kind() const;
};

/// The items of `micro_conditioning`, in order. ConfigError when the text has another form.
std::vector<MicroCondition> parse_micro_conditioning(const std::string& text);

/// The config that a network is built from: lists repeated to one entry per resolution, derived values
/// set, and the text's width put in and handed down as the reference's constructors do (an outer level's
/// projection width becomes the text width of the levels inside it). Throws ConfigError for settings
/// that can't be built: widths that don't divide, options that don't work together, levels that don't fit.
/// `text_dim`: width of the text's features, or -1 for a model without text.
struct ResolvedUNetConfig {
  UNetConfig config;              ///< lists have one entry per resolution; temporal_dim is set
  int64_t text_dim = -1;          ///< width of the text as this level gets it; <= 0: none
  int64_t conditioning_dim = -1;  ///< width after lm_proj: what cross-attention and cond_emb see
  std::vector<MicroCondition> micros;
};
std::vector<ResolvedUNetConfig> resolve(const ModelConfig& model, int64_t text_dim);

/// Side of each level as a fraction: {16, 4, 1} for 1024/256/64; outermost first, the innermost is 1.
/// (The reference's `nest_ratio + [1]`.)
std::vector<int64_t> level_scales(const ModelConfig& model);

}  // namespace mdm
