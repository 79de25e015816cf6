// What the command line of `evaluate` says, checked before any work begins.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mdm/config/command_line.h"
#include "mdm/evaluation/preprocessing.h"
#include "mdm/evaluation/scores.h"

namespace mdm::evaluation {

struct Metrics {
  bool fid = false, kid = false, precision_recall = false, clip = false, fd_dinov2 = false;
  bool any_inception() const { return fid || kid || precision_recall; }
  bool any() const { return any_inception() || clip || fd_dinov2; }
};

// "fid,kid,precision_recall,clip,fd_dinov2" (also "prc", "clip_score"); ConfigError.
Metrics parse_metrics(const std::string& text);

struct EvaluateSettings {
  std::string generated, reference, prompts;
  int64_t num_samples = 0;  // 0: one picture a prompt
  Metrics metrics;
  std::string inception, clip, dinov2;  // files and folders of weights
  InceptionResize resize = InceptionResize::kTensorFlow;
  int64_t width = 2048;  // of Inception's features
  int64_t kid_subsets = 100, kid_subset_size = 1000, neighbours = 3;
  std::string output, save_generated, save_reference;
};

std::vector<AppOption> evaluate_options();

// `samples`: a checkpoint is given. ConfigError for what doesn't go together.
EvaluateSettings evaluate_settings(const ParsedCommandLine& line, bool samples);

// Whether a reference is FILE.npz.
bool is_statistics_file(const std::string& reference);

// The networks that the metrics need, loaded.
ScoringNetworks load_networks(const EvaluateSettings& settings);

}  // namespace mdm::evaluation
