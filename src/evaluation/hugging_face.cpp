#include "evaluation/hugging_face.h"

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/text/text_model.h"
#include "text/json_text.h"

namespace mdm::evaluation {

namespace fs = std::filesystem;

fs::path model_folder(const std::string& flag, const std::string& model, const char* files) {
  std::error_code error;
  if (fs::is_directory(model, error)) return model;
  try {
    if (is_model_id(model)) return resolve_text_model(model);
  } catch (const ConfigError&) {  // speaks of text models
  }
  fail<ConfigError>(flag, ": '", printable(model), "' is no folder with ", files,
                    ", and no id of a model in the local Hugging Face cache; huggingface-cli download gets one there");
}

std::vector<fs::path> model_weight_files(const fs::path& folder) { return find_text_model_files(folder).weights; }

TensorFile open_model_weights(const fs::path& folder) {
  const auto files = model_weight_files(folder);
  return TensorFile::open(files.size() == 1 ? files[0] : folder);
}

ModelConfigJson::ModelConfigJson(const fs::path& file) : where_(printable(file.string(), 1000)) {
  std::string text;
  try {
    text = read_text_file(file, size_t{1} << 20);
  } catch (const DataError& error) {
    fail<ConfigError>(error.what());
  }
  json_ = nlohmann::json::parse(text, nullptr, false);
  if (!json_.is_object()) fail<ConfigError>(where_, ": is no JSON object");
}

int64_t ModelConfigJson::integer(const char* name, int64_t low, int64_t high, int64_t standard) const {
  if (!has(name)) return standard;
  const auto& value = json_[name];
  const bool fits = value.is_number_integer() && !(value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) &&
                    value.get<int64_t>() >= low && value.get<int64_t>() <= high;
  if (!fits) wrong(name, concat("an integer from ", low, " to ", high));
  return value.get<int64_t>();
}

double ModelConfigJson::number(const char* name, double low, double high, double standard) const {
  if (!has(name)) return standard;
  const auto& value = json_[name];
  if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high)) {
    wrong(name, concat("a number from ", low, " to ", high));
  }
  return value.get<double>();
}

std::string ModelConfigJson::text(const char* name, const std::string& standard) const {
  if (!has(name)) return standard;
  if (!json_[name].is_string()) wrong(name, "a text");
  return json_[name].get<std::string>();
}

bool ModelConfigJson::flag(const char* name, bool standard) const {
  if (!has(name)) return standard;
  if (!json_[name].is_boolean()) wrong(name, "true or false");
  return json_[name].get<bool>();
}

void ModelConfigJson::three(const char* name, float* numbers) const {
  if (!has(name)) return;
  const auto& list = json_[name];
  if (!list.is_array() || list.size() != 3) wrong(name, "three numbers");
  for (size_t i = 0; i < 3; ++i) {
    if (!list[i].is_number()) wrong(name, "three numbers");
    numbers[i] = list[i].get<float>();
  }
}

ModelConfigJson ModelConfigJson::part(const char* name) const {
  if (!has(name)) return {where_ + ": " + name, nlohmann::json::object()};
  if (!json_[name].is_object()) wrong(name, "an object");
  return {where_ + ": " + name, json_[name]};
}

void ModelConfigJson::wrong(const char* name, const std::string& expected) const {
  fail<ConfigError>(where_, ": '", name, "' is ", shown_json(json_[name]), "; expected ", expected);
}

}  // namespace mdm::evaluation
