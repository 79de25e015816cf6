// Layers of settings (defaults, checkpoint, YAML files, flags) -> one Config.
#include "config/assemble.h"

#include <algorithm>
#include <functional>
#include <initializer_list>

#include "config/describe.h"
#include "config/names.h"
#include "config/yaml_reader.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"

namespace mdm::settings {
namespace {

constexpr std::string_view kInner = "inner_config";

// Keys that files of the reference have at the top level, where the reference does not read them.
constexpr std::string_view kMisplaced[] = {"mixed_ratio", "multi_res_weights"};

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

class Normalizer {
 public:
  Normalizer(const Value& layer, LayerKind kind, Report& report) : layer_(layer), kind_(kind), report_(report) {
    out_.kind = Value::Kind::kMap;
    out_.origin = layer.origin;
    sample_.model = default_model(kMaxLevels);
    groups_ = describe(sample_);
  }

  Value run() {
    for (const Group& group : groups_) {
      if (group.flat) take_flat(group);
    }
    for (const Group& group : groups_) {
      if (group.path.find('.') == std::string::npos) take_group(group);
    }
    take_kind();
    take_misplaced();
    take_fp16();
    for (size_t i = 0; i < layer_.keys.size(); ++i) {
      if (!used(layer_.keys[i])) unknown(layer_.keys[i], layer_.items[i]);
    }
    return std::move(out_);
  }

 private:
  const Value* use(const std::string& key) {
    const Value* value = layer_.find(key);
    if (value) used_.push_back(key);
    return value;
  }
  bool used(const std::string& key) const { return std::find(used_.begin(), used_.end(), key) != used_.end(); }

  void take_flat(const Group& group) {
    const bool skip = kind_ == LayerKind::kCheckpoint &&
                      contains(Section::kSample | Section::kRuntime | Section::kDistributed, group.section);
    for (const Field& field : group.fields) {
      std::vector<std::string> names(field.aliases.rbegin(), field.aliases.rend());
      names.push_back(field.name);
      for (const std::string& name : names) {
        const Value* value = use(name);
        if (value && !skip) out_.at_path(group.path).set(field.name, *value);
      }
    }
  }

  void take_group(const Group& group) {
    const Value* map = use(group.path);
    if (!map || map->is_null()) return;
    if (!map->is_map()) {
      report_.problem(concat(map->origin.text(), ": ", group.path, ": must hold keys, not a value"));
      return;
    }
    Value own = *map;
    if (group.flat) {
      for (const Field& field : group.fields) {
        for (auto alias = field.aliases.rbegin(); alias != field.aliases.rend(); ++alias)
          rename(own, *alias, field.name);
      }
    }
    out_.at_path(group.path).merge(own);
  }

  // A name in a section's map gets the field's own name; where both are given, the field's own counts.
  static void rename(Value& map, const std::string& from, const std::string& to) {
    const auto at = std::find(map.keys.begin(), map.keys.end(), from);
    if (at == map.keys.end()) return;
    if (!map.find(to)) {
      *at = to;
      return;
    }
    map.items.erase(map.items.begin() + (at - map.keys.begin()));
    map.keys.erase(at);
  }

  void take_kind() {
    const Value* second = use("vision_model");
    const Value* first = use("model");
    if (first && first->is_null()) first = nullptr;
    if (second && second->is_null()) second = nullptr;
    if (first && second && lower(first->text) != lower(second->text)) {
      report_.warnings.push_back(concat(second->origin.text(), ": vision_model is \"", printable(second->text),
                                        "\" but model is \"", printable(first->text), "\"; model counts"));
    }
    if (first || second) out_.set("model", first ? *first : *second);
  }

  void take_misplaced() {
    for (const std::string_view key : kMisplaced) {
      const Value* value = use(std::string(key));
      // What a checkpoint has there had no effect on its training.
      if (!value || kind_ == LayerKind::kCheckpoint) continue;
      const Value* proper = out_.find_path(concat("diffusion_config.", key));
      report_.warnings.push_back(concat(value->origin.text(), ": ", key, " stands at the top level; ",
                                        proper ? "that under diffusion_config counts" : "read as diffusion_config.",
                                        proper ? "" : key));
      if (!proper) out_.at_path("diffusion_config").set(key, *value);
    }
  }

  void take_fp16() {
    const Value* value = use("fp16");
    if (!value || kind_ == LayerKind::kCheckpoint) return;
    const auto on = parse_bool(value->text);
    if (value->kind != Value::Kind::kScalar || !on) {
      report_.problem(concat(value->origin.text(), ": fp16: must be 0 or 1"));
      return;
    }
    if (*on) report_.warnings.push_back(concat(value->origin.text(), ": fp16 is read as precision: bf16"));
    if (!out_.find_path("runtime.precision")) {
      out_.at_path("runtime").set("precision", scalar(*on ? "bf16" : "fp32", value->origin));
    }
  }

  void unknown(const std::string& key, const Value& value) {
    const std::string place = value.origin.text() + ": ";
    if (const char* why = ignored_key("", key)) {
      report_.notes.push_back(concat(place, key, " has no effect: ", why));
      return;
    }
    const std::string home = home_of(key, groups_);
    std::string text = concat(place, "unknown key \"", printable(key), "\"");
    if (!home.empty()) {
      text += "; it belongs under " + home;
    } else {
      std::vector<std::string> names = {"model"};
      for (const Group& group : groups_) {
        if (group.path.find('.') == std::string::npos) names.push_back(group.path);
        if (!group.flat) continue;
        for (const Field& field : group.fields) names.push_back(field.name);
      }
      const std::string_view near = nearest_name(key, names);
      if (!near.empty()) text += concat("; did you mean \"", near, "\"?");
    }
    if (value.lenient) {
      report_.warnings.push_back(text);
    } else {
      report_.problem(text);
    }
  }

  const Value& layer_;
  const LayerKind kind_;
  Report& report_;
  Config sample_;  // the fields of groups_ point into it
  std::vector<Group> groups_;
  std::vector<std::string> used_;
  Value out_;
};

// Number of levels, from the model's kind and from how deep inner_config nests.
// A partial tree may name a kind and leave its levels to the checkpoint.
int count_levels(const Value& tree, bool partial, Report& report) {
  int depth = 1;
  const Value* level = tree.find("unet_config");
  const bool described = level && level->is_map() && !level->keys.empty();
  for (; level && level->is_map(); ++depth) {
    level = level->find(kInner);
    if (!level || level->is_null()) break;
  }
  const Value* kind = tree.find("model");
  if (!kind) {
    if (depth > kMaxLevels) {
      report.problem(concat("unet_config: ", depth - 1, " inner_config; at most ", kMaxLevels - 1, " are possible"));
      report.throw_problems();
    }
    return depth;
  }
  const auto& kinds = model_kinds();
  const auto found = std::find(kinds.begin(), kinds.end(), lower(kind->text));
  if (found == kinds.end()) {
    const std::string_view near = nearest_name(kind->text, kinds);
    report.problem(concat(kind->origin.text(), ": model: \"", printable(kind->text),
                          "\" is not one of unet, nested_unet, nested2_unet, nested3_unet, nested4_unet",
                          near.empty() ? "" : "; did you mean ", near, near.empty() ? "" : "?"));
    report.throw_problems();
  }
  const int levels = static_cast<int>(found - kinds.begin()) + 1;
  if (described && depth != levels && !partial) {
    const std::string fits = depth <= kMaxLevels ? "; that many make a " + kinds[static_cast<size_t>(depth - 1)] : "";
    report.problem(concat(kind->origin.text(), ": model: ", *found, " needs ", levels - 1,
                          " inner_config below unet_config, one inside the other; found ", depth - 1, fits));
    report.throw_problems();
  }
  return levels;
}

// How a field is called in messages.
std::string shown_path(const Group& group, const std::string& name) {
  return group.flat ? name : group.path + "." + name;
}

// What to do about an unknown key.
std::string advice(const std::string& key, const Group& group, const std::vector<Group>& groups) {
  Config nested;
  nested.model = default_model(2);
  const std::vector<Field> outer_fields = describe(nested).front().fields;
  const auto has_name = [&](const Field& field) { return field.name == key; };
  if (group.section == Section::kModel &&
      (key == kInner || std::any_of(outer_fields.begin(), outer_fields.end(), has_name))) {
    return "; it has a meaning only in a level that holds an inner_config";
  }
  const std::string home = home_of(key, groups);
  if (!home.empty()) return "; it belongs under " + home;
  std::vector<std::string> names;
  for (const Field& field : group.fields) names.push_back(field.name);
  const std::string_view near = nearest_name(key, names);
  return near.empty() ? "" : concat("; did you mean \"", near, "\"?");
}

// Python writes None for what is unset, but YAML takes that for a text.
bool reads_as_unset(const Value& value, const Field& field) {
  if (value.lenient || value.kind != Value::Kind::kScalar || lower(value.text) != "none") return false;
  const std::string json = field.json();
  return json == "null" || json == "[]" || json == "\"\"";
}

void apply_group(const Value& map, const Group& group, const std::vector<Group>& groups, LoadedConfig& loaded,
                 Report& report) {
  for (size_t i = 0; i < map.keys.size(); ++i) {
    const std::string& key = map.keys[i];
    const Value& value = map.items[i];
    const std::string place = value.origin.text() + ": " + shown_path(group, printable(key));
    const auto field =
        std::find_if(group.fields.begin(), group.fields.end(), [&](const Field& f) { return f.name == key; });
    if (field != group.fields.end()) {
      const std::string wrong = field->assign(value);
      if (!wrong.empty()) report.problem(place + ": " + wrong);
      if (wrong.empty() && reads_as_unset(value, *field)) {
        report.warnings.push_back(place + ": the text \"" + value.text + "\" is read as unset");
      }
      loaded.origins[group.path + "." + key] = value.origin.text();
      continue;
    }
    const std::string child = group.path + "." + key;
    if (std::any_of(groups.begin(), groups.end(), [&](const Group& g) { return g.path == child; })) {
      if (!value.is_map() && !value.is_null()) report.problem(place + ": must hold keys, not a value");
      continue;
    }
    if (key == kInner && value.is_null()) continue;
    if (const char* why = ignored_key(group.path, key)) {
      report.notes.push_back(concat(place, " has no effect: ", why));
      continue;
    }
    const std::string text = place + ": unknown key" + advice(key, group, groups);
    if (value.lenient) {
      report.warnings.push_back(text);
    } else {
      report.problem(text);
    }
  }
}

}  // namespace

void Report::problem(const std::string& text) {
  if (std::find(problems.begin(), problems.end(), text) == problems.end()) problems.push_back(text);
}

void Report::throw_problems() const {
  constexpr size_t kShown = 20;
  if (problems.empty()) return;
  std::string text = problems.front();
  for (size_t i = 1; i < std::min(problems.size(), kShown); ++i) text += "\n  " + problems[i];
  if (problems.size() > kShown) text += concat("\n  and ", problems.size() - kShown, " more");
  throw ConfigError(text);
}

Value normalize(const Value& layer, LayerKind kind, Report& report) { return Normalizer(layer, kind, report).run(); }

Value flag_layer(const Overrides& overrides, Section sections, Report& report) {
  Value layer;
  layer.kind = Value::Kind::kMap;
  std::vector<std::string> lists;  // paths of text lists that flags have begun
  for (const auto& [name, text] : overrides) {
    const Origin origin{std::make_shared<const std::string>("flag --" + printable(name)), 0};
    Setting setting;
    try {
      setting = find_setting(name, sections);
    } catch (const ConfigError& error) {
      report.problem(concat("flag --", printable(name), ": ", error.what()));
      continue;
    }
    if (!setting.ignored.empty()) {
      report.warnings.push_back(concat(origin.text(), " has no effect: ", setting.ignored));
    }
    Value value = scalar(text, origin);
    if (setting.negated) {
      const auto on = parse_bool(text);
      if (on) value.text = *on ? "false" : "true";
    }
    for (const std::string& path : setting.paths) {
      Value& at = layer.at_path(path);
      if (!setting.is_text_list) {
        at = value;
        continue;
      }
      if (std::find(lists.begin(), lists.end(), path) == lists.end()) {
        lists.push_back(path);
        at = Value();
        at.kind = Value::Kind::kList;
      }
      at.origin = origin;
      at.items.push_back(value);
    }
  }
  return layer;
}

LoadedConfig build_config(const Value& tree, ConfigUse use, bool partial, bool goes_on, Report report) {
  LoadedConfig loaded;
  loaded.partial = partial;
  loaded.goes_on = goes_on;
  const auto levels = static_cast<size_t>(count_levels(tree, partial, report));
  loaded.config.model = default_model(static_cast<int>(levels));
  // A checkpoint that is still to be read may make more levels of it: their settings are known, too.
  if (partial) loaded.config.model.levels.resize(kMaxLevels);
  const std::vector<Group> groups = describe(loaded.config);
  for (const Group& group : groups) {
    const Value* map = tree.find_path(group.path);
    if (map && map->is_map()) apply_group(*map, group, groups, loaded, report);
  }
  if (const Value* model = tree.find("model")) loaded.origins["model"] = model->origin.text();
  report.throw_problems();
  loaded.config.model.levels.resize(levels);
  check_config(loaded, use, report);
  report.throw_problems();
  loaded.warnings = std::move(report.warnings);
  loaded.notes = std::move(report.notes);
  return loaded;
}

}  // namespace mdm::settings

namespace mdm {
namespace {

// Drops from a section what is not `kept`.
void keep(settings::Value& tree, const char* section, const std::function<bool(std::string_view name)>& kept) {
  settings::Value* all = tree.find(section);
  if (!all || !all->is_map()) return;
  settings::Value part;
  for (size_t i = 0; i < all->keys.size(); ++i) {
    if (kept(all->keys[i])) part.set(all->keys[i], all->items[i]);
  }
  *all = part;
}

bool one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// What a checkpoint's own config may set: what the weights depend on and what pictures they were meant to be drawn
// with; in a training that goes on all that it was started with, but for what is meant for one start or one machine.
void keep_settings_of_checkpoint(settings::Value& tree, ConfigUse use) {
  const bool training = use == ConfigUse::kTrain;
  keep(tree, "trainer", [&](auto name) {
    return training && !one_of(name, {"resume_from_ema", "allow_config_change"});
  });
  keep(tree, "distributed", [](auto) { return false; });
  keep(tree, "runtime", [&](auto name) { return training && one_of(name, {"precision", "threads"}); });
  keep(tree, "sample", [&](auto name) {
    return training || one_of(name, {"num_inference_steps", "guidance_scale", "guidance_rescale", "guidance_start",
                                     "guidance_end", "timestep_spacing"});
  });
}

// A YAML file, and where it lies; no folder: it is a text and lies nowhere.
struct ConfigFile {
  settings::Value tree;
  std::filesystem::path folder;
};

// Files named in a YAML file are looked for from the working directory, as in the reference, and then
// from the folder of the YAML file, so that a config and what belongs to it can be used from anywhere.
void find_named_files(settings::Value& layer, const std::filesystem::path& folder) {
  Config config;
  config.model = settings::default_model(settings::kMaxLevels);
  for (const settings::Group& group : settings::describe(config)) {
    for (const settings::Field& field : group.fields) {
      const std::string path = group.path + "." + field.name;
      const settings::Value* named = field.is_input_file ? layer.find_path(path) : nullptr;
      if (!named || named->kind != settings::Value::Kind::kScalar || named->text.empty()) continue;
      std::error_code ignored;
      const std::filesystem::path file = named->text, beside = folder / file;
      if (std::filesystem::exists(file, ignored) || !std::filesystem::exists(beside, ignored)) continue;
      layer.at_path(path).text = beside.lexically_normal().string();
    }
  }
}

std::filesystem::path folder_of(const std::filesystem::path& file) {
  return file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
}

// A file for another kind of model than the checkpoint's describes all of it: mixed with the checkpoint's
// config it would be neither.
void drop_other_model(settings::Value& tree, const settings::Value& layer) {
  const settings::Value *ours = tree.find("model"), *theirs = layer.find("model");
  if (!ours || !theirs || settings::lower(ours->text) == settings::lower(theirs->text)) return;
  for (const char* path : {"unet_config", "diffusion_config"}) {
    if (tree.find(path)) tree.set(path, settings::Value());
  }
}

LoadedConfig load_layers(const std::vector<ConfigFile>& files, const LoadRequest& request, settings::Report report) {
  settings::Value tree;
  tree.kind = settings::Value::Kind::kMap;
  if (!request.checkpoint_json.empty()) {
    settings::Value base = settings::read_json(request.checkpoint_json, "config of the checkpoint");
    base = settings::normalize(base, settings::LayerKind::kCheckpoint, report);
    keep_settings_of_checkpoint(base, request.use);
    tree.merge(base);
  }
  bool of_checkpoint = !request.checkpoint_json.empty();
  for (const ConfigFile& file : files) {
    settings::Value layer = settings::normalize(file.tree, settings::LayerKind::kFile, report);
    if (!file.folder.empty()) find_named_files(layer, file.folder);
    if (of_checkpoint) drop_other_model(tree, layer);
    of_checkpoint = of_checkpoint && !layer.find("model");
    tree.merge(layer);
  }
  const settings::Value flags = settings::flag_layer(request.overrides, request.flag_sections, report);
  tree.merge(settings::normalize(flags, settings::LayerKind::kFile, report));
  return settings::build_config(tree, request.use, request.partial, request.goes_on, std::move(report));
}

}  // namespace

LoadedConfig load(const LoadRequest& request) {
  settings::Report report;
  std::vector<ConfigFile> files;
  for (const auto& path : request.yaml_files) {
    std::string text;
    try {
      text = read_text_file(path, settings::kMaxYamlBytes);
    } catch (const DataError& error) {
      throw ConfigError(error.what());
    }
    files.push_back({settings::read_yaml(text, printable(path.string()), &report.warnings), folder_of(path)});
  }
  return load_layers(files, request, std::move(report));
}

LoadedConfig load_yaml_text(std::string_view text, const std::string& name, const Overrides& overrides, ConfigUse use) {
  settings::Report report;
  LoadRequest request;
  request.overrides = overrides;
  request.use = use;
  std::vector<ConfigFile> files;
  files.push_back({settings::read_yaml(text, name, &report.warnings), {}});
  return load_layers(files, request, std::move(report));
}

Config load_config(const std::vector<std::filesystem::path>& yaml_files, const Overrides& overrides, ConfigUse use) {
  LoadRequest request;
  request.yaml_files = yaml_files;
  request.overrides = overrides;
  request.use = use;
  LoadedConfig loaded = load(request);
  for (const std::string& warning : loaded.warnings) log_warning(warning);
  for (const std::string& note : loaded.notes) log_debug(note);
  return std::move(loaded.config);
}

}  // namespace mdm
