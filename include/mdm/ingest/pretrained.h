// Weights that others have published: Apple's checkpoints, and text encoders in Hugging Face's layout.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "mdm/net/http_client.h"

namespace mdm {

struct PretrainedSettings {
  std::vector<std::string> models;       ///< "flickr64", "flickr256", "flickr1024"
  std::vector<std::string> text_models;  ///< ids such as "google/flan-t5-xl"
  /// Where files go: "models" and "text" in default_cache_folder() when empty; the latter is where text_model is looked
  /// for by its id.
  std::filesystem::path folder;
  std::string model_url = "https://docs-assets.developer.apple.com/ml-research/models/mdm";
  std::string text_url;  ///< empty: $HF_ENDPOINT, else https://huggingface.co
  std::string revision = "main";
  std::string token;            ///< for the text model's server (HF_TOKEN), sent to it alone; empty: none
  bool check = false;           ///< read files that are there, and compare them with what was recorded
  bool accept_changed = false;  ///< take a file that is another one than the recorded
  HttpOptions http;
  std::function<void(const std::string& file, uint64_t done, uint64_t total)> show;  ///< total 0: not known
};

struct PretrainedItem {
  std::string name;            ///< as it was asked for
  std::filesystem::path path;  ///< the file of a model, the folder of a text model
  uint64_t bytes = 0;
  bool fetched = false;  ///< now; else all of it was there
  std::string config;    ///< of a model: the file of this repository that describes it; empty: of a text model
};

/// Downloads what is not there yet, one file after the other; a download that breaks off goes on where it was at the
/// next call. Each file's URL, size and SHA-256 are recorded in FILE.json when it first comes; another one under the
/// same name, today or in a later call with `check`, is a DataError that tells both, and is not taken. A text model's
/// folder appears when it is complete: config.json, spiece.model, and model.safetensors or the parts that its index
/// names. ConfigError (unknown names), NetError, DataError, Error (no room on the disk).
std::vector<PretrainedItem> fetch_pretrained(const PretrainedSettings& settings);

}  // namespace mdm
