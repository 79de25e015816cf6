// 32 clients at once with a demo model: none is lost, memory stays, and the server's figures are what the clients
// counted. MDM_LOAD_SECONDS says for how long (60; scripts/soak.sh: 300). Waiting times and what batches gain are
// printed.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "serving/served.h"

namespace mdm::serving {
namespace {

using serving_test::Answer;
using serving_test::RawClient;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point began) { return std::chrono::duration<double>(Clock::now() - began).count(); }

double wanted_seconds() {
  const char* text = std::getenv("MDM_LOAD_SECONDS");
  return text == nullptr ? 60 : std::atof(text);
}

double resident_mib() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

std::unique_ptr<Service> demo_service(int64_t batch) {
  ServiceOptions options = serving_test::Served::open_options();
  options.queue.batch = batch;
  options.queue.results_bytes = size_t{4} << 20;
  const std::string file = std::string(MDM_PROJECT_DIR) + "/configs/demo/shapes_32.pth";
  const std::vector<ModelSpec> specs = {{"shapes_32", file, {}}};
  const Overrides overrides = {{"runtime.device", "cpu"}, {"text.keep_text_encoder", "yes"}};
  return std::make_unique<Service>(std::vector{std::make_shared<ModelShelf>(specs, overrides, int64_t{1} << 40)},
                                   options);
}

// What all clients together saw.
struct Seen {
  std::atomic<int> submitted{0}, done{0}, cancelled{0}, lost{0};
  std::mutex mutex;
  std::vector<double> waits;  // from order to picture, seconds
};

// Orders pictures one after the other, follows each by its events, and now and then goes or cancels.
void be_a_client(uint16_t port, int number, double seconds, bool steady, Seen& seen) {
  const auto began = Clock::now();
  for (int i = 0; seconds_since(began) < seconds; ++i) {
    const Json order = {{"prompt", "a red circle"}, {"num_inference_steps", 4}, {"seed", number * 1000 + i}};
    const auto asked = Clock::now();
    const Answer answer = serving_test::request(port, "POST", "/mdm/v1/jobs", order.dump());
    if (answer.status != 202) {
      ++seen.lost;
      continue;
    }
    ++seen.submitted;
    const std::string url = "/mdm/v1/jobs/" + Json::parse(answer.body)["id"].get<std::string>();
    const int turn = steady ? 1 : (number + i) % 10;
    if (turn == 0) {  // the stream is left in the middle, and the job looked for again
      RawClient gone(port);
      gone.send("GET " + url + "/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
      gone.receive_until("event: state", 30);
    }
    if (turn == 5) serving_test::request(port, "DELETE", url);
    const Answer events = serving_test::request(port, "GET", url + "/events", "", {}, 120);
    const bool is_done = events.body.find("\"state\":\"done\"") != std::string::npos;
    const bool is_cancelled = events.body.find("\"state\":\"cancelled\"") != std::string::npos;
    if (is_done) {
      const Answer png = serving_test::request(port, "GET", url + "/pictures/0.png");
      if (png.status == 200 && png.body.compare(1, 3, "PNG") == 0) {
        ++seen.done;
      } else {
        ++seen.lost;
      }
      const std::lock_guard<std::mutex> lock(seen.mutex);
      seen.waits.push_back(seconds_since(asked));
    } else if (is_cancelled && turn == 5) {
      ++seen.cancelled;
    } else {
      ++seen.lost;
    }
  }
}

void load(Service& service, int clients, double seconds, bool steady, Seen& seen) {
  std::vector<std::thread> threads;
  for (int c = 0; c < clients; ++c) {
    threads.emplace_back([&, c] { be_a_client(service.port(), c, seconds, steady, seen); });
  }
  for (auto& thread : threads) thread.join();
}

double figure(const std::string& figures, const std::string& name) {
  std::istringstream lines(figures);
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, name.size() + 1, name + " ") == 0) return std::atof(line.c_str() + name.size());
  }
  return -1;
}

TEST(Load, NoneOf32ClientsIsLost) {
  const double seconds = wanted_seconds();
  const auto service = demo_service(/*batch=*/8);
  Seen warm;
  load(*service, 32, seconds / 5, /*steady=*/false, warm);
  Seen seen;
  // The most in each half of the load: at a single moment it depends on what is being drawn just then.
  double before = 0, after = 0;
  std::atomic<bool> ended{false};
  std::thread looks([&] {
    const auto began = Clock::now();
    while (!ended) {
      double& half = seconds_since(began) < seconds / 2 ? before : after;
      half = std::max(half, resident_mib());
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  });
  load(*service, 32, seconds, /*steady=*/false, seen);
  ended = true;
  looks.join();
  EXPECT_EQ(warm.lost + seen.lost, 0);
  EXPECT_EQ(seen.submitted, seen.done + seen.cancelled);
  EXPECT_GT(seen.done, 0);
  EXPECT_LT(after - before, 16) << "MiB more in the second half of the load than in the first";

  const std::string figures = serving_test::request(service->port(), "GET", "/metrics").body;
  EXPECT_EQ(figure(figures, "mdm_jobs_submitted_total"), warm.submitted + seen.submitted);
  EXPECT_EQ(figure(figures, "mdm_jobs_total{state=\"done\"}"), warm.done + seen.done);
  EXPECT_EQ(figure(figures, "mdm_jobs_total{state=\"cancelled\"}"), warm.cancelled + seen.cancelled);
  EXPECT_EQ(figure(figures, "mdm_jobs_total{state=\"failed\"}"), 0);
  EXPECT_EQ(figure(figures, "mdm_pictures_total"), warm.done + seen.done);
  EXPECT_EQ(figure(figures, "mdm_jobs_running"), 0);
  EXPECT_EQ(figure(figures, "mdm_job_wait_seconds_count"), warm.done + seen.done);

  std::sort(seen.waits.begin(), seen.waits.end());
  std::printf(
      "load: 32 clients, %.0f s: %d pictures, %d cancelled, 0 lost; from order to picture %.2f s (median), %.2f s "
      "(95 %%), %.2f s (most); resident %.0f MiB at most in the first half, %.0f in the second; %.1f pictures a "
      "batch\n",
      seconds, seen.done.load(), seen.cancelled.load(), seen.waits[seen.waits.size() / 2],
      seen.waits[seen.waits.size() * 95 / 100], seen.waits.back(), before, after,
      figure(figures, "mdm_batch_pictures_sum") / figure(figures, "mdm_batch_pictures_count"));
}

TEST(Load, WhatBatchesGain) {
  const double seconds = wanted_seconds() / 5;
  double rates[2] = {};
  for (const int64_t batch : {1, 8}) {
    const auto service = demo_service(batch);
    Seen warm, seen;
    load(*service, 8, 0.5, /*steady=*/true, warm);
    const auto began = Clock::now();
    load(*service, 8, seconds, /*steady=*/true, seen);
    rates[batch == 1 ? 0 : 1] = seen.done / seconds_since(began);
    EXPECT_EQ(seen.lost, 0);
  }
  std::printf("load: 8 clients: %.1f pictures a second one by one, %.1f in batches of up to 8 (%.2f times)\n", rates[0],
              rates[1], rates[1] / rates[0]);
}

}  // namespace
}  // namespace mdm::serving
