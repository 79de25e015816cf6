// Command lines: arguments -> config files and overrides; errors -> exit codes.
#include "mdm/config/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <new>

#include "config/names.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/core/version.h"

namespace mdm {
namespace {

constexpr std::string_view kConfigFlags[] = {"config_path", "config", "reader_config_file", "model_config_file"};

// Reads a command line with CLI11. What is a flag is decided by the table of settings, where one setting has
// many names (its path, the end of it, '-' for '_', no-X), so each flag is declared as the line spells it;
// messages and --print-config then name it as the user did.
class CommandLineReader {
 public:
  explicit CommandLineReader(const AppInfo& info) : info_(info), app_(info.summary, info.name) {
    line_.sections = info.sections;
    line_.use = info.use;
    app_.allow_extras();  // see take_positionals
    app_.allow_windows_style_options(false);
    app_.set_help_flag("-h,--help");
    app_.set_version_flag("--version", version());
    declared_ = {{"help", Takes::kNothing}, {"version", Takes::kNothing}};
  }

  ParsedCommandLine run(const std::vector<std::string>& arguments) {
    std::vector<std::string> list = declared_and_split(arguments);
    const std::string last = list.empty() ? "" : list.back();
    std::reverse(list.begin(), list.end());  // CLI11 takes them from the back
    try {
      app_.parse(std::move(list));
      take_positionals();
    } catch (const CLI::CallForHelp&) {
      line_.action = ParsedCommandLine::Action::kHelp;
    } catch (const CLI::CallForVersion&) {
      line_.action = ParsedCommandLine::Action::kVersion;
    } catch (const CLI::ArgumentMismatch&) {  // a flag takes whatever follows it, so only the last can lack a value
      fail<ConfigError>("flag ", printable(last), " needs a value");
    } catch (const CLI::Error& error) {
      fail<ConfigError>(printable(error.what()), "; see --help");
    }
    return std::move(line_);
  }

 private:
  enum class Takes { kNothing, kYesNoOrNothing, kValue };

  // Declares every flag of the line and gives each value an argument of its own, for two things that CLI11 2.1
  // can't: it reads "--X=" as an X without a value, and an optional value of it is whatever comes next. So
  // "--X=VALUE" is split, and a switch gets the next argument if that is a yes or no, else yes. It would also take
  // "-hat" for "-h -a -t".
  std::vector<std::string> declared_and_split(const std::vector<std::string>& arguments) {
    std::vector<std::string> out;
    for (size_t at = 0; at < arguments.size();) {
      const std::string& argument = arguments[at++];
      if (argument == "--") {
        out.insert(out.end(), arguments.begin() + static_cast<std::ptrdiff_t>(at) - 1, arguments.end());
        break;
      }
      if (argument.compare(0, 2, "--") != 0) {
        if (argument.size() > 1 && argument.front() == '-' && argument != "-h") {
          fail<ConfigError>("\"", printable(argument), "\": flags start with two dashes; see --help");
        }
        out.push_back(argument);
        continue;
      }
      const size_t equals = argument.find('=');
      const std::string flag = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
      if (flag.empty()) fail<ConfigError>("\"", printable(argument), "\" is no flag; see --help");
      const Takes takes = declare(flag);
      out.push_back("--" + flag);
      if (equals != std::string::npos) {
        if (takes == Takes::kNothing) fail<ConfigError>("flag --", printable(flag), " takes no value");
        out.push_back(argument.substr(equals + 1));
      } else if (takes == Takes::kYesNoOrNothing) {
        const bool follows = at < arguments.size() && settings::parse_bool(arguments[at]);
        out.push_back(follows ? arguments[at++] : "true");
      } else if (takes == Takes::kValue && at < arguments.size()) {
        out.push_back(arguments[at++]);
      }
    }
    return out;
  }

  Takes declare(const std::string& flag) {
    auto known = declared_.find(flag);
    if (known == declared_.end()) known = declared_.emplace(flag, add(flag)).first;
    return known->second;
  }

  Takes add(const std::string& flag) {
    const std::string name = settings::with_underscores(flag);
    if (name == "print_config") {
      app_.add_flag_callback("--" + flag, [this] { line_.action = ParsedCommandLine::Action::kPrintConfig; });
      return Takes::kNothing;
    }
    if (std::find(std::begin(kConfigFlags), std::end(kConfigFlags), name) != std::end(kConfigFlags)) {
      return add_valued(flag, [this](const std::string& file) { line_.config_files.emplace_back(file); });
    }
    if (name == "set") return add_valued(flag, [this](const std::string& setting) { take_set(setting); });
    for (const AppOption& option : info_.options) {
      if (settings::with_underscores(option.name) != name) continue;
      if (!option.value.empty()) {
        return add_valued(flag, [this, &option](const std::string& value) {
          line_.options[option.name] = value;
          line_.given_options.emplace_back(option.name, value);
        });
      }
      app_.add_flag_callback("--" + flag, [this, &option] { line_.options[option.name] = "true"; });
      return Takes::kNothing;
    }
    const settings::Setting setting = find(flag);
    add_valued(flag, [this, flag](const std::string& value) { line_.overrides.emplace_back(flag, value); });
    return setting.is_bool ? Takes::kYesNoOrNothing : Takes::kValue;
  }

  // `take` is called for each occurrence, when it is reached: overrides keep the order of the command line.
  Takes add_valued(const std::string& flag, const std::function<void(const std::string&)>& take) {
    const CLI::callback_t callback = [take](const CLI::results_t& values) {
      take(values.front());
      return true;
    };
    app_.add_option("--" + flag, callback)->trigger_on_parse();
    return Takes::kValue;
  }

  void take_set(const std::string& setting) {
    const size_t split = setting.find('=');
    if (split == std::string::npos) fail<ConfigError>("--set ", printable(setting), ": must be NAME=VALUE");
    find(setting.substr(0, split));
    line_.overrides.emplace_back(setting.substr(0, split), setting.substr(split + 1));
  }

  // What CLI11 left over: the arguments without a flag, and the "--" that ended the flags.
  void take_positionals() {
    line_.positionals = app_.remaining();
    const auto mark = std::find(line_.positionals.begin(), line_.positionals.end(), "--");
    if (mark != line_.positionals.end()) line_.positionals.erase(mark);
    if (info_.positionals.empty() && !line_.positionals.empty()) {
      fail<ConfigError>("\"", printable(line_.positionals.front()), "\": ", info_.name,
                        " takes flags only; see --help");
    }
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

  const AppInfo& info_;
  CLI::App app_;
  std::map<std::string, Takes> declared_;
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
  const LoadedConfig loaded = info.resolve ? info.resolve(line) : line.load();
  for (const std::string& warning : loaded.warnings) log_warning(warning);
  if (loaded.partial) {
    std::cout
        << "# No checkpoint is named: what has its default of model, diffusion, reader and text may come from it.\n";
  }
  std::cout << dump_yaml(loaded.config, info.sections, &loaded.origins);
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

std::vector<std::string> ParsedCommandLine::values(const std::string& name) const {
  std::vector<std::string> all;
  for (const auto& [option, value] : given_options) {
    if (option == name) all.push_back(value);
  }
  return all;
}

std::string ParsedCommandLine::required(const std::string& name) const {
  if (!has(name)) fail<ConfigError>(positionals.empty() ? "" : printable(positionals[0]) + " needs ", "--", name);
  return option(name);
}

int64_t ParsedCommandLine::whole_number(const std::string& name, int64_t otherwise, int64_t least, int64_t most) const {
  if (!has(name)) return otherwise;
  const std::string text = option(name);
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || errno != 0 || value < least || value > most) {
    fail<ConfigError>("--", name, ": '", printable(text), "' is not a whole number in ", least, "..", most);
  }
  return value;
}

double ParsedCommandLine::number(const std::string& name, double otherwise, double least, double most) const {
  if (!has(name)) return otherwise;
  const std::string text = option(name);
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= least && value <= most)) {
    fail<ConfigError>("--", name, ": '", printable(text), "' is not a number in ", least, "..", most);
  }
  return value;
}

LoadedConfig ParsedCommandLine::preliminary() const {
  LoadRequest request = request_of(*this);
  request.partial = true;
  return mdm::load(request);
}

LoadedConfig ParsedCommandLine::load(const std::string& checkpoint_json, bool goes_on) const {
  LoadRequest request = request_of(*this);
  request.checkpoint_json = checkpoint_json;
  request.goes_on = goes_on;
  return mdm::load(request);
}

ParsedCommandLine parse_command_line(const std::vector<std::string>& arguments, const AppInfo& info) {
  return CommandLineReader(info).run(arguments);
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
