// The service put together.
#include "serving/service.h"

#include <algorithm>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "serving/json.h"
#include "serving/page_files.h"

namespace mdm::serving {
namespace {

// The page's own files, and pictures that it gets from here; nothing inline, nothing from elsewhere.
constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

std::vector<std::pair<std::string, std::string>> headers_of_all() {
  return {{"Content-Security-Policy", kPolicy},
          {"X-Content-Type-Options", "nosniff"},
          {"X-Frame-Options", "DENY"},
          {"Referrer-Policy", "no-referrer"},
          {"Cross-Origin-Resource-Policy", "same-origin"},
          {"Cross-Origin-Opener-Policy", "same-origin"}};
}

AccessOptions with_open_paths(AccessOptions options) {
  for (const PageFile& file : page_files()) options.open_paths.emplace_back(file.path);
  options.open_paths.insert(options.open_paths.end(), {"/healthz", "/mdm/v1/session"});
  return options;
}

const char* reason_of(Refusal refusal) {
  switch (refusal) {
    case Refusal::kQueueFull: return "queue_full";
    case Refusal::kTooManyOfClient: return "too_many_jobs";
    case Refusal::kStopping: return "stopping";
  }
  return "";
}

}  // namespace

Service::Service(std::vector<std::shared_ptr<ModelShelf>> shelves, const ServiceOptions& options)
    : options_(options),
      shelves_(std::move(shelves)),
      figures_(std::make_shared<Figures>()),
      access_(with_open_paths(options.access)) {
  if (shelves_.empty() || models().empty()) fail<ConfigError>("model: none is given");
  add_page_routes(router_);
  add_native_routes(router_, *this);
  add_openai_routes(router_, *this);
  add_a1111_routes(router_, *this);
  queue_ = std::make_unique<JobQueue>(std::vector<std::shared_ptr<PictureMaker>>(shelves_.begin(), shelves_.end()),
                                      options.queue, figures_);
  HttpHooks hooks;
  hooks.check = [this](const HttpRequest& head) { return access_.check(head); };
  hooks.handle = [this](const std::shared_ptr<Exchange>& exchange) { router_.handle(exchange); };
  hooks.answered = [this](const HttpRequest* request, int status) {
    figures_->on_answer(request == nullptr ? "none" : router_.pattern_of(request->path), status);
  };
  hooks.headers = headers_of_all();
  server_ = std::make_unique<HttpServer>(options.access.host, options.port, std::move(hooks), options.http);
  server_->start();
}

Service::~Service() { stop(std::chrono::milliseconds(0)); }

uint16_t Service::port() const { return server_->port(); }

void Service::stop(std::chrono::milliseconds grace) {
  stopping_ = true;
  if (queue_) queue_->stop();
  if (server_) server_->stop(grace);
}

const ShelvedModel& Service::model(const std::string& name) const {
  if (name.empty()) return *models().front();
  const ShelvedModel* found = shelves_.front()->find(name);
  if (found == nullptr) {
    throw HttpError{404, "model_not_found", concat("there is no model '", printable(name, 60), "'"), "model"};
  }
  return *found;
}

bool Service::loaded(const std::string& model) const {
  return std::any_of(shelves_.begin(), shelves_.end(), [&](const auto& shelf) {
    const ShelvedModel* found = shelf->find(model);
    return found != nullptr && found->pipeline.loaded();
  });
}

std::shared_ptr<Job> Service::submit(JobOrder order, const HttpRequest& request) {
  const JobQueue::Submission submission = queue_->submit(std::move(order), Access::client_of(request));
  if (submission.job) {
    figures_->on_submitted();
    return submission.job;
  }
  const char* reason = reason_of(submission.refusal);
  figures_->on_refused(reason);
  constexpr int kSoon = 2, kLater = 5;
  switch (submission.refusal) {
    case Refusal::kTooManyOfClient:
      throw HttpError{429, reason, "you have as many jobs as one client may have; wait until one has ended", "", kSoon};
    case Refusal::kQueueFull: throw HttpError{503, reason, "the queue is full; try again later", "", kLater};
    case Refusal::kStopping: break;
  }
  throw HttpError{503, reason, "the server is stopping", "", kLater};
}

std::shared_ptr<Job> Service::job(const std::string& id) const {
  auto found = queue_->find(id);
  if (!found) throw HttpError{404, "not_found", "there is no such job, or its results have been dropped"};
  return found;
}

std::string Service::figures() {
  const JobQueue::Counts counts = queue_->counts();
  Figures::Now now;
  now.queued = counts.queued;
  now.running = counts.running;
  now.results = counts.remembered;
  now.results_bytes = counts.results_bytes;
  now.connections = server_ ? server_->connections() : 0;
  for (const auto& model : models()) now.models_loaded += loaded(model->name) ? 1 : 0;
  return figures_->text(now);
}

void answer_when_done(Service& service, const std::shared_ptr<Exchange>& exchange, const std::shared_ptr<Job>& job,
                      const Router::Errors& errors, std::function<HttpResponse(const JobView&)> done) {
  exchange->on_gone([&service, job] { service.queue().cancel(job); });
  // Whoever sees the end first tells it. The job keeps its listeners until then, and they don't keep the job.
  const auto once = std::make_shared<std::atomic<bool>>(false);
  const auto look = [weak = std::weak_ptr<Job>(job), once, exchange, errors, done = std::move(done)] {
    const auto ended = weak.lock();
    if (!ended || !ended->ended() || once->exchange(true)) return;
    const JobView view = ended->view();
    if (view.state == JobState::kDone) return exchange->answer(done(view));
    const bool cancelled = view.state == JobState::kCancelled;
    const std::string message = view.error_message.empty() ? "the job was cancelled" : view.error_message;
    exchange->answer(errors({cancelled ? 503 : 500, cancelled ? "cancelled" : view.error_code, message}));
  };
  if (job->listen(look) == 0) look();
}

}  // namespace mdm::serving
