// Names of settings: look-up by path, by top-level name and by the end of a path.
#include "config/names.h"

#include <algorithm>

#include "mdm/core/error.h"

namespace mdm::settings {
namespace {

// Keys of the reference's files that no program reads, or that have no meaning here. They are accepted
// without effect so that such files load unchanged.
struct IgnoredKey {
  const char* group;
  const char* key;
  const char* why;
};
constexpr IgnoredKey kIgnored[] = {
    {"", "name", "a label of the experiment"},
    {"", "dataset_config", "the data set is named by file_list"},
    {"", "reader_config_file", "the reader's settings stand under reader_config"},
    {"", "model_config_file", "the model's settings stand under unet_config"},
    {"", "config_path", "files are named on the command line"},
    {"", "avg_lm_steps", "nothing reads it"},
    {"", "prediction_length", "nothing reads it"},
    {"", "use_lm_mask", "masked_cross_attention decides"},
    {"", "random_low_noise", "nothing reads it"},
    {"", "metrics", "metrics are chosen where they are computed"},
    {"", "num_eval_batches", "a setting of the evaluator"},
    {"", "min_examples", "num_samples says how many pictures are made"},
    {"", "test_file_list", "prompts_file names the prompts"},
    {"", "port", "a setting of the demo"},
    {"diffusion_config.sampler_config", "predict_variances", "variances are not predicted"},
};

// Flags that stand for a setting under another name than in files.
struct FlagName {
  const char* name;
  const char* path;
};
constexpr FlagName kFlagNames[] = {
    {"model", "model"}, {"vision_model", "model"}, {"fp16", "fp16"}, {"test_file_list", "sample.prompts_file"}};

bool ends_with_path(std::string_view path, std::string_view end) {
  if (path.size() < end.size() || path.substr(path.size() - end.size()) != end) return false;
  return path.size() == end.size() || path[path.size() - end.size() - 1] == '.';
}

std::string without_inner(std::string path) {
  constexpr std::string_view kInnerPart = "inner_config.";
  for (size_t at = path.find(kInnerPart); at != std::string::npos; at = path.find(kInnerPart))
    path.erase(at, kInnerPart.size());
  return path;
}

struct Found {
  std::vector<std::string> paths;
  const Field* field = nullptr;
};

Found find_exact(const std::string& name, const std::vector<Group>& groups) {
  Found found;
  for (const Group& group : groups) {
    for (const Field& field : group.fields) {
      const bool alias = std::find(field.aliases.begin(), field.aliases.end(), name) != field.aliases.end();
      if (name == group.path + "." + field.name || (group.flat && (name == field.name || alias))) {
        found.paths.push_back(group.path + "." + field.name);
        found.field = &field;
      }
    }
  }
  return found;
}

// The fields whose path ends so; of those that differ only in the level, the outermost.
Found find_by_end(const std::string& name, const std::vector<Group>& groups) {
  Found found;
  std::vector<std::string> seen;
  for (const Group& group : groups) {
    for (const Field& field : group.fields) {
      const std::string path = group.path + "." + field.name;
      if (!ends_with_path(path, name)) continue;
      const std::string place = without_inner(path);
      if (std::find(seen.begin(), seen.end(), place) != seen.end()) continue;
      seen.push_back(place);
      found.paths.push_back(path);
      found.field = &field;
    }
  }
  if (found.paths.size() > 1) {
    std::string all;
    for (const std::string& path : found.paths) all += (all.empty() ? "" : ", ") + path;
    fail<ConfigError>("\"", printable(name), "\" may mean ", all, "; write the whole path");
  }
  return found;
}

Found find_name(const std::string& name, const std::vector<Group>& groups) {
  Found found = find_exact(name, groups);
  return found.field ? found : find_by_end(name, groups);
}

// "no_X", "noX" or "a.b.noX" of a yes|no setting.
Found find_negated(const std::string& name, const std::vector<Group>& groups) {
  const size_t leaf = name.rfind('.') + 1;  // npos + 1 is 0
  for (const size_t at : {size_t{0}, leaf}) {
    for (const std::string_view prefix : {"no_", "no"}) {
      if (name.compare(at, prefix.size(), prefix) != 0) continue;
      Found found = find_name(name.substr(0, at) + name.substr(at + prefix.size()), groups);
      if (found.field && found.field->is_bool()) return found;
    }
  }
  return {};
}

// What a section is about, to tell a user why a program lacks a setting.
const char* topic_of(Section section) {
  switch (section) {
    case Section::kModel: return "the model";
    case Section::kDiffusion: return "the diffusion process";
    case Section::kReader: return "reading data";
    case Section::kText: return "the text";
    case Section::kTrainer: return "training";
    case Section::kSample: return "sampling";
    default: return "the machine";
  }
}

// Of the settings that only other programs have.
void reject_foreign(const std::string& name, const std::vector<Group>& foreign) {
  std::string homes;
  for (const Group& group : foreign) {
    const std::vector<Group> alone = {group};
    for (const std::string_view prefix : {"", "no_", "no"}) {
      if (name.compare(0, prefix.size(), prefix) != 0) continue;
      const Found found = find_exact(name.substr(prefix.size()), alone);
      if (!found.field || (!prefix.empty() && !found.field->is_bool())) continue;
      homes += concat(homes.empty() ? "" : " and ", topic_of(group.section), " (", found.paths.front(), ")");
      break;
    }
  }
  if (homes.empty()) return;
  fail<ConfigError>("\"", printable(name), "\" is no setting of this program; it belongs to ", homes);
}

[[noreturn]] void unknown(const std::string& name, const std::vector<Group>& groups) {
  std::vector<std::string> names;
  for (const Group& group : groups) {
    if (group.path.find("inner_config") != std::string::npos) continue;
    for (const Field& field : group.fields) {
      names.push_back(field.name);
      names.push_back(group.path + "." + field.name);
      names.insert(names.end(), field.aliases.begin(), field.aliases.end());
    }
  }
  const std::string_view near = nearest_name(name, names);
  fail<ConfigError>("\"", printable(name), "\" is no setting", near.empty() ? "" : "; did you mean ", near,
                    near.empty() ? "" : "?");
}

}  // namespace

std::string with_underscores(std::string_view name) {
  std::string out(name);
  std::replace(out.begin(), out.end(), '-', '_');
  return out;
}

const char* ignored_key(std::string_view group, std::string_view key) {
  for (const IgnoredKey& entry : kIgnored) {
    if (group == entry.group && key == entry.key) return entry.why;
  }
  return nullptr;
}

std::string home_of(std::string_view name, const std::vector<Group>& groups) {
  for (const Group& group : groups) {
    for (const Field& field : group.fields) {
      if (field.name == name) return group.path;
    }
  }
  return "";
}

Setting find_setting(std::string_view user_name, const std::vector<Group>& groups, const std::vector<Group>& foreign) {
  const std::string name = with_underscores(user_name);
  Setting setting;
  for (const FlagName& special : kFlagNames) {
    const bool path_known = std::string_view(special.path).find('.') == std::string_view::npos ||
                            find_exact(special.path, groups).field != nullptr;
    if (name == special.name && path_known) {
      setting.paths = {special.path};
      return setting;
    }
  }
  Found found = find_name(name, groups);
  if (!found.field) {
    found = find_negated(name, groups);
    setting.negated = found.field != nullptr;
  }
  if (!found.field) {
    if (const char* why = ignored_key("", name)) {
      setting.ignored = why;
      return setting;
    }
    for (const Group& group : groups) {
      if (ends_with_path(group.path, name)) {
        fail<ConfigError>("\"", printable(name), "\" is a group of settings; set them one by one, e.g. ", group.path,
                          ".", group.fields.front().name);
      }
    }
    reject_foreign(name, foreign);
    unknown(name, groups);
  }
  setting.paths = found.paths;
  setting.is_bool = found.field->is_bool();
  setting.is_text_list = found.field->is_text_list();
  return setting;
}

Setting find_setting(std::string_view name, Section sections) {
  Config config;
  config.model = default_model(kMaxLevels);
  std::vector<Group> groups, foreign;
  for (Group& group : describe(config)) {
    (contains(sections, group.section) ? groups : foreign).push_back(std::move(group));
  }
  return find_setting(name, groups, foreign);
}

}  // namespace mdm::settings
