// Where a text model's files are: a folder, or an id in the local Hugging Face cache.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace mdm {

/// The files of a T5 in Hugging Face's layout.
struct TextModelFiles {
  std::filesystem::path folder;
  std::filesystem::path config;                ///< config.json
  std::vector<std::filesystem::path> weights;  ///< safetensors or .bin; several when sharded
  std::filesystem::path spiece_model;          ///< empty when the folder has none
};

/// `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else `$XDG_CACHE_HOME/huggingface/hub`, else
/// `~/.cache/huggingface/hub`; empty when not even a home is known.
std::filesystem::path hugging_face_cache();

/// Whether `text` is an id such as "google/flan-t5-xl" or "t5-small": one or two names of letters, digits, '-', '_' and
/// '.'.
bool is_model_id(const std::string& text);

/// The folder of an id in a folder of downloaded text models (`download_dataset pretrained`): "OWNER--NAME" in it.
std::filesystem::path text_model_folder(const std::filesystem::path& folder, const std::string& id);

/// The folder of `text_model`: itself when it is a folder, else the snapshot that `refs/main` of that id
/// names in `hub_cache`, else that id's in "text" of default_cache_folder(). ConfigError that says what was looked for,
/// which files are expected and how to get them when there is none.
std::filesystem::path resolve_text_model(const std::string& text_model,
                                         const std::filesystem::path& hub_cache = hugging_face_cache());

/// The files of a folder: config.json, and weights as model.safetensors, model.safetensors.index.json,
/// pytorch_model.bin or pytorch_model.bin.index.json, the first that is there. Files that a JSON index
/// names must be bare names in the folder, and links must stay in the folder or, in a snapshot of the
/// Hugging Face cache, lead to that model's own blobs. ConfigError or CheckpointError otherwise.
TextModelFiles find_text_model_files(const std::filesystem::path& folder);

}  // namespace mdm
