#include "training/step_display.h"

#include <unistd.h>

#include <cstdio>
#include <string>

#include "mdm/core/log.h"

namespace mdm {
namespace {

ProgressOptions progress_options(uint64_t last_step, const TrainingState& state,
                                 std::function<void(std::string_view)> sink) {
  ProgressOptions options;
  options.label = "training";
  options.unit = "step";
  options.total = last_step;
  options.initial = state.step;
  options.line_seconds = 60;  // of a training that takes weeks
  options.sink = std::move(sink);
  return options;
}

}  // namespace

uint64_t resident_bytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  unsigned long long total = 0, resident = 0;
  const int found = std::fscanf(file, "%llu %llu", &total, &resident);
  std::fclose(file);
  return found == 2 ? resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)) : 0;
}

StepDisplay::StepDisplay(const TrainerConfig& config, uint64_t last_step, const TrainingState& state,
                         std::function<void(std::string_view)> sink)
    : progress_(progress_options(last_step, state, std::move(sink))),
      log_freq_(static_cast<uint64_t>(config.log_freq)) {}

void StepDisplay::add(const StepReport& report, const TrainingState& state) {
  constexpr double kFade = 0.95;
  seconds_ = kFade * seconds_ + report.seconds;
  data_seconds_ = kFade * data_seconds_ + report.data_seconds;
  images_ = kFade * images_ + static_cast<double>(report.images);
  char text[200];
  std::snprintf(text, sizeof text, "loss %.4f  lr %.3g  grad %.3g  %.1f img/s  data wait %.0f%%  %.1f GiB", report.loss,
                report.lr, report.gradient_norm, seconds_ > 0 ? images_ / seconds_ : 0,
                seconds_ > 0 ? 100 * data_seconds_ / seconds_ : 0,
                static_cast<double>(resident_bytes()) / static_cast<double>(uint64_t{1} << 30));
  progress_.note(text);
  progress_.set(report.step);
  if (!report.updated) {
    log_warning("step ", report.step, ": loss ", report.loss, ", gradient norm ", report.gradient_norm,
                ": the weights stay as they are (", state.skipped_in_row, " in a row, ", state.skipped, " in all)");
  } else if (report.step % log_freq_ == 0) {
    log_info("step ", report.step, ": average loss ", state.average_loss, ", ", text);
  }
}

}  // namespace mdm
