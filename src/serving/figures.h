// The server's figures, as Prometheus reads them (/metrics). prometheus-cpp stays behind this header.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "serving/job_queue.h"

namespace mdm::serving {

class Figures final : public QueueWatcher {
 public:
  Figures();
  ~Figures() override;

  void on_end(const Job& job) override;
  void on_batch(size_t jobs, size_t pictures) override;
  void on_step(size_t pictures) override;
  void on_submitted();
  void on_refused(const std::string& why);
  // `route`: the pattern of the path, "other" for what has none.
  void on_answer(const std::string& route, int status);

  // What is looked up when the figures are asked for.
  struct Now {
    size_t queued = 0, running = 0, results = 0, results_bytes = 0, connections = 0, models_loaded = 0;
  };
  // The text format, version 0.0.4.
  std::string text(const Now& now);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm::serving
