// Jobs as the native API shows them: their state, their events, and what a look inside kept.
#include "serving/views.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "mdm/core/digest.h"
#include "mdm/core/error.h"

namespace mdm::serving {
namespace {

// To whole milliseconds.
double rounded(double seconds) { return std::round(seconds * 1000) / 1000; }

Json left_of(const JobView& view) { return view.seconds_left ? Json(rounded(*view.seconds_left)) : Json(nullptr); }

// log(gamma / (1 - gamma)) of a level at a time of the model.
Json log_snr_at(const Pipeline& pipeline, size_t level, int64_t time) {
  const double gamma = pipeline.gammas(level)[static_cast<size_t>(time + 1)];
  const double value = std::log(gamma / (1 - gamma));
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

Json sides_of_levels(const ShelvedModel& model, int64_t side) {
  Json sides = Json::array();
  for (size_t level = 0; level < model.pipeline.levels(); ++level)
    sides.push_back(side / model.pipeline.shrinkage(level));
  return sides;
}

}  // namespace

std::string job_url(const Job& job) { return "/mdm/v1/jobs/" + job.id(); }

Json view_of_job(const Job& job, const JobView& view) {
  const JobOrder& order = job.order();
  Json json;
  json["id"] = job.id();
  json["state"] = state_name(view.state);
  if (view.state == JobState::kQueued) json["position"] = view.position;
  json["model"] = order.model;
  json["settings"] = {{"prompt", order.prompt}, {"negative_prompt", order.negative_prompt}};
  json["settings"].update(values_of(order.sample));
  json["step"] = view.step;
  json["steps"] = view.steps;
  json["seconds"] = rounded(view.seconds);
  json["seconds_left"] = left_of(view);
  json["waited"] = rounded(view.waited);
  json["batched_with"] = view.batched_with;
  json["look_inside"] = order.look_inside;
  json["pictures"] = Json::array();
  for (size_t i = 0; i < view.pictures.size(); ++i) {
    const JobPicture& picture = view.pictures[i];
    const std::string url = concat(job_url(job), "/pictures/", i);
    Json one = {{"seed", picture.seed}, {"width", picture.width}, {"height", picture.height}, {"url", url + ".png"}};
    one["levels"] = Json::array();
    for (size_t level = 0; level < picture.levels.size(); ++level) {
      one["levels"].push_back(concat(url, "/levels/", level, ".png"));
    }
    json["pictures"].push_back(std::move(one));
  }
  if (!view.error_code.empty()) json["error"] = {{"code", view.error_code}, {"message", view.error_message}};
  return json;
}

Json view_of_job(const Job& job) { return view_of_job(job, job.view()); }

std::string text_of_event(const Job& job, const Job::Event& event) {
  const char* name = "state";
  Json data;
  switch (event.kind) {
    case Job::Event::Kind::kState: data = view_of_job(job, event.view); break;
    case Job::Event::Kind::kProgress:
      name = "progress";
      data = {{"step", event.view.step},
              {"steps", event.view.steps},
              {"seconds", rounded(event.view.seconds)},
              {"seconds_left", left_of(event.view)}};
      break;
    case Job::Event::Kind::kPreview:
      name = "preview";
      data = {{"step", event.preview.step}, {"pictures", Json::array()}};
      for (const Bytes& png : event.preview.pictures) {
        data["pictures"].push_back("data:image/png;base64," + to_base64(*png));
      }
      break;
  }
  return concat("id: ", event.number, "\nevent: ", name, "\ndata: ", to_text(data), "\n\n");
}

Json view_of_path(const ShelvedModel& model, const Job& job) {
  const auto frames = job.record()->outline();
  Json json;
  json["levels"] = sides_of_levels(model, job.order().sample.sample_image_size);
  json["guided"] = std::any_of(frames.begin(), frames.end(),
                               [](const auto& frame) { return frame.pictures.count(PathView::kConditional) != 0; });
  json["frames"] = Json::array();
  for (const auto& frame : frames) {
    Json one = {{"step", frame.step}, {"time", frame.time}, {"seconds", frame.seconds}, {"log_snr", Json::array()}};
    for (size_t level = 0; level < model.pipeline.levels(); ++level) {
      one["log_snr"].push_back(log_snr_at(model.pipeline, level, frame.time));
    }
    one["guided"] = frame.pictures.count(PathView::kConditional) != 0;
    json["frames"].push_back(std::move(one));
  }
  return json;
}

Json view_of_attention(const ShelvedModel& model, const Job& job) {
  Json json = view_of_tokens(model.pipeline.tokens(job.order().prompt));
  json["maps"] = Json::array();
  const size_t tokens = json["tokens"].size();
  for (const auto& map : job.record()->attention()) {
    const auto places = static_cast<size_t>(map.height * map.width);
    Json one = {{"layer", map.layer}, {"level", map.level}, {"height", map.height}, {"width", map.width}};
    one["weights"] = Json::array();
    one["peak"] = Json::array();
    // Padding that is attended to comes after the prompt's own tokens and is left out.
    for (size_t token = 0; token < std::min(tokens, static_cast<size_t>(map.tokens)); ++token) {
      const double* weights = map.weights.data() + token * places;
      const double peak = *std::max_element(weights, weights + places);
      std::string bytes(places, '\0');
      for (size_t i = 0; i < places; ++i) {
        bytes[i] = static_cast<char>(static_cast<unsigned char>(peak > 0 ? std::lround(weights[i] / peak * 255) : 0));
      }
      one["weights"].push_back(to_base64(bytes));
      one["peak"].push_back(peak);
    }
    json["maps"].push_back(std::move(one));
  }
  return json;
}

Json view_of_times(const Job& job) {
  Json json = {{"seconds", job.record()->seconds()}, {"parts", Json::array()}};
  for (const BlockTime& time : job.record()->times()) {
    json["parts"].push_back({{"name", time.block}, {"seconds", time.seconds}});
  }
  return json;
}

}  // namespace mdm::serving
