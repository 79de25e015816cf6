// The progress bar.
#include "mdm/core/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "mdm/core/error.h"
#include "mdm/core/log.h"

namespace mdm {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr double kMemorySeconds = 30;

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int stderr_width() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

bool stderr_is_terminal() {
  const char* term = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) == 1 && (term == nullptr || std::string_view(term) != "dumb");
}

void write_stderr(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stderr); }

std::string formatted(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string format_rate(double rate, const std::string& unit) {
  if (!(rate > 0) || !std::isfinite(rate)) return "-- " + unit + "/s";
  if (rate < 1) return formatted("%.2f s/", 1 / rate) + unit;
  return formatted(rate < 100 ? "%.2f " : "%.0f ", rate) + unit + "/s";
}

size_t columns_of(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

// `text` cut to so many UTF-8 characters.
std::string_view first_columns(std::string_view text, size_t columns) {
  size_t end = 0;
  for (; end < text.size(); ++end) {
    if ((static_cast<unsigned char>(text[end]) & 0xC0) != 0x80 && columns-- == 0) break;
  }
  return text.substr(0, end);
}

}  // namespace

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1000.0 * 86400) return "--:--";
  const auto whole = static_cast<long>(std::llround(seconds));
  const long days = whole / 86400;
  const long hours = whole / 3600 % 24;
  const long minutes = whole / 60 % 60;
  char text[64];
  if (days > 0) {
    std::snprintf(text, sizeof text, "%ldd %02ld:%02ld:%02ld", days, hours, minutes, whole % 60);
  } else if (hours > 0) {
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", hours, minutes, whole % 60);
  } else {
    std::snprintf(text, sizeof text, "%ld:%02ld", minutes, whole % 60);
  }
  return text;
}

Progress::Progress(ProgressOptions options) : options_(std::move(options)) {
  using Kind = ProgressOptions::Kind;
  if (!options_.clock) options_.clock = steady_seconds;
  if (!options_.width) options_.width = stderr_width;
  const bool on_stderr = !options_.sink;
  if (on_stderr) options_.sink = write_stderr;
  options_.label = printable(options_.label);
  terminal_ = options_.kind == Kind::kTerminal || (options_.kind == Kind::kDetect && stderr_is_terminal());
  done_ = counted_ = options_.initial;
  start_ = counted_at_ = options_.clock();
  // The bar appears at once; plain output waits for something to tell.
  shown_at_ = terminal_ ? start_ - 2 * kRedrawSeconds : start_;
  if (terminal_) show(start_);
  wipes_ = terminal_ && on_stderr;
  if (wipes_) set_bar_on_stderr(true);
}

Progress::~Progress() {
  try {
    finish();
  } catch (const std::exception&) {  // a destructor can't pass on what a sink throws
  }
}

void Progress::advance(uint64_t units) {
  const std::lock_guard lock(mutex_);
  update(done_ + units);
}

void Progress::set(uint64_t done) {
  const std::lock_guard lock(mutex_);
  update(done);
}

void Progress::note(std::string_view text) {
  const std::lock_guard lock(mutex_);
  note_ = printable(text);
}

void Progress::line(std::string_view text) {
  const std::lock_guard lock(mutex_);
  const bool bar = terminal_ && !finished_;
  options_.sink(concat(bar ? "\r\x1b[K" : "", printable(text, 4000), "\n"));
  if (bar) show(options_.clock());
}

void Progress::finish() {
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  finished_ = true;
  if (wipes_) set_bar_on_stderr(false);
  show(options_.clock());
  if (terminal_) options_.sink("\n");
}

uint64_t Progress::done() const {
  const std::lock_guard lock(mutex_);
  return done_;
}

void Progress::update(uint64_t done) {
  if (finished_) return;
  done_ = done;
  const double now = options_.clock();
  const bool complete = options_.total > 0 && done_ >= options_.total;
  const double wait = terminal_ ? (complete ? 0 : kRedrawSeconds) : options_.line_seconds;
  if (now - shown_at_ >= wait) show(now);
}

void Progress::show(double now) {
  const double passed = now - counted_at_;
  if (passed > 0) {
    const double kept = std::exp(-passed / kMemorySeconds);
    const double units = done_ >= counted_ ? static_cast<double>(done_ - counted_) : 0;
    units_weight_ = units_weight_ * kept + units;
    seconds_weight_ = seconds_weight_ * kept + passed;
    counted_ = done_;
    counted_at_ = now;
  }
  shown_at_ = now;
  options_.sink(terminal_ ? concat("\r", bar_line(now), "\x1b[K") : concat(options_.label, ": ", numbers(now), "\n"));
}

// "450/1000 12.30 it/s 0:36 passed 0:45 left note"
std::string Progress::numbers(double now) const {
  const double rate = seconds_weight_ > 0 ? units_weight_ / seconds_weight_ : 0;
  std::string text = concat(done_);
  if (options_.total > 0) text += concat("/", options_.total);
  text += concat(" ", format_rate(rate, options_.unit), " ", format_duration(now - start_), " passed");
  if (options_.total > done_) {
    const double left = rate > 0 ? static_cast<double>(options_.total - done_) / rate : -1;
    text += concat(" ", format_duration(left), " left");
  }
  if (!note_.empty()) text += " " + note_;
  return text;
}

// "denoising  45% [=========           ] 450/1000 ..." in one column less than the terminal has, because
// some wrap when the last one is used.
std::string Progress::bar_line(double now) const {
  const auto columns = static_cast<size_t>(std::clamp(options_.width() - 1, 1, 1000));
  std::string text = options_.label;
  const std::string tail = " " + numbers(now);
  if (options_.total > 0) {
    const double part = std::min(1.0, static_cast<double>(done_) / static_cast<double>(options_.total));
    text += formatted(" %3.0f%%", std::floor(part * 100));
    const size_t used = columns_of(text) + columns_of(tail) + 3;
    if (columns >= used + 5) {
      const size_t length = std::min<size_t>(columns - used, 40);
      const auto filled = static_cast<size_t>(part * static_cast<double>(length));
      text += concat(" [", std::string(filled, '='), std::string(length - filled, ' '), "]");
    }
  }
  return std::string(first_columns(text + tail, columns));
}

}  // namespace mdm
