// Jobs that are denoised together, and what each of them learns of it.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mdm/pipeline.h"
#include "serving/job.h"

namespace mdm::serving {

// Used by one worker's thread.
class BatchProgress {
 public:
  // The jobs have equal settings but for prompts, seeds and numbers of pictures. `batch`: pictures at a time.
  BatchProgress(std::vector<std::shared_ptr<Job>> jobs, int64_t batch, size_t levels);

  const std::vector<PictureRequest>& requests() const { return requests_; }  // of all jobs, in order
  const SampleConfig& sample() const { return sample_; }
  double seconds() const;  // since begin()

  void begin();
  void on_step(const GenerationStep& step);
  // A finished picture; `encode` makes its file.
  void add(const Picture& picture, const std::function<std::string(const Picture&)>& encode);
  // Ends the jobs that have all their pictures, and calls `ended` for each.
  void finish(const std::function<void(const std::shared_ptr<Job>&)>& ended);

 private:
  using Clock = std::chrono::steady_clock;
  struct Part {
    std::shared_ptr<Job> job;
    size_t first = 0, count = 0;  // in requests()
    std::vector<JobPicture> pictures;
    int64_t steps_done = 0;  // in batches before the present one
  };

  void show(Part& part, const GenerationStep& step, bool preview);

  std::vector<Part> parts_;
  std::vector<PictureRequest> requests_;
  SampleConfig sample_;
  size_t levels_;
  Clock::time_point began_, last_step_, last_preview_;
  std::vector<Bytes> previews_;  // by request: the newest of each
};

}  // namespace mdm::serving
