// Log lines on stderr (results go to stdout). spdlog stays behind this header.
#pragma once

#include <string>
#include <string_view>

#include "mdm/core/error.h"

namespace mdm {

enum class LogLevel { kTrace, kDebug, kInfo, kWarning, kError, kOff };

/// Lines below `level` are dropped. The start value is kInfo, or what the variable MDM_LOG says.
void set_log_level(LogLevel level);

/// "trace", "debug", "info", "warning" ("warn"), "error" or "off", in any case; ConfigError otherwise.
LogLevel parse_log_level(std::string_view name);

/// Put in front of every line, e.g. "rank 3: ".
void set_log_prefix(std::string prefix);

void log_line(LogLevel level, std::string_view line);

/// While a progress bar stands on the last line of stderr, each log line wipes it first; the bar is drawn again below.
void set_bar_on_stderr(bool stands);

template <typename... Parts>
void log_debug(const Parts&... parts) {
  log_line(LogLevel::kDebug, concat(parts...));
}
template <typename... Parts>
void log_info(const Parts&... parts) {
  log_line(LogLevel::kInfo, concat(parts...));
}
template <typename... Parts>
void log_warning(const Parts&... parts) {
  log_line(LogLevel::kWarning, concat(parts...));
}
template <typename... Parts>
void log_error(const Parts&... parts) {
  log_line(LogLevel::kError, concat(parts...));
}

}  // namespace mdm
