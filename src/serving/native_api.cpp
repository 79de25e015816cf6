// The native API: /mdm/v1, with /healthz and /metrics.
#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/media/png.h"
#include "serving/json.h"
#include "serving/service.h"
#include "serving/views.h"

namespace mdm::serving {
namespace {

using Places = std::vector<std::string>;
using Call = std::shared_ptr<Exchange>;

// A job's events for one reader.
class JobEvents final : public EventStream {
 public:
  JobEvents(std::shared_ptr<Job> job, uint64_t seen) : job_(std::move(job)), seen_(seen) {}
  ~JobEvents() override { on_ready(nullptr); }

  Part next() override {
    Part part;
    const bool ended = job_->ended();  // looked at first: an end that comes now is told next time
    for (const Job::Event& event : job_->events_after(seen_)) {
      part.text += text_of_event(*job_, event);
      seen_ = event.number;
      part.last = part.last || (event.kind == Job::Event::Kind::kState && is_final(event.view.state));
    }
    // Who comes back to a job that ended while it was away, and has seen that, waits for nothing.
    if (part.text.empty() && ended) part.last = true;
    return part;
  }

  void on_ready(std::function<void()> call) override {
    if (listener_ != 0) job_->forget(listener_);
    listener_ = call ? job_->listen(std::move(call)) : 0;
  }

 private:
  const std::shared_ptr<Job> job_;
  uint64_t seen_;
  uint64_t listener_ = 0;
};

std::optional<uint64_t> number_of(const std::string& text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

size_t number_in(const std::string& place) {
  const auto number = number_of(place);
  if (!number) throw HttpError{404, "not_found", "there is nothing here"};
  return *number;
}

uint64_t last_event_of(const HttpRequest& request) { return number_of(request.header("last-event-id")).value_or(0); }

HttpResponse png_response(std::string png) {
  HttpResponse response;
  response.type = "image/png";
  response.body = std::move(png);
  response.headers.emplace_back("Cache-Control", "private, max-age=3600, immutable");
  return response;
}

std::string text_of(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return "";
  if (!found->is_string()) throw HttpError{400, "invalid_setting", concat(name, ": must be a text"), name};
  return found->get<std::string>();
}

const JobPicture& picture_of(const JobView& view, const std::string& index) {
  if (view.state != JobState::kDone) {
    throw HttpError{409, "not_ready", concat("the job is ", state_name(view.state), " and has no pictures")};
  }
  const size_t at = number_in(index);
  if (at >= view.pictures.size()) throw HttpError{404, "not_found", "there is no such picture"};
  return view.pictures[at];
}

std::shared_ptr<Job> looked_into(const Service& service, const std::string& id) {
  auto job = service.job(id);
  if (!job->record()) throw HttpError{409, "not_looked_into", "the job was not asked to look inside"};
  return job;
}

PathView path_view(const std::string& name) {
  if (name == "noisy") return PathView::kNoisy;
  if (name == "predicted") return PathView::kPredicted;
  if (name == "conditional") return PathView::kConditional;
  if (name == "unconditional") return PathView::kUnconditional;
  throw HttpError{404, "not_found", "there is nothing here"};
}

void add_session_routes(Router& router, Service& service) {
  const std::string path = "/mdm/v1/session";
  router.add("GET", path, [&service](const Call& call, const Places&) {
    const Access& access = service.access();
    call->answer(
        json_response({{"key_needed", access.key_needed()}, {"signed_in", access.signed_in(call->request())}}));
  });
  router.add("POST", path, [&service](const Call& call, const Places&) {
    const std::string key = text_of(read_object(call->request().body), "key");
    if (!service.access().key_needed()) {
      return call->answer(json_response({{"key_needed", false}, {"signed_in", true}}));
    }
    const auto cookie = service.access().sign_in(key);
    if (!cookie) throw HttpError{401, "unauthorized", "this is not the key"};
    HttpResponse response = json_response({{"key_needed", true}, {"signed_in", true}});
    response.headers.emplace_back("Set-Cookie", *cookie);
    call->answer(std::move(response));
  });
  router.add("DELETE", path, [&service](const Call& call, const Places&) {
    HttpResponse response = json_response({{"key_needed", service.access().key_needed()}, {"signed_in", false}});
    response.headers.emplace_back("Set-Cookie", service.access().sign_out(call->request()));
    call->answer(std::move(response));
  });
}

void add_model_routes(Router& router, Service& service) {
  router.add("GET", "/mdm/v1/models", [&service](const Call& call, const Places&) {
    Json models = Json::array();
    for (const auto& model : service.models()) {
      models.push_back(view_of_model(*model, service.limits()));
      models.back()["loaded"] = service.loaded(model->name);
    }
    call->answer(json_response({{"default", service.models().front()->name}, {"models", std::move(models)}}));
  });
  router.add("GET", "/mdm/v1/models/{name}", [&service](const Call& call, const Places& places) {
    Json view = full_view_of_model(service.model(places[0]), service.limits());
    view["loaded"] = service.loaded(places[0]);
    call->answer(json_response(view));
  });
  router.add("POST", "/mdm/v1/models/{name}/tokens", [&service](const Call& call, const Places& places) {
    const ShelvedModel& model = service.model(places[0]);
    const std::string text = text_of(read_object(call->request().body), "text");
    if (text.size() > service.limits().prompt_bytes)
      throw HttpError{400, "invalid_setting", "text: is too long", "text"};
    call->answer(json_response(view_of_tokens(model.pipeline.tokens(text))));
  });
}

void add_job_routes(Router& router, Service& service) {
  const std::string one = "/mdm/v1/jobs/{id}";
  router.add("GET", "/mdm/v1/jobs", [&service](const Call& call, const Places&) {
    const JobQueue::Counts counts = service.queue().counts();
    call->answer(json_response(
        {{"queued", counts.queued}, {"running", counts.running}, {"limit", service.queue().limits().queued}}));
  });
  router.add("POST", "/mdm/v1/jobs", [&service](const Call& call, const Places&) {
    const Json object = read_object(call->request().body);
    const ShelvedModel& model = service.model(text_of(object, "model"));
    const auto job = service.submit(read_order(object, model, service.limits()), call->request());
    HttpResponse response = json_response(view_of_job(*job), 202);
    response.headers.emplace_back("Location", job_url(*job));
    call->answer(std::move(response));
  });
  router.add("GET", one, [&service](const Call& call, const Places& places) {
    call->answer(json_response(view_of_job(*service.job(places[0]))));
  });
  const auto cancel = [&service](const Call& call, const Places& places) {
    const auto job = service.job(places[0]);
    service.queue().cancel(job);
    call->answer(json_response(view_of_job(*job)));
  };
  router.add("DELETE", one, cancel);
  router.add("POST", one + "/cancel", cancel);
  router.add("GET", one + "/events", [&service](const Call& call, const Places& places) {
    if (call->request().method == "HEAD") throw HttpError{405, "method_not_allowed", "events have no head"};
    call->stream(std::make_shared<JobEvents>(service.job(places[0]), last_event_of(call->request())));
  });
  router.add("GET", one + "/pictures/{index}.png", [&service](const Call& call, const Places& places) {
    const JobView view = service.job(places[0])->view();
    call->answer(png_response(*picture_of(view, places[1]).png));
  });
  router.add("GET", one + "/pictures/{index}/levels/{level}.png", [&service](const Call& call, const Places& places) {
    const JobView view = service.job(places[0])->view();
    const JobPicture& picture = picture_of(view, places[1]);
    const size_t level = number_in(places[2]);
    if (level >= picture.levels.size()) throw HttpError{404, "not_found", "the model has no such level"};
    call->answer(png_response(*picture.levels[level]));
  });
}

void add_inside_routes(Router& router, Service& service) {
  const std::string one = "/mdm/v1/jobs/{id}";
  router.add("GET", one + "/path", [&service](const Call& call, const Places& places) {
    const auto job = looked_into(service, places[0]);
    call->answer(json_response(view_of_path(service.model(job->order().model), *job)));
  });
  router.add("GET", one + "/path/{frame}/{view}/{level}.png", [&service](const Call& call, const Places& places) {
    const auto job = looked_into(service, places[0]);
    const auto image = job->record()->picture(number_in(places[1]), path_view(places[2]), number_in(places[3]));
    if (!image) throw HttpError{404, "not_found", "there is no such picture"};
    constexpr int kFastPng = 1;
    call->answer(png_response(encode_png(*image, {}, kFastPng)));
  });
  router.add("GET", one + "/attention", [&service](const Call& call, const Places& places) {
    const auto job = looked_into(service, places[0]);
    call->answer(json_response(view_of_attention(service.model(job->order().model), *job)));
  });
  router.add("GET", one + "/time", [&service](const Call& call, const Places& places) {
    call->answer(json_response(view_of_times(*looked_into(service, places[0]))));
  });
}

}  // namespace

void add_native_routes(Router& router, Service& service) {
  router.add("GET", "/healthz", [&service](const Call& call, const Places&) {
    call->answer(service.stopping() ? json_response({{"status", "stopping"}}, 503) : json_response({{"status", "ok"}}));
  });
  router.add("GET", "/metrics", [&service](const Call& call, const Places&) {
    HttpResponse response;
    response.type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = service.figures();
    call->answer(std::move(response));
  });
  add_session_routes(router, service);
  add_model_routes(router, service);
  add_job_routes(router, service);
  add_inside_routes(router, service);
}

}  // namespace mdm::serving
