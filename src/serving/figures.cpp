// The server's figures.
#include "serving/figures.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <chrono>
#include <fstream>

#include "mdm/core/version.h"

namespace mdm::serving {
namespace {

const prometheus::Histogram::BucketBoundaries kSeconds = {0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600};
const prometheus::Histogram::BucketBoundaries kPictures = {1, 2, 3, 4, 6, 8, 12, 16, 32};

double resident_bytes() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

template <typename Builder>
auto& family_in(prometheus::Registry& registry, Builder builder, const char* name, const char* help) {
  return builder.Name(name).Help(help).Register(registry);
}

}  // namespace

struct Figures::Impl {
  prometheus::Gauge& gauge(const char* name, const char* help) {
    return family_in(registry, prometheus::BuildGauge(), name, help).Add({});
  }
  prometheus::Counter& counter(const char* name, const char* help) {
    return family_in(registry, prometheus::BuildCounter(), name, help).Add({});
  }
  prometheus::Histogram& histogram(const char* name, const char* help,
                                   const prometheus::Histogram::BucketBoundaries& bounds) {
    return family_in(registry, prometheus::BuildHistogram(), name, help).Add({}, bounds);
  }

  prometheus::Registry registry;
  prometheus::Family<prometheus::Counter>& answers =
      family_in(registry, prometheus::BuildCounter(), "mdm_http_answers_total", "HTTP answers by route and status.");
  prometheus::Family<prometheus::Counter>& ended =
      family_in(registry, prometheus::BuildCounter(), "mdm_jobs_total", "Jobs that ended, by how.");
  prometheus::Family<prometheus::Counter>& refused =
      family_in(registry, prometheus::BuildCounter(), "mdm_jobs_refused_total", "Jobs that were not taken, by why.");
  prometheus::Counter& submitted = counter("mdm_jobs_submitted_total", "Jobs that were taken.");
  prometheus::Counter& pictures = counter("mdm_pictures_total", "Pictures that were finished.");
  prometheus::Counter& steps = counter("mdm_steps_total", "Denoising steps of batches.");
  prometheus::Counter& picture_steps = counter("mdm_picture_steps_total", "Denoising steps times pictures in them.");
  prometheus::Histogram& waited =
      histogram("mdm_job_wait_seconds", "Seconds that finished jobs waited in the queue.", kSeconds);
  prometheus::Histogram& ran = histogram("mdm_job_run_seconds", "Seconds that finished jobs ran.", kSeconds);
  prometheus::Histogram& batch = histogram("mdm_batch_pictures", "Pictures that are denoised together.", kPictures);
  prometheus::Gauge& queued = gauge("mdm_jobs_queued", "Jobs that wait.");
  prometheus::Gauge& running = gauge("mdm_jobs_running", "Jobs that run.");
  prometheus::Gauge& results = gauge("mdm_results", "Ended jobs that are remembered.");
  prometheus::Gauge& results_bytes = gauge("mdm_results_bytes", "Bytes of their pictures and records.");
  prometheus::Gauge& connections = gauge("mdm_http_connections", "Connections that are open.");
  prometheus::Gauge& models = gauge("mdm_models_loaded", "Models whose weights are in memory.");
  prometheus::Gauge& resident = gauge("process_resident_memory_bytes", "Resident memory size in bytes.");
  prometheus::Gauge& start = gauge("process_start_time_seconds", "Start of the process since the epoch in seconds.");
};

Figures::Figures() : impl_(std::make_unique<Impl>()) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  impl_->start.Set(static_cast<double>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count()) / 1000);
  family_in(impl_->registry, prometheus::BuildGauge(), "mdm_info", "The program.").Add({{"version", version()}}).Set(1);
  for (const JobState state : {JobState::kDone, JobState::kFailed, JobState::kCancelled}) {
    impl_->ended.Add({{"state", state_name(state)}});  // there from the start, at 0
  }
}
Figures::~Figures() = default;

void Figures::on_end(const Job& job) {
  const JobView view = job.view();
  impl_->ended.Add({{"state", state_name(view.state)}}).Increment();
  if (view.state != JobState::kDone) return;
  impl_->pictures.Increment(static_cast<double>(view.pictures.size()));
  impl_->waited.Observe(view.waited);
  impl_->ran.Observe(view.seconds);
}

void Figures::on_batch(size_t /*jobs*/, size_t pictures) { impl_->batch.Observe(static_cast<double>(pictures)); }

void Figures::on_step(size_t pictures) {
  impl_->steps.Increment();
  impl_->picture_steps.Increment(static_cast<double>(pictures));
}

void Figures::on_submitted() { impl_->submitted.Increment(); }
void Figures::on_refused(const std::string& why) { impl_->refused.Add({{"reason", why}}).Increment(); }

void Figures::on_answer(const std::string& route, int status) {
  impl_->answers.Add({{"route", route}, {"code", std::to_string(status)}}).Increment();
}

std::string Figures::text(const Now& now) {
  impl_->queued.Set(static_cast<double>(now.queued));
  impl_->running.Set(static_cast<double>(now.running));
  impl_->results.Set(static_cast<double>(now.results));
  impl_->results_bytes.Set(static_cast<double>(now.results_bytes));
  impl_->connections.Set(static_cast<double>(now.connections));
  impl_->models.Set(static_cast<double>(now.models_loaded));
  impl_->resident.Set(resident_bytes());
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

}  // namespace mdm::serving
