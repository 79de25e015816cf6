// Command lines: arguments -> config files and overrides; errors -> exit codes.
#include "mdm/config/command_line.h"

#include <algorithm>
#include <iostream>
#include <new>

#include "config/names.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/core/version.h"

namespace mdm {
namespace {

constexpr std::string_view kConfigFlags[] = {"config_path", "config", "reader_config_file", "model_config_file"};

class ArgumentReader {
 public:
  ArgumentReader(const std::vector<std::string>& arguments, const AppInfo& info) : arguments_(arguments), info_(info) {
    line_.sections = info.sections;
    line_.use = info.use;
  }

  ParsedCommandLine run() {
    while (at_ < arguments_.size()) {
      const std::string& argument = arguments_[at_++];
      if (argument == "--") {
        for (; at_ < arguments_.size(); ++at_) take_positional(arguments_[at_]);
      } else if (argument.compare(0, 2, "--") == 0) {
        take_flag(argument.substr(2));
      } else if (argument == "-h") {
        line_.action = ParsedCommandLine::Action::kHelp;
      } else if (argument.size() > 1 && argument.front() == '-') {
        fail<ConfigError>("\"", printable(argument), "\": flags start with two dashes; see --help");
      } else {
        take_positional(argument);
      }
    }
    return std::move(line_);
  }

 private:
  void take_positional(const std::string& argument) {
    if (info_.positionals.empty()) {
      fail<ConfigError>("\"", printable(argument), "\": ", info_.name, " takes flags only; see --help");
    }
    line_.positionals.push_back(argument);
  }

  std::string value_of(const std::string& flag, const std::optional<std::string>& inlined) {
    if (inlined) return *inlined;
    if (at_ >= arguments_.size()) fail<ConfigError>("flag --", printable(flag), " needs a value");
    return arguments_[at_++];
  }

  // The value of a yes|no flag: what follows '=', the next argument if it is a yes or no, else yes.
  std::string switch_value(const std::optional<std::string>& inlined) {
    if (inlined) return *inlined;
    if (at_ < arguments_.size() && settings::parse_bool(arguments_[at_])) return arguments_[at_++];
    return "true";
  }

  void take_flag(const std::string& text) {
    const size_t equals = text.find('=');
    const std::string flag = text.substr(0, equals);
    std::optional<std::string> value;
    if (equals != std::string::npos) value = text.substr(equals + 1);
    if (flag.empty()) fail<ConfigError>("\"--", printable(text), "\" is no flag; see --help");
    const std::string name = settings::with_underscores(flag);
    if (take_action(name)) return;
    if (std::find(std::begin(kConfigFlags), std::end(kConfigFlags), name) != std::end(kConfigFlags)) {
      line_.config_files.emplace_back(value_of(flag, value));
      return;
    }
    if (name == "set") {
      const std::string setting = value_of(flag, value);
      const size_t split = setting.find('=');
      if (split == std::string::npos) fail<ConfigError>("--set ", printable(setting), ": must be NAME=VALUE");
      find(setting.substr(0, split));
      line_.overrides.emplace_back(setting.substr(0, split), setting.substr(split + 1));
      return;
    }
    if (take_option(name, flag, value)) return;
    const settings::Setting setting = find(flag);
    line_.overrides.emplace_back(flag, setting.is_bool ? switch_value(value) : value_of(flag, value));
  }

  bool take_action(const std::string& name) {
    using Action = ParsedCommandLine::Action;
    if (name == "help") {
      line_.action = Action::kHelp;
    } else if (name == "version") {
      line_.action = Action::kVersion;
    } else if (name == "print_config") {
      if (line_.action == Action::kRun) line_.action = Action::kPrintConfig;
    } else {
      return false;
    }
    return true;
  }

  bool take_option(const std::string& name, const std::string& flag, const std::optional<std::string>& value) {
    for (const AppOption& option : info_.options) {
      if (settings::with_underscores(option.name) != name) continue;
      if (option.value.empty()) {
        if (value) fail<ConfigError>("flag --", printable(flag), " takes no value");
        line_.options[option.name] = "true";
      } else {
        line_.options[option.name] = value_of(flag, value);
      }
      return true;
    }
    return false;
  }

  settings::Setting find(const std::string& flag) {
    try {
      return settings::find_setting(flag, info_.sections);
    } catch (const ConfigError& error) {
      std::vector<std::string> names = {"config_path", "set", "help", "version", "print_config"};
      for (const AppOption& option : info_.options) names.push_back(option.name);
      const std::string_view near = nearest_name(flag, names);
      const std::string what = error.what();
      const bool has_advice = what.find("; ") != std::string::npos;
      fail<ConfigError>("flag --", printable(flag), ": ", what, near.empty() || has_advice ? "" : "; did you mean --",
                        has_advice ? std::string_view() : near, near.empty() || has_advice ? "" : "?");
    }
  }

  const std::vector<std::string>& arguments_;
  const AppInfo& info_;
  size_t at_ = 0;
  ParsedCommandLine line_;
};

LoadRequest request_of(const ParsedCommandLine& line) {
  LoadRequest request;
  request.yaml_files = line.config_files;
  request.overrides = line.overrides;
  request.use = line.use;
  request.flag_sections = line.sections;
  return request;
}

void print_config(const ParsedCommandLine& line, const AppInfo& info) {
  const LoadedConfig loaded = line.preliminary();
  for (const std::string& warning : loaded.warnings) log_warning(warning);
  Section sections = info.sections;
  if (line.config_files.empty() && contains(sections, Section::kModel)) {
    std::cout << "# Without a config file, model, diffusion and reader come from the checkpoint.\n";
  }
  std::cout << dump_yaml(loaded.config, sections, &loaded.origins);
}

int run_action(const std::vector<std::string>& arguments, const AppInfo& info,
               const std::function<int(const ParsedCommandLine&)>& run) {
  const ParsedCommandLine line = parse_command_line(arguments, info);
  switch (line.action) {
    case ParsedCommandLine::Action::kHelp: std::cout << help_text(info); break;
    case ParsedCommandLine::Action::kVersion: std::cout << info.name << " " << version() << "\n"; break;
    case ParsedCommandLine::Action::kPrintConfig: print_config(line, info); break;
    case ParsedCommandLine::Action::kRun: return run(line);
  }
  std::cout.flush();
  if (!std::cout) fail<Error>("standard output can't be written");
  return 0;
}

int report(const char* what, int code) {
  std::cerr << "error: " << what << std::endl;
  return code;
}

}  // namespace

std::string ParsedCommandLine::option(const std::string& name, const std::string& otherwise) const {
  const auto found = options.find(name);
  return found == options.end() ? otherwise : found->second;
}

LoadedConfig ParsedCommandLine::preliminary() const {
  LoadRequest request = request_of(*this);
  request.partial = config_files.empty();
  return mdm::load(request);
}

LoadedConfig ParsedCommandLine::load(const std::string& checkpoint_json) const {
  LoadRequest request = request_of(*this);
  request.checkpoint_json = checkpoint_json;
  return mdm::load(request);
}

ParsedCommandLine parse_command_line(const std::vector<std::string>& arguments, const AppInfo& info) {
  return ArgumentReader(arguments, info).run();
}

int run_app(const std::vector<std::string>& arguments, const AppInfo& info,
            const std::function<int(const ParsedCommandLine&)>& run) {
  try {
    return run_action(arguments, info, run);
  } catch (const ConfigError& error) {
    return report(error.what(), 2);
  } catch (const DataError& error) {
    return report(error.what(), 3);
  } catch (const CheckpointError& error) {
    return report(error.what(), 3);
  } catch (const std::bad_alloc&) {
    return report("out of memory", 1);
  } catch (const std::exception& error) {
    return report(error.what(), 1);
  }
}

}  // namespace mdm
