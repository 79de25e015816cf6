// Progress of a long job: a bar on a terminal, a line now and then elsewhere.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

namespace mdm {

struct ProgressOptions {
  std::string label;        ///< what is done, e.g. "denoising"; escaped
  uint64_t total = 0;       ///< units in all; 0 = unknown, no bar then
  uint64_t initial = 0;     ///< units that were done before (a resumed job)
  std::string unit = "it";  ///< name of a unit, as in "12.3 it/s"
  double line_seconds = 5;  ///< least time between two plain lines
  /// Where the output is to appear; the defaults look at stderr.
  enum class Kind { kDetect, kTerminal, kPlain } kind = Kind::kDetect;
  std::function<void(std::string_view)> sink;  ///< takes the output; empty = stderr
  std::function<double()> clock;               ///< seconds that never run backwards; empty = steady_clock
  std::function<int()> width;                  ///< columns of the terminal; empty = asks the terminal of stderr
};

/// Counts units and shows how many are done, the rate (recent time weighs more: half a minute), and the
/// time that has passed and that is left. On a terminal it redraws one line at most ten times a second;
/// elsewhere (pipe, log file, TERM=dumb) it writes a line every `line_seconds`, and one at the end.
/// All functions may be called by several threads; what the sink throws is passed on, but not by the
/// destructor.
class Progress {
 public:
  explicit Progress(ProgressOptions options);
  /// finish().
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(uint64_t units = 1);
  /// Sets the number of units done (may go back).
  void set(uint64_t done);
  /// Text behind the numbers from now on, e.g. "loss 0.123"; escaped.
  void note(std::string_view text);
  /// Writes a line of its own above the bar.
  void line(std::string_view text);
  /// Shows the last state and ends the line; later calls do nothing.
  void finish();

  uint64_t done() const;

 private:
  void update(uint64_t done);
  void show(double now);
  std::string numbers(double now) const;
  std::string bar_line(double now) const;

  mutable std::mutex mutex_;
  ProgressOptions options_;
  std::string note_;
  bool terminal_ = false;
  bool finished_ = false;
  bool wipes_ = false;  // log lines make room for it
  uint64_t done_ = 0;
  uint64_t counted_ = 0;  // units that the rate has seen
  double start_ = 0;
  double counted_at_ = 0;
  double shown_at_ = 0;
  double units_weight_ = 0;  // decayed sums; their quotient is the rate
  double seconds_weight_ = 0;
};

/// "0:07", "12:34", "1:02:03", or "2d 03:04:05" for a number of seconds; "--:--" when it is negative, not
/// finite or above 1000 days.
std::string format_duration(double seconds);

}  // namespace mdm
