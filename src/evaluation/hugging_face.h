// Folders of Hugging Face models: where they are, and what their config.json says.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "mdm/checkpoint/tensor_file.h"

namespace mdm::evaluation {

// The folder of `model`: itself, or the snapshot of that id in the local cache. `flag` names the setting in errors,
// `files` what is expected there. ConfigError.
std::filesystem::path model_folder(const std::string& flag, const std::string& model, const char* files);

// The weights in a folder, of all shards. ConfigError when there are none.
TensorFile open_model_weights(const std::filesystem::path& folder);
// The files that these are read from.
std::vector<std::filesystem::path> model_weight_files(const std::filesystem::path& folder);

// An object of a config.json, with errors that name file and field. What is missing has the default that transformers
// has for it, which it leaves out when it writes such files.
class ModelConfigJson {
 public:
  // ConfigError when it is no JSON object.
  explicit ModelConfigJson(const std::filesystem::path& file);

  int64_t integer(const char* name, int64_t low, int64_t high, int64_t standard) const;
  double number(const char* name, double low, double high, double standard) const;
  std::string text(const char* name, const std::string& standard) const;
  bool flag(const char* name, bool standard) const;
  bool has(const char* name) const { return json_.contains(name) && !json_[name].is_null(); }
  // The three numbers of a list, where it is there.
  void three(const char* name, float* numbers) const;
  // An object inside; an empty one when it is not there.
  ModelConfigJson part(const char* name) const;
  const std::string& where() const { return where_; }

 private:
  ModelConfigJson(std::string where, nlohmann::json json) : where_(std::move(where)), json_(std::move(json)) {}
  [[noreturn]] void wrong(const char* name, const std::string& expected) const;
  std::string where_;
  nlohmann::json json_;
};

}  // namespace mdm::evaluation
