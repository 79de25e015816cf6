// The service: models, queue, routes and server put together.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "serving/access.h"
#include "serving/figures.h"
#include "serving/http_server.h"
#include "serving/job_queue.h"
#include "serving/model_shelf.h"
#include "serving/order.h"
#include "serving/router.h"

namespace mdm::serving {

struct ServiceOptions {
  uint16_t port = 7860;  // 0: any free one
  AccessOptions access;
  HttpLimits http;
  QueueLimits queue;
  OrderLimits orders;
};

class Service {
 public:
  // One worker for each shelf; all hold the same models. Answers at once; Error when the port can't be had.
  Service(std::vector<std::shared_ptr<ModelShelf>> shelves, const ServiceOptions& options);
  ~Service();

  uint16_t port() const;
  // Refuses new jobs, ends the steps that are being made, tells all who wait, and frees the port.
  void stop(std::chrono::milliseconds grace = std::chrono::seconds(3));

  // For the routes.
  const std::vector<std::shared_ptr<ModelShelf>>& shelves() const { return shelves_; }
  const std::vector<std::unique_ptr<ShelvedModel>>& models() const { return shelves_.front()->models(); }
  // The model of that name; "" means the first. HttpError 404.
  const ShelvedModel& model(const std::string& name) const;
  bool loaded(const std::string& model) const;  // by any worker
  const OrderLimits& limits() const { return options_.orders; }
  Access& access() { return access_; }
  JobQueue& queue() { return *queue_; }
  std::shared_ptr<Job> submit(JobOrder order, const HttpRequest& request);  // HttpError 429, 503
  std::shared_ptr<Job> job(const std::string& id) const;                    // HttpError 404
  bool stopping() const { return stopping_; }
  std::string figures();
  std::vector<std::string> routes() const { return router_.routes(); }

 private:
  const ServiceOptions options_;
  std::vector<std::shared_ptr<ModelShelf>> shelves_;
  std::shared_ptr<Figures> figures_;
  Access access_;
  Router router_;
  std::unique_ptr<JobQueue> queue_;
  std::unique_ptr<HttpServer> server_;
  std::atomic<bool> stopping_{false};
};

// Answers once the job has ended: with `done` of a finished one, else with an error. A client that goes cancels it.
void answer_when_done(Service& service, const std::shared_ptr<Exchange>& exchange, const std::shared_ptr<Job>& job,
                      const Router::Errors& errors, std::function<HttpResponse(const JobView&)> done);

// The groups of routes.
void add_page_routes(Router& router);
void add_native_routes(Router& router, Service& service);
void add_openai_routes(Router& router, Service& service);
void add_a1111_routes(Router& router, Service& service);

}  // namespace mdm::serving
