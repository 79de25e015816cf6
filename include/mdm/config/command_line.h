// The command lines of the programs: flags, config files and help, all from the table of settings.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mdm/config/config.h"

namespace mdm {

/// A flag of one program that is no setting of a Config.
struct AppOption {
  std::string name;   ///< without dashes
  std::string value;  ///< what the help calls its value, e.g. "FILE"; empty: a switch without a value
  std::string doc;
};

struct ParsedCommandLine;

/// What a program takes on its command line.
struct AppInfo {
  std::string name;                   ///< "sample"
  std::string summary;                ///< one line
  Section sections = Section::kNone;  ///< settings that are flags of this program
  ConfigUse use = ConfigUse::kInspect;
  std::vector<AppOption> options;
  std::string positionals;  ///< how the help shows the arguments without a flag, e.g. "FILE"; empty: none are taken
  std::string examples;     ///< shown at the end of the help
  /// How the program completes its config, e.g. with what a checkpoint holds; --print-config shows the result.
  /// Empty: by ParsedCommandLine::load().
  std::function<LoadedConfig(const ParsedCommandLine&)> resolve;
};

/// A command line that has been read.
struct ParsedCommandLine {
  enum class Action { kRun, kHelp, kVersion, kPrintConfig };

  Action action = Action::kRun;
  std::vector<std::filesystem::path> config_files;
  Overrides overrides;
  std::vector<std::string> positionals;
  std::map<std::string, std::string> options;  ///< those given, of AppInfo::options; a switch has "true"
  std::vector<std::pair<std::string, std::string>> given_options;  ///< those with a value, in their order
  Section sections = Section::kAll;
  ConfigUse use = ConfigUse::kInspect;

  bool has(const std::string& option) const { return options.count(option) != 0; }
  /// The value of an option, or `otherwise` when it was not given.
  std::string option(const std::string& name, const std::string& otherwise = "") const;
  /// All values of an option that may be given several times.
  std::vector<std::string> values(const std::string& name) const;
  /// The value of an option that must be given; ConfigError.
  std::string required(const std::string& name) const;
  /// The value as a whole number, or as any number; ConfigError unless it is one in [least, most].
  int64_t whole_number(const std::string& name, int64_t otherwise, int64_t least, int64_t most) const;
  double number(const std::string& name, double otherwise, double least, double most) const;

  /// The settings as far as files and flags tell (see LoadRequest::partial). The model and what depends on it
  /// is still open: a program that has read a checkpoint then calls load() with the config in there.
  LoadedConfig preliminary() const;
  /// The settings with a checkpoint's own config (config_from_json's JSON, or "") below files and flags. `goes_on`:
  /// LoadRequest::goes_on.
  /// Throws ConfigError.
  LoadedConfig load(const std::string& checkpoint_json = "", bool goes_on = false) const;
};

/// Reads the arguments that follow the program's name. Flags are --NAME VALUE or --NAME=VALUE, where NAME
/// is any name of a setting (see Overrides) or of an option; --X alone is yes for a yes|no setting, --no-X
/// is no; --set NAME=VALUE is --NAME=VALUE; --config-path FILE (also --reader-config-file,
/// --model-config-file) adds a config file; "--" ends the flags. Throws ConfigError naming the flag and the
/// nearest name. A text setting that holds several (--prompt) gets one more with each flag.
ParsedCommandLine parse_command_line(const std::vector<std::string>& arguments, const AppInfo& info);

/// The text of --help: usage, options, and every setting of the program's sections with type, meaning,
/// default and range.
std::string help_text(const AppInfo& info);

/// Runs a program: reads the command line, answers --help, --version and --print-config on stdout, shows
/// the config's warnings, calls `run`, and turns errors into one line on stderr and an exit code: 0 fine,
/// 1 the run failed, 2 usage or config, 3 unreadable data or checkpoint. What `run` returns is passed on.
int run_app(const std::vector<std::string>& arguments, const AppInfo& info,
            const std::function<int(const ParsedCommandLine&)>& run);

}  // namespace mdm
