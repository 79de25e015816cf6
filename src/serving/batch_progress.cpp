// Jobs that are denoised together.
#include "serving/batch_progress.h"

#include <algorithm>
#include <utility>

#include "mdm/media/png.h"
#include "mdm/media/resize.h"

namespace mdm::serving {
namespace {

constexpr int kPreviewSide = 256;
constexpr std::chrono::milliseconds kPreviewPause{100};  // previews come at most so often
constexpr int kFastPng = 1;

Bytes preview_of(Image image) {
  if (std::max(image.width, image.height) > kPreviewSide) image = resize(image, kPreviewSide, kPreviewSide);
  return std::make_shared<const std::string>(encode_png(image, {}, kFastPng));
}

}  // namespace

BatchProgress::BatchProgress(std::vector<std::shared_ptr<Job>> jobs, int64_t batch, size_t levels) : levels_(levels) {
  sample_ = jobs.front()->order().sample;
  for (auto& job : jobs) {
    const JobOrder& order = job->order();
    Part part;
    part.first = requests_.size();
    part.count = order.pictures();
    for (size_t i = 0; i < part.count; ++i) {
      requests_.push_back({order.prompt, order.negative_prompt, static_cast<uint64_t>(order.sample.seed) + i});
    }
    part.job = std::move(job);
    parts_.push_back(std::move(part));
  }
  sample_.batch_size = std::min<int64_t>(batch, static_cast<int64_t>(requests_.size()));
  previews_.resize(requests_.size());
}

double BatchProgress::seconds() const { return std::chrono::duration<double>(Clock::now() - began_).count(); }

void BatchProgress::begin() {
  began_ = last_step_ = Clock::now();
  const auto batches = (static_cast<int64_t>(requests_.size()) + sample_.batch_size - 1) / sample_.batch_size;
  for (Part& part : parts_) part.job->start(batches * sample_.num_inference_steps, parts_.size() - 1);
}

void BatchProgress::on_step(const GenerationStep& step) {
  const Clock::time_point now = Clock::now();
  const double took = std::chrono::duration<double>(now - last_step_).count();
  last_step_ = now;
  const bool preview = step.step == step.steps || now - last_preview_ >= kPreviewPause;
  if (preview) last_preview_ = now;
  for (Part& part : parts_) {
    if (part.job->ended()) continue;
    if (part.job->record() && step.first == part.first) part.job->record()->add(step, 0, levels_, took);
    show(part, step, preview);
  }
  // What a look inside takes is not the next step's time.
  last_step_ = Clock::now();
}

void BatchProgress::show(Part& part, const GenerationStep& step, bool preview) {
  const bool here = part.first < step.first + step.count && step.first < part.first + part.count;
  std::optional<JobPreview> pictures;
  if (preview && here && part.job->order().preview) {
    pictures = JobPreview{part.steps_done + step.step, {}};
    for (size_t i = part.first; i < part.first + part.count; ++i) {
      if (i >= step.first && i < step.first + step.count) previews_[i] = preview_of(step.predicted(i - step.first));
      if (previews_[i]) pictures->pictures.push_back(previews_[i]);
    }
  }
  part.job->set_progress(part.steps_done + step.step, std::move(pictures));
  if (step.step == step.steps) part.steps_done += step.steps;
}

void BatchProgress::add(const Picture& picture, const std::function<std::string(const Picture&)>& encode) {
  for (Part& part : parts_) {
    if (picture.index < part.first || picture.index >= part.first + part.count || part.job->ended()) continue;
    JobPicture made;
    made.seed = picture.request.seed;
    made.width = picture.image.width;
    made.height = picture.image.height;
    made.png = std::make_shared<const std::string>(encode(picture));
    if (!picture.inner.empty()) made.levels.push_back(made.png);
    for (const Image& level : picture.inner) {
      made.levels.push_back(std::make_shared<const std::string>(encode_png(level)));
    }
    part.pictures.push_back(std::move(made));
  }
}

void BatchProgress::finish(const std::function<void(const std::shared_ptr<Job>&)>& ended) {
  for (Part& part : parts_) {
    if (part.pictures.size() == part.count && part.job->finish(std::move(part.pictures))) ended(part.job);
  }
}

}  // namespace mdm::serving
