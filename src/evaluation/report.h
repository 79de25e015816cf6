// The numbers that `evaluate` prints and writes, and all that moved them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "evaluation/evaluate_settings.h"
#include "mdm/evaluation/statistics.h"

namespace mdm::evaluation {

// One side of a comparison.
struct ScoredSet {
  std::string source;
  const SetScores* scores = nullptr;  // or
  const NamedStatistics* statistics = nullptr;

  int64_t count(const char* name) const;
  // "" for Inception's, "fd_dinov2" for DINOv2's. DataError when it is not there.
  FeatureStatistics features(const std::string& name) const;
};

struct Result {
  std::string name;  // "fid"
  double value = 0;
  std::string remarks;  // "2048 features, 10000 against 50000 pictures"
};

// All metrics. `reference` may be null when none compares with it. Warnings are logged and kept.
class Report {
 public:
  Report(const EvaluateSettings& settings, const ScoringNetworks& networks, uint64_t seed);
  void compute(const ScoredSet& generated, const ScoredSet* reference);
  void warn(const std::string& text);
  // Adds to the JSON.
  nlohmann::ordered_json& json() { return json_; }
  const std::vector<Result>& results() const { return results_; }
  std::string table() const;
  std::string json_text() const;

 private:
  void add(const std::string& name, double value, const std::string& remarks);
  void describe_networks();
  void compare(const ScoredSet& generated, const ScoredSet& reference);

  const EvaluateSettings& settings_;
  const ScoringNetworks& networks_;
  uint64_t seed_;
  std::vector<Result> results_;
  nlohmann::ordered_json json_;
};

}  // namespace mdm::evaluation
