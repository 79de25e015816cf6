// Tests that run train_parallel's work in their own process, on the small job.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "mdm/core/files.h"
#include "mdm/training/train_job.h"
#include "training/small_job.h"
#include "training/support.h"

namespace mdm::training_test {

class JobTest : public ::testing::Test {
 protected:
  void SetUp() override { write_small_job(folder_.path()); }

  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  std::string bytes_of(const std::string& file) const { return read_text_file(path(file)); }

  /// What train_parallel returns. Later flags replace earlier ones; without a config the run's own is taken.
  int train(const std::string& run, const std::vector<std::string>& flags, const std::string& config = "flat.yaml") {
    std::vector<std::string> arguments = {"--output-dir", path(run), "--threads", "1"};
    if (!config.empty()) {
      arguments.insert(arguments.end(), {"--config_path", path(config), "--file-list", path("train.tar"),
                                         "--vocab_file", path("vocabulary.vocab")});
    }
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return run_train(parse_command_line(arguments, train_app_info()), stop_);
  }

  /// Expects two runs to have the same weights, averages and moments at a step, bit for bit.
  void expect_same_bits(const std::string& a, const std::string& b, const std::string& checkpoint) const {
    for (const char* file : {"/weights.safetensors", "/ema.safetensors", "/moments.safetensors"}) {
      EXPECT_TRUE(bytes_of(a + "/" + checkpoint + file) == bytes_of(b + "/" + checkpoint + file))
          << a << " and " << b << " differ in " << checkpoint << file;
    }
  }

  /// The values that a run has written under this name, by step; NaN where they are no numbers.
  std::vector<std::pair<int64_t, double>> scalars(const std::string& run, const std::string& name = "loss") const {
    std::vector<std::pair<int64_t, double>> out;
    std::istringstream lines(bytes_of(run + "/train/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const auto values = nlohmann::json::parse(line);
      if (!values.contains(name)) continue;
      out.emplace_back(values.at("step").get<int64_t>(),
                       values[name].is_number() ? values[name].get<double>() : std::nan(""));
    }
    return out;
  }
  /// Expects a loss of each of the first `steps` steps, all of them finite.
  void expect_finite_losses(const std::string& run, size_t steps) const {
    const auto losses = scalars(run);
    EXPECT_EQ(losses.size(), steps) << run;
    for (const auto& [step, loss] : losses) EXPECT_TRUE(std::isfinite(loss)) << run << ", step " << step;
  }

  const TemporaryFolder folder_;
  std::atomic<bool> stop_{false};
};

}  // namespace mdm::training_test
