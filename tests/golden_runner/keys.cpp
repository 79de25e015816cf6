// Names, order and shapes of the full-size models' parameters, from the reference's own YAML files.
#include <algorithm>
#include <sstream>

#include "golden_runner/model_case.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"

namespace mdm::golden {
namespace {

// Lines of a tab-separated file without its header.
std::vector<std::vector<std::string>> read_table(const std::filesystem::path& path) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream text(read_text_file(path));
  std::string line;
  std::getline(text, line);
  while (std::getline(text, line)) {
    auto& row = rows.emplace_back();
    std::istringstream fields(line);
    for (std::string field; std::getline(fields, field, '\t');) row.push_back(field);
  }
  return rows;
}

std::string shape_text(at::IntArrayRef shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : ",") + std::to_string(size);
  return text;
}

void compare_level(const UNetConfig& actual, const nlohmann::json& expected, const std::string& where, Report& report) {
  const auto same = [&](const char* field, const nlohmann::json& value) {
    const nlohmann::json& wanted = expected.at(field);
    report.require(value == wanted, where + "." + field, concat("is ", value.dump(), ", expected ", wanted.dump()));
  };
  same("num_resnets_per_resolution", actual.num_resnets_per_resolution);
  same("attention_levels", actual.attention_levels);
  same("num_attention_layers", actual.num_attention_layers);
  same("resolution_channels", actual.resolution_channels);
  same("conditioning_feature_dim", actual.conditioning_feature_dim);
  same("conditioning_feature_proj_dim", actual.conditioning_feature_proj_dim);
  same("num_lm_head_layers", actual.num_lm_head_layers);
  report.require(actual.masked_cross_attention == (expected.at("masked_cross_attention") != 0),
                 where + ".masked_cross_attention");
  same("skip_mid_blocks", actual.skip_mid_blocks);
  same("skip_cond_emb", actual.skip_cond_emb);
  same("nesting", actual.nesting);
  same("micro_conditioning", actual.micro_conditioning);
  same("temporal_mode", actual.temporal_mode);
  const nlohmann::json& wanted_width = expected.at("temporal_dim");
  if (!wanted_width.is_null()) same("temporal_dim", *actual.temporal_dim);
  const nlohmann::json& resnet = expected.at("resnet_config");
  report.require(actual.resnet_config.num_groups_norm == resnet.at("num_groups_norm") &&
                     actual.resnet_config.dropout == resnet.at("dropout") &&
                     actual.resnet_config.use_attention_ffn == resnet.at("use_attention_ffn"),
                 where + ".resnet_config");
  if (!expected.contains("inner_config")) return;
  same("skip_normalization", actual.skip_normalization);
  same("skip_inner_unet_input", actual.skip_inner_unet_input);
  same("freeze_inner_unet", actual.freeze_inner_unet);
  same("interp_conditioning", actual.interp_conditioning);
}

void compare_parameters(const UNet& model, const std::filesystem::path& stem, Report& report) {
  const auto keys = read_table(stem.string() + ".keys.tsv");
  const auto params = read_table(stem.string() + ".params.tsv");
  const auto own = model.named_parameters();
  report.require(own.size() == keys.size(), "number of tensors", concat(own.size(), ", expected ", keys.size()));
  for (size_t i = 0; i < std::min({own.size(), keys.size(), params.size()}); ++i) {
    const auto& item = own[i];
    report.require(item.key() == keys[i].at(0) && shape_text(item.value().sizes()) == keys[i].at(1),
                   concat("tensor ", i),
                   concat(item.key(), " (", shape_text(item.value().sizes()), "), expected ", keys[i].at(0), " (",
                          keys[i].at(1), ")"));
    report.require(item.key() == params[i].at(0) && item.value().requires_grad() == (params[i].at(2) == "1"),
                   concat("parameter ", i), item.key());
  }
}

}  // namespace

void check_keys(const std::filesystem::path& path, const Context& context, Report& report) {
  const std::string name = path.filename().string();
  const std::string stem = name.substr(0, name.size() - std::string(".keys.tsv").size());
  const auto yaml = reference_file(context, "configs/models/" + stem + ".yaml");
  if (yaml.empty()) return report.skip("the reference's configs/models/" + stem + ".yaml is not there");
  const nlohmann::json effective = read_json(path.parent_path() / (stem + ".effective.json"));

  const Config config = load_config({yaml});
  constexpr int64_t kTextWidth = 2048;  // flan-t5-xl, as the golden file was made
  const auto model = make_model(config.model, kTextWidth);
  compare_parameters(*model, path.parent_path() / stem, report);
  report.require(config.model.kind() == effective.at("model"), "model kind", config.model.kind());

  const auto levels = resolve(config.model, kTextWidth);
  const nlohmann::json* expected = &effective.at("resolved_unet_config_at_build");
  for (size_t i = 0; i < levels.size(); ++i) {
    compare_level(levels[i].config, *expected, concat("level ", i), report);
    if (i + 1 < levels.size()) expected = &expected->at("inner_config");
  }
  auto scales = level_scales(config.model);
  scales.pop_back();
  const nlohmann::json& ratio = effective.at("nest_ratio");
  report.require(ratio.is_null() ? scales.empty() : scales == ratio.get<std::vector<int64_t>>(), "nest_ratio");
}

}  // namespace mdm::golden
