#include "training/config_change.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "mdm/core/error.h"

namespace mdm {
namespace {

// Sections and settings that may change freely.
const std::set<std::string>& free_settings() {
  static const std::set<std::string> names = {"trainer.multinode",
                                              "trainer.local_rank",
                                              "trainer.bucket_mb",
                                              "trainer.shard_optimizer",
                                              "trainer.log_freq",
                                              "trainer.save_freq",
                                              "trainer.lr_scaling_factor",
                                              "trainer.output_dir",
                                              "trainer.num_epochs",
                                              "trainer.keep_last",
                                              "trainer.keep_every",
                                              "trainer.write_pth",
                                              "trainer.resume_from_ema",
                                              "trainer.allow_config_change",
                                              "trainer.sample_freq",
                                              "trainer.sample_prompts",
                                              "trainer.sample_steps",
                                              "trainer.sample_guidance",
                                              "trainer.validation_freq",
                                              "trainer.validation_samples",
                                              "trainer.eval_freq",
                                              "trainer.eval_samples",
                                              "trainer.eval_inception",
                                              "trainer.eval_reference",
                                              "trainer.eval_features",
                                              "trainer.eval_clip",
                                              "trainer.max_skipped_steps",
                                              "trainer.pretrained_ema",
                                              "trainer.validation_file_list",
                                              "trainer.pretrained_vision_file",
                                              "reader_config.num_kept_files",
                                              "reader_config.num_readers",
                                              "reader_config.reader_buffer_size",
                                              "reader_config.endpoint_url",
                                              "reader_config.bucket",
                                              "reader_config.cache_dir",
                                              "reader_config.allow_private_hosts",
                                              "reader_config.use_proxy",
                                              "reader_config.shuffle_buffer_size",
                                              "reader_config.max_bad_fraction",
                                              "text.keep_text_encoder",
                                              "text.embedding_cache",
                                              "runtime.device",
                                              "runtime.threads",
                                              "runtime.cuda_graphs",
                                              "runtime.loglevel"};
  return names;
}

bool is_free(const std::string& path, const Config& config) {
  if (path.rfind("sample.", 0) == 0 || path.rfind("distributed.", 0) == 0 || free_settings().count(path) != 0)
    return true;
  const std::string last = path.substr(path.rfind('.') + 1);
  if (last == "initialize_inner_with_pretrained") return true;  // it was of the first start
  if (path == "trainer.num_training_steps") {
    return config.trainer.lr_decay == LrDecay::kConstant || config.trainer.lr_decay == LrDecay::kInverseSqrt;
  }
  return path == "trainer.seed" && config.trainer.seed < 0;  // then the checkpoint's is taken
}

void flatten(const nlohmann::json& json, const std::string& path, std::map<std::string, std::string>& out) {
  if (!json.is_object()) {
    out[path] = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    return;
  }
  for (const auto& [name, value] : json.items()) flatten(value, path.empty() ? name : path + "." + name, out);
}

}  // namespace

std::vector<std::string> process_differences(const std::string& first_json, const Config& own) {
  static const std::set<std::string> own_affair = {"runtime.device",          "runtime.threads",
                                                   "runtime.cuda_graphs",     "runtime.loglevel",
                                                   "reader_config.cache_dir", "text.embedding_cache"};
  std::map<std::string, std::string> first, here;
  flatten(nlohmann::json::parse(first_json), "", first);
  flatten(nlohmann::json::parse(config_to_json(own)), "", here);
  std::vector<std::string> differences;
  for (const auto& [path, value] : here) {
    const auto other = first.find(path);
    if (other != first.end() && other->second == value) continue;
    if (path.rfind("distributed.", 0) == 0 || own_affair.count(path) != 0) continue;
    differences.push_back(concat(path, ": ", other == first.end() ? "absent" : printable(other->second), " on rank 0, ",
                                 printable(value), " here"));
  }
  for (const auto& [path, value] : first) {
    if (here.count(path) == 0) differences.push_back(concat(path, ": ", printable(value), " on rank 0, absent here"));
  }
  return differences;
}

std::vector<std::string> config_changes(const std::string& saved_json, const Config& config) {
  std::map<std::string, std::string> before, now;
  // Through a Config, so that settings which a newer version has added have their defaults on both sides.
  std::vector<std::string> ignored;
  flatten(nlohmann::json::parse(config_to_json(config_from_json(saved_json, &ignored))), "", before);
  flatten(nlohmann::json::parse(config_to_json(config)), "", now);
  std::vector<std::string> changes;
  for (const auto& [path, value] : now) {
    const auto old = before.find(path);
    if (old != before.end() && old->second == value) continue;
    if (!is_free(path, config)) {
      changes.push_back(
          concat(path, ": was ", old == before.end() ? "absent" : printable(old->second), ", is ", printable(value)));
    }
  }
  for (const auto& [path, value] : before) {
    if (now.count(path) == 0 && !is_free(path, config)) {
      changes.push_back(concat(path, ": was ", printable(value), ", is absent"));
    }
  }
  return changes;
}

}  // namespace mdm
