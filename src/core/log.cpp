#include "mdm/core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace mdm {
namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace: return spdlog::level::trace;
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
    case LogLevel::kOff: return spdlog::level::off;
  }
  return spdlog::level::info;
}

struct Logger {
  Logger() {
    const char* no_color = std::getenv("NO_COLOR");
    const auto mode =
        no_color != nullptr && *no_color != '\0' ? spdlog::color_mode::never : spdlog::color_mode::automatic;
    sink = std::make_shared<spdlog::logger>("mdm", std::make_shared<spdlog::sinks::stderr_color_sink_mt>(mode));
    sink->set_pattern("%Y-%m-%d %H:%M:%S %^%l%$ %v");
    sink->flush_on(spdlog::level::warn);
    if (const char* wanted = std::getenv("MDM_LOG")) {
      try {
        sink->set_level(to_spdlog(parse_log_level(wanted)));
      } catch (const ConfigError& error) {
        sink->warn("MDM_LOG: {}", error.what());
      }
    }
  }
  std::shared_ptr<spdlog::logger> sink;
  std::mutex mutex;
  std::string prefix;
  std::atomic<bool> bar_on_stderr{false};
};

Logger& logger() {
  static Logger instance;
  return instance;
}

}  // namespace

void set_log_level(LogLevel level) { logger().sink->set_level(to_spdlog(level)); }

LogLevel parse_log_level(std::string_view name) {
  std::string lower;
  for (const char c : name) lower += (c >= 'A' && c <= 'Z') ? static_cast<char>(c - 'A' + 'a') : c;
  if (lower == "trace") return LogLevel::kTrace;
  if (lower == "debug") return LogLevel::kDebug;
  if (lower == "info") return LogLevel::kInfo;
  if (lower == "warning" || lower == "warn") return LogLevel::kWarning;
  if (lower == "error" || lower == "critical") return LogLevel::kError;
  if (lower == "off") return LogLevel::kOff;
  fail<ConfigError>("log level '", printable(name), "' is not one of trace, debug, info, warning, error, off");
}

void set_log_prefix(std::string prefix) {
  const std::lock_guard<std::mutex> lock(logger().mutex);
  logger().prefix = std::move(prefix);
}

void set_bar_on_stderr(bool stands) { logger().bar_on_stderr = stands; }

void log_line(LogLevel level, std::string_view line) {
  Logger& target = logger();
  if (!target.sink->should_log(to_spdlog(level))) return;
  std::string text;
  {
    const std::lock_guard<std::mutex> lock(target.mutex);
    text = target.prefix;
  }
  text += line;
  if (target.bar_on_stderr) std::fputs("\r\x1b[K", stderr);
  target.sink->log(to_spdlog(level), "{}", text);
}

}  // namespace mdm
