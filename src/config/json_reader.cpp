// Configs out of checkpoints: JSON -> tree of settings. The only place of this room that knows the JSON
// library.
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "config/assemble.h"
#include "config/field.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"

namespace mdm {
namespace settings {
namespace {

constexpr int kMaxJsonDepth = 64;
constexpr size_t kMaxJsonBytes = size_t{16} << 20;
constexpr size_t kMaxJsonKeys = 1000;
constexpr size_t kMaxJsonValues = 500000;

class JsonTree {
 public:
  explicit JsonTree(const std::string& name) : origin_{std::make_shared<const std::string>(name), 0} {}

  // `json` is not nested too deep for recursion: that was seen to when it was parsed.
  Value convert(const nlohmann::json& json, int depth = 0) {
    Value value;
    if (json.is_object()) {
      value = from_object(json, depth);
    } else if (json.is_array()) {
      value.kind = Value::Kind::kList;
      for (const auto& item : json) value.items.push_back(convert(item, depth + 1));
    } else if (json.is_string()) {
      value = scalar(json.get<std::string>(), origin_);
    } else if (json.is_number_float()) {
      value = scalar(number_text(json.get<double>()), origin_);
    } else if (!json.is_null()) {
      value = scalar(json.dump(), origin_);
    }
    value.origin = origin_;
    value.lenient = true;
    return value;
  }

 private:
  // An enum (an object with its name or number), or a map.
  Value from_object(const nlohmann::json& json, int depth) {
    constexpr size_t kMostEnumKeys = 4;  // __class__, name, value, args
    if (depth > 0 && json.contains("__class__") && json.size() <= kMostEnumKeys) {
      for (const char* key : {"name", "value", "args"}) {
        const auto found = json.find(key);
        if (found == json.end()) continue;
        const nlohmann::json& item = found->is_array() && !found->empty() ? found->front() : *found;
        if (item.is_number_integer()) return scalar(enum_number_text(item.get<int64_t>()), origin_);
        if (item.is_string()) return scalar(item.get<std::string>(), origin_);
      }
    }
    Value map;
    map.kind = Value::Kind::kMap;
    if (json.size() > kMaxJsonKeys)
      fail<ConfigError>(origin_.text(), ": more than ", kMaxJsonKeys, " keys in one object");
    for (const auto& [key, item] : json.items()) {
      if (key == "__class__" || key.find('.') != std::string::npos) continue;
      map.set(key, convert(item, depth + 1));
    }
    return map;
  }

  Origin origin_;
};

}  // namespace

Value read_json(const std::string& text, const std::string& name) {
  if (text.size() > kMaxJsonBytes) fail<ConfigError>(name, ": more than ", kMaxJsonBytes, " bytes");
  const auto parse = [&name](const std::string& part) {
    size_t count = 0;
    return nlohmann::json::parse(part, [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
      if (depth > kMaxJsonDepth) fail<ConfigError>(name, ": nested too deep");
      if (++count > kMaxJsonValues) fail<ConfigError>(name, ": more than ", kMaxJsonValues, " values");
      return true;
    });
  };
  nlohmann::json json;
  try {
    json = parse(text);
    // A checkpoint's whole metadata holds the config as `args`.
    for (int i = 0; i < 2 && json.is_object() && !json.contains("unet_config") && json.contains("args"); ++i) {
      nlohmann::json args = std::move(json.at("args"));
      json = args.is_string() ? parse(args.get<std::string>()) : std::move(args);
    }
  } catch (const nlohmann::json::exception& error) {
    fail<ConfigError>(name, ": not readable as JSON: ", printable(error.what()));
  }
  if (!json.is_object() || !json.contains("unet_config")) {
    fail<ConfigError>(name, ": holds no unet_config, so the model is not known; give a config file");
  }
  return JsonTree(name).convert(json);
}

}  // namespace settings

Config config_from_json(const std::string& args_json, std::vector<std::string>* warnings) {
  settings::Report report;
  const settings::Value layer = settings::read_json(args_json, "config of the checkpoint");
  const settings::Value tree = settings::normalize(layer, settings::LayerKind::kCheckpoint, report);
  LoadedConfig loaded = settings::build_config(tree, ConfigUse::kInspect, false, false, std::move(report));
  for (const std::string& warning : loaded.warnings) {
    if (warnings) {
      warnings->push_back(warning);
    } else {
      log_warning(warning);
    }
  }
  return std::move(loaded.config);
}

}  // namespace mdm
