// The text of --help, generated from the table of settings.
#include <algorithm>
#include <iterator>
#include <sstream>

#include "config/describe.h"
#include "mdm/config/command_line.h"

namespace mdm {
namespace {

constexpr size_t kWidth = 100;
constexpr size_t kIndent = 6;

// Words broken into lines of kWidth, each behind `indent` spaces.
std::string wrapped(const std::string& text, size_t indent) {
  std::istringstream words(text);
  std::string out, line, word;
  while (words >> word) {
    if (!line.empty() && indent + line.size() + 1 + word.size() > kWidth) {
      out += std::string(indent, ' ') + line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  return line.empty() ? out : out + std::string(indent, ' ') + line + "\n";
}

std::string flag_name(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return "--" + name;
}

std::string entry(const std::string& head, const std::string& doc) {
  return "  " + head + "\n" + wrapped(doc, kIndent);
}

std::string field_entry(const settings::Field& field, const std::string& prefix) {
  const std::string name = prefix.empty() ? flag_name(field.name) : "--" + prefix + "." + field.name;
  std::string doc = field.doc + " (default " + field.json();
  const std::string allowed = field.allowed();
  if (!allowed.empty()) doc += "; " + allowed;
  for (size_t i = 0; i < field.aliases.size(); ++i) doc += (i == 0 ? "; also " : ", ") + flag_name(field.aliases[i]);
  return entry(name + " " + field.type(), doc + ")");
}

// What users set most comes first.
std::vector<settings::Group> in_help_order(std::vector<settings::Group> groups) {
  const auto rank = [](const settings::Group& group) {
    constexpr Section kOrder[] = {Section::kSample, Section::kTrainer, Section::kText, Section::kRuntime,
                                  Section::kDistributed};
    return std::find(std::begin(kOrder), std::end(kOrder), group.section) - std::begin(kOrder);
  };
  std::stable_sort(groups.begin(), groups.end(), [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
  return groups;
}

std::string general_options(const AppInfo& info) {
  std::string out = "General\n";
  for (const AppOption& option : info.options) {
    out += entry("--" + option.name + (option.value.empty() ? "" : " " + option.value), option.doc);
  }
  if (info.sections != Section::kNone) {
    out += entry("--config-path FILE", "YAML file with settings; may be repeated, later files count more");
    out += entry("--set NAME=VALUE", "one setting by its path in the YAML; may be repeated");
    out += entry("--print-config", "print all settings and where each comes from, and end");
  }
  out += entry("--version", "print the version and end");
  return out + entry("-h, --help", "print this text and end");
}

}  // namespace

std::string help_text(const AppInfo& info) {
  std::string out = "Usage: " + info.name + " [flags]" + (info.positionals.empty() ? "" : " " + info.positionals) +
                    "\n" + wrapped(info.summary, 0) + "\n" + general_options(info);
  if (contains(info.sections, Section::kModel)) {
    out += entry(
        "--model " +
            [] {
              std::string kinds;
              for (const auto& kind : settings::model_kinds()) kinds += (kinds.empty() ? "" : "|") + kind;
              return kinds;
            }(),
        "the model's kind; usually said by the config file (also --vision-model)");
  }
  Config config;
  config.model = settings::default_model(2);  // so that what only nested models have is shown
  config.model.levels.front() = settings::default_model(1).levels.front();
  for (const settings::Group& group : in_help_order(settings::describe(config))) {
    if (!contains(info.sections, group.section) || group.path.find("inner_config") != std::string::npos) continue;
    out += "\n" + group.title + "\n";
    if (group.path == "unet_config") {
      out += wrapped(
          "Levels inside: --unet_config.inner_config.NAME, and so on. Nested models have skip_mid_blocks and "
          "skip_cond_emb on by default in all levels but the innermost.",
          2);
    }
    for (const settings::Field& field : group.fields) out += field_entry(field, group.flat ? "" : group.path);
  }
  if (info.sections != Section::kNone) {
    out += "\n" + wrapped(
                      "'-' and '_' are the same in names. Where only one setting has it, the last part of a name will "
                      "do: --num-diffusion-steps. A yes|no setting is switched on by --NAME, off by --no-NAME.",
                      0);
  }
  return info.examples.empty() ? out : out + "\nExamples\n" + info.examples;
}

}  // namespace mdm
