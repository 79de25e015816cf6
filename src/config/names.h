// Names of settings as users write them: on the command line, at the top level of a file, in old files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/describe.h"

namespace mdm::settings {

/// What a name on the command line stands for.
struct Setting {
  std::vector<std::string> paths;  ///< dotted paths that it sets; several for a name that sections share
  bool is_bool = false;
  bool is_text_list = false;
  bool negated = false;  ///< the name was "no_X" or "noX" of a yes|no setting
  std::string ignored;   ///< why it has no effect; empty: it has one
};

/// Finds a setting by its dotted path, its name at the top level, or the end of its path, with '-' for '_'
/// allowed. Of the levels of a model the outermost that fits is meant. ConfigError, naming the candidates
/// or the nearest name, when none or several fit.
Setting find_setting(std::string_view name, Section sections);
/// The same over a given table; a name in `foreign` is explained as a setting of other programs.
Setting find_setting(std::string_view name, const std::vector<Group>& groups, const std::vector<Group>& foreign = {});

/// Why a key of an old file has no effect, or null when it is not on that list. `group` is the path of the
/// map that holds the key, "" for the top level.
const char* ignored_key(std::string_view group, std::string_view key);

/// Where a name may stand, for the message about one that stands elsewhere; "" when there is no such name.
std::string home_of(std::string_view name, const std::vector<Group>& groups);

std::string with_underscores(std::string_view name);

}  // namespace mdm::settings
