// Models as the native API shows them: what may be set, their config, their parts, their noise schedules.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>

#include "config/describe.h"
#include "config/field.h"
#include "mdm/core/utf8.h"
#include "serving/views.h"

namespace mdm::serving {
namespace {

constexpr int64_t kSchedulePoints = 201;

const char* text_kind(const ShelvedModel& model) {
  if (model.pipeline.text_width() <= 0) return "none";
  const TextConfig& text = model.pipeline.config().text;
  if (text.use_precomputed_text_embeddings) return "precomputed";
  if (text.categorical_conditioning) return "class";
  switch (text.kind) {
    case TextKind::kT5: return "t5";
    case TextKind::kJoint: return "joint";
    case TextKind::kPrecomputed: return "precomputed";
    case TextKind::kClass: return "class";
  }
  return "";
}

// Prompts to begin with: the config's own, else some that tell something with any model.
Json examples_of(const ShelvedModel& model) {
  Json examples = Json::array();
  for (const std::string& prompt : model.pipeline.config().trainer.sample_prompts) examples.push_back(prompt);
  const std::string& name = model.checkpoint_name;
  const auto is = [&](const char* start) { return name.rfind(start, 0) == 0; };
  if (!examples.empty()) return examples;
  if (is("shapes")) {
    return {"a red circle", "a blue star", "a green square left of a yellow heart",
            "an orange triangle above a black ring", "a purple cross below a cyan circle"};
  }
  if (is("emoji")) return {"red apple", "tiger face", "sunflower", "rocket", "grinning face"};
  return {"a fox in the snow", "an old man making sushi", "a lighthouse above a stormy sea",
          "a bowl of ripe cherries on a wooden table", "a small red house in a field of lavender"};
}

Json view_of_setting(const SettingView& setting) {
  Json json = {{"name", setting.name}, {"type", setting.type}, {"default", setting.value}, {"help", setting.help}};
  if (setting.minimum) json["minimum"] = *setting.minimum;
  if (setting.maximum) json["maximum"] = *setting.maximum;
  if (!setting.choices.empty()) json["choices"] = setting.choices;
  return json;
}

// Names of files say where they lie on this machine: their last parts will do.
Json shown_value(const settings::Field& field) {
  Json value = Json::parse(field.json());
  const bool names_file = field.is_input_file || field.name == "text_model" || field.name == "vocab_file" ||
                          field.name == "embedding_cache" || field.name == "endpoint_url" || field.name == "bucket";
  if (names_file && value.is_string() && !value.get<std::string>().empty()) {
    value = std::filesystem::path(value.get<std::string>()).filename().string();
  }
  return value;
}

Json config_of(const ShelvedModel& model) {
  Config config = model.pipeline.config();
  Json groups = Json::array();
  for (const settings::Group& group : settings::describe(config)) {
    if (!contains(Section::kModel | Section::kDiffusion | Section::kReader | Section::kText, group.section)) continue;
    Json fields = Json::array();
    for (const settings::Field& field : group.fields) {
      fields.push_back({{"name", field.name},
                        {"type", field.type()},
                        {"value", shown_value(field)},
                        {"help", field.doc},
                        {"allowed", field.allowed()}});
    }
    groups.push_back({{"path", group.path}, {"title", group.title}, {"fields", std::move(fields)}});
  }
  return groups;
}

Json view_of_part(const ModelPart& part) {
  Json children = Json::array();
  for (const ModelPart& child : part.parts) {
    if (child.parameters > 0) children.push_back(view_of_part(child));
  }
  return {{"name", part.name}, {"type", part.type}, {"parameters", part.parameters}, {"children", std::move(children)}};
}

Json schedule_of(const ShelvedModel& model, int64_t side) {
  const Pipeline& pipeline = model.pipeline;
  const int64_t steps = pipeline.config().diffusion.sampler_config.num_diffusion_steps;
  const int64_t points = std::min(kSchedulePoints, steps);
  Json json = {{"steps", steps}, {"times", Json::array()}, {"levels", Json::array()}};
  for (int64_t i = 0; i < points; ++i) json["times"].push_back(points > 1 ? i * (steps - 1) / (points - 1) : 0);
  for (size_t level = 0; level < pipeline.levels(); ++level) {
    Json one = {{"side", side / pipeline.shrinkage(level)}, {"log_snr", Json::array()}, {"gamma", Json::array()}};
    for (const auto& time : json["times"]) {
      const double gamma = pipeline.gammas(level)[static_cast<size_t>(time.get<int64_t>() + 1)];
      const double log_snr = std::log(gamma / (1 - gamma));
      one["gamma"].push_back(gamma);
      one["log_snr"].push_back(std::isfinite(log_snr) ? Json(log_snr) : Json(nullptr));
    }
    json["levels"].push_back(std::move(one));
  }
  return json;
}

// Pieces of a vocabulary may be a part of a character.
std::string shown_piece(const std::string& piece) {
  if (is_utf8(piece)) return piece;
  std::string shown;
  constexpr char kDigits[] = "0123456789abcdef";
  for (const unsigned char byte : piece) shown += {'<', kDigits[byte >> 4], kDigits[byte & 15], '>'};
  return shown;
}

}  // namespace

Json view_of_model(const ShelvedModel& model, const OrderLimits& limits) {
  const Pipeline& pipeline = model.pipeline;
  const auto sides = sides_of(model);
  Json json;
  json["name"] = model.name;
  json["kind"] = pipeline.config().model.kind();
  json["parameters"] = pipeline.structure().parameters;
  json["side"] = sides.front();
  json["levels"] = Json::array();
  for (size_t level = 0; level < pipeline.levels(); ++level) {
    json["levels"].push_back({{"side", sides.front() / pipeline.shrinkage(level)}});
  }
  json["sides"] = sides;
  json["precision"] = choice_name(pipeline.config().runtime.precision);
  json["device"] = pipeline.config().runtime.device;
  json["text"] = text_kind(model);
  json["examples"] = examples_of(model);
  json["settings"] = Json::array();
  for (const SettingView& setting : settings_of(model, limits)) json["settings"].push_back(view_of_setting(setting));
  return json;
}

Json full_view_of_model(const ShelvedModel& model, const OrderLimits& limits) {
  Json json = view_of_model(model, limits);
  json["config"] = config_of(model);
  json["structure"] = view_of_part(model.pipeline.structure());
  json["schedule"] = schedule_of(model, sides_of(model).front());
  return json;
}

Json view_of_tokens(const PromptTokens& tokens) {
  Json json = {{"tokens", Json::array()}, {"cut", tokens.cut}};
  for (const PromptToken& token : tokens.tokens) {
    json["tokens"].push_back({{"id", token.id}, {"text", shown_piece(token.piece)}});
  }
  return json;
}

}  // namespace mdm::serving
