// A service with small models for a whole suite of tests, and requests to it.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "mdm/config/config.h"
#include "pipeline/support.h"
#include "serving/json.h"
#include "serving/raw_client.h"
#include "serving/service.h"

namespace mdm::serving_test {

using serving::Json;

// Models "flat" and "nested" of the pipeline's tests.
inline std::shared_ptr<serving::ModelShelf> small_shelf(int64_t memory = int64_t{1} << 40) {
  using pipeline_test::Kind;
  std::vector<serving::ModelSpec> specs = {{"flat", pipeline_test::checkpoint_of(Kind::kFlat), {}},
                                           {"nested", pipeline_test::checkpoint_of(Kind::kNested), {}}};
  const Overrides overrides = {{"runtime.device", "cpu"}, {"text.keep_text_encoder", "yes"}};
  return std::make_shared<serving::ModelShelf>(specs, overrides, memory);
}

class Served {
 public:
  explicit Served(serving::ServiceOptions options = open_options())
      : service_(std::make_unique<serving::Service>(std::vector{small_shelf()}, options)) {}

  // Limits that no test of something else runs into.
  static serving::ServiceOptions open_options() {
    serving::ServiceOptions options;
    options.port = 0;
    options.queue.queued = options.queue.per_client = 1000;
    options.access.posts_per_minute = 1e6;
    return options;
  }

  uint16_t port() const { return service_->port(); }
  serving::Service& service() { return *service_; }
  Answer get(const std::string& path, const std::vector<std::string>& headers = {}) const {
    return request(port(), "GET", path, "", headers);
  }
  Answer post(const std::string& path, const std::string& body) const { return request(port(), "POST", path, body); }
  Answer post(const std::string& path, const Json& body) const { return post(path, body.dump()); }

  // A job's end.
  Json finished(const std::string& id) const {
    for (int i = 0; i < 3000; ++i) {
      const Json job = Json::parse(get("/mdm/v1/jobs/" + id).body);
      if (job["state"] != "queued" && job["state"] != "running") return job;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "the job does not end";
    return {};
  }
  Json made(Json order) const {
    const Answer answer = post("/mdm/v1/jobs", order);
    EXPECT_EQ(answer.status, 202) << answer.body;
    return answer.status == 202 ? finished(Json::parse(answer.body)["id"]) : Json();
  }

 private:
  std::unique_ptr<serving::Service> service_;
};

}  // namespace mdm::serving_test
