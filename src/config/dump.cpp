// A config written as YAML or JSON.
#include <algorithm>
#include <map>

#include "config/describe.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using settings::Field;
using settings::Group;

size_t depth_of(const std::string& path) { return static_cast<size_t>(std::count(path.begin(), path.end(), '.')); }

// JSON of one value as YAML: texts that need no quotes lose them.
std::string yaml_of(const std::string& json) {
  if (json.size() < 3 || json.front() != '"') return json;
  const std::string inner = json.substr(1, json.size() - 2);
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-";
  const bool plain = inner.find_first_not_of(kPlain) == std::string::npos &&
                     std::string_view("-:").find(inner.front()) == std::string_view::npos && inner.back() != ':' &&
                     !settings::says_none(inner);
  return plain ? inner : json;
}

class YamlWriter {
 public:
  explicit YamlWriter(const std::map<std::string, std::string>* origins) : origins_(origins) {}

  void line(size_t indent, const std::string& text) { out_ += std::string(2 * indent, ' ') + text + "\n"; }

  void field(size_t indent, const std::string& path, const std::string& name, const std::string& json) {
    std::string text = name + ": " + yaml_of(json);
    if (origins_) {
      const auto found = origins_->find(path);
      text += "  # " + (found == origins_->end() ? "default" : printable(found->second));
    }
    line(indent, text);
  }

  std::string take() { return std::move(out_); }

 private:
  const std::map<std::string, std::string>* origins_;
  std::string out_;
};

// Whether the field's name at the top level gives no other setting a wrong value: other sections may have
// the name too, or take it for an alias (which counts only where their own name is not written).
bool fits_top_level(const Field& field, const std::vector<Group>& groups, Section sections) {
  const std::string json = field.json();
  for (const Group& group : groups) {
    if (!group.flat) continue;
    for (const Field& other : group.fields) {
      const bool alias = std::find(other.aliases.begin(), other.aliases.end(), field.name) != other.aliases.end();
      const bool takes_it = other.name == field.name || (alias && !contains(sections, group.section));
      if (takes_it && other.json() != json) return false;
    }
  }
  return true;
}

}  // namespace

std::string dump_yaml(const Config& config, Section sections, const std::map<std::string, std::string>* origins) {
  Config copy = config;
  YamlWriter writer(origins);
  if (contains(sections, Section::kModel)) {
    writer.field(0, "model", "model", settings::json_quote(settings::model_kinds().at(config.model.levels.size() - 1)));
  }
  const std::vector<Group> groups = settings::describe(copy);
  std::vector<std::string> written;  // names at the top level
  std::vector<std::pair<const Group*, std::vector<const Field*>>> qualified;
  for (const Group& group : groups) {
    if (!contains(sections, group.section)) continue;
    const size_t depth = depth_of(group.path);
    if (!group.flat) {
      writer.line(depth, group.path.substr(group.path.rfind('.') + 1) + ":");
      for (const Field& field : group.fields) {
        writer.field(depth + 1, group.path + "." + field.name, field.name, field.json());
      }
      continue;
    }
    writer.line(0, "# " + group.title);
    std::vector<const Field*> own;
    for (const Field& field : group.fields) {
      if (!fits_top_level(field, groups, sections)) {
        own.push_back(&field);
      } else if (std::find(written.begin(), written.end(), field.name) == written.end()) {
        written.push_back(field.name);
        writer.field(0, group.path + "." + field.name, field.name, field.json());
      }
    }
    if (!own.empty()) qualified.emplace_back(&group, std::move(own));
  }
  for (const auto& [group, fields] : qualified) {
    writer.line(0, group->path + ":");
    for (const Field* field : fields) {
      writer.field(1, group->path + "." + field->name, field->name, field->json());
    }
  }
  return writer.take();
}

std::string config_to_json(const Config& config) {
  Config copy = config;
  std::string out = "{\"model\": " + settings::json_quote(settings::model_kinds().at(config.model.levels.size() - 1));
  std::vector<std::string> open;  // paths of the objects that are not closed yet
  const std::vector<Group> groups = settings::describe(copy);
  for (const Group& group : groups) {
    while (!open.empty() && group.path.compare(0, open.back().size() + 1, open.back() + ".") != 0) {
      out += "}";
      open.pop_back();
    }
    out += ", " + settings::json_quote(group.path.substr(group.path.rfind('.') + 1)) + ": {";
    open.push_back(group.path);
    bool first = true;
    for (const Field& field : group.fields) {
      out += (first ? "" : ", ") + settings::json_quote(field.name) + ": " + field.json();
      first = false;
    }
  }
  return out + std::string(open.size() + 1, '}');
}

}  // namespace mdm
