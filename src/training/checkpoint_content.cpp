#include "training/checkpoint_content.h"

#include <ATen/Parallel.h>
#include <torch/version.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "mdm/checkpoint/state_dict.h"
#include "mdm/checkpoint/write.h"
#include "mdm/core/error.h"
#include "mdm/core/version.h"
#include "training/model_parameters.h"

namespace mdm {
namespace {

constexpr int kStateFormat = 1;
constexpr const char* kWeights = "weights.safetensors";
constexpr const char* kEma = "ema.safetensors";
constexpr const char* kMoments = "moments.safetensors";

// Not read back: for whoever wonders where a file comes from.
nlohmann::ordered_json launch_facts(int64_t world_size) {
  char host[256] = "unknown";
  (void)::gethostname(host, sizeof host - 1);
  char when[32] = "";
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  if (::gmtime_r(&now, &utc) != nullptr) std::strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return {{"program", concat("libmdm ", version())},
          {"torch", TORCH_VERSION},
          {"host", printable(host)},
          {"process", ::getpid()},
          {"world_size", world_size},
          {"threads", at::get_num_threads()},
          {"time", when}};
}

nlohmann::json parse_state(const std::string& text) {
  try {
    nlohmann::json state = nlohmann::json::parse(text);
    if (state.at("format").get<int>() != kStateFormat) fail<CheckpointError>("state.json has another format");
    return state;
  } catch (const nlohmann::json::exception& error) {
    fail<CheckpointError>("state.json can't be read: ", printable(error.what()));
  }
}

void load_part(const std::filesystem::path& file, ArenaPart part, ParameterArena& arena) {
  arena.write(
      part, [&](const std::vector<NamedTensor>& destination) { load_state_dict(TensorFile::open(file), destination); });
}

// JSON has no NaN; the writer of .pth files takes this for one.
nlohmann::ordered_json python_float(double value) {
  if (std::isfinite(value)) return value;
  return {{"__float__", std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf"}};
}

}  // namespace

std::string model_file_name(const char* pattern, uint64_t step) {
  char name[64];
  std::snprintf(name, sizeof name, pattern, static_cast<unsigned long long>(step));
  return name;
}

CheckpointContent checkpoint_content(const Config& config, const TrainingState& state, const ParameterArena& arena,
                                     const BatchSource& data, int64_t world_size, bool copy) {
  CheckpointContent content;
  content.step = state.step;
  content.parts = {{kWeights, arena.weights()}, {kEma, arena.ema()}, {kMoments, arena.moments()}};
  for (auto& part : content.parts) {
    if (!copy) break;
    for (NamedTensor& item : part.tensors) item.tensor = item.tensor.to(at::kCPU, at::kFloat, false, /*copy=*/true);
  }
  for (size_t i = 0; config.trainer.write_pth && i < kModelFiles.size(); ++i) {
    for (const NamedTensor& item : content.parts[i].tensors) content.companion_bytes += item.tensor.nbytes();
  }
  nlohmann::ordered_json json;
  json["format"] = kStateFormat;
  json["training"] = nlohmann::ordered_json::parse(state.to_json());
  json["data"] = nlohmann::ordered_json::parse(data.state_json());
  json["config"] = nlohmann::ordered_json::parse(config_to_json(config));
  json["launch"] = launch_facts(world_size);
  content.state_json = json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  return content;
}

LoadedState load_checkpoint(const SavedCheckpoint& checkpoint, ParameterArena& arena) {
  const nlohmann::json json = parse_state(checkpoint.state_json);
  LoadedState out;
  try {
    out.state = TrainingState::from_json(json.at("training").dump());
    out.data_json = json.at("data").dump();
  } catch (const nlohmann::json::exception& error) {
    fail<CheckpointError>("state.json can't be read: ", printable(error.what()));
  }
  if (out.state.step != checkpoint.step) {
    fail<CheckpointError>("state.json is of step ", out.state.step, ", its folder of step ", checkpoint.step);
  }
  load_part(checkpoint.folder / kEma, ArenaPart::kEma, arena);
  load_part(checkpoint.folder / kMoments, ArenaPart::kMoments, arena);
  load_part(checkpoint.folder / kWeights, ArenaPart::kWeights, arena);  // last, as write() wants it
  return out;
}

std::string config_of_state(const std::string& state_json) {
  const nlohmann::json json = parse_state(state_json);
  return json.contains("config") ? json["config"].dump() : "{}";
}

uint64_t seed_of_state(const std::string& state_json) {
  const nlohmann::json json = parse_state(state_json);
  return TrainingState::from_json(json.contains("training") ? json["training"].dump() : "{}").seed;
}

void write_model_files(const std::filesystem::path& folder, const Config& config, const TrainingState& state,
                       const CheckpointContent& content, const std::string& text_vocabulary) {
  nlohmann::ordered_json items;
  items["batch_num"] = state.step;
  items["loss"] = python_float(state.loss);
  items["best_avg_loss"] = python_float(state.average_loss);  // the reference stores the average here, too
  items["exp_avg_loss"] = python_float(state.average_loss);
  items["exp_avg_loss_var"] = python_float(state.loss_variance);
  items["args"] = nlohmann::ordered_json::parse(config_to_json(config));
  if (!text_vocabulary.empty()) items[kTextVocabularyItem] = text_vocabulary;
  const std::string text = items.dump();
  for (size_t i = 0; i < kModelFiles.size(); ++i) {
    const char* source = i == 0 ? kEma : kWeights;
    const auto part = std::find_if(content.parts.begin(), content.parts.end(),
                                   [source](const auto& candidate) { return candidate.file == source; });
    const std::vector<NamedTensor>& all = part->tensors;
    std::vector<TensorSection> sections;
    auto encoder = text_encoder_tensors(all);
    if (!encoder.empty()) sections.push_back({kTextEncoderSection, std::move(encoder)});
    write_pth(folder / model_file_name(kModelFiles[i], state.step), model_tensors(all), text, {}, sections);
  }
}

}  // namespace mdm
