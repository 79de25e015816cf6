// What a look inside keeps of one call of the model: how its layers look at the text, and how long its blocks take.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "mdm/models/forward_context.h"
#include "mdm/pipeline.h"

namespace mdm {

class InsideProbe : public Probe {
 public:
  // Forgets what came before: called before each step. Of several calls in a step the last one counts.
  void begin();
  bool wants(const std::string& name) override;
  void on_tensor(const std::string& name, const at::Tensor& value) override;

  // The maps of one row of the model's batch.
  std::vector<AttentionMap> attention(size_t row) const;
  // A block's time is from the end of the one before it, the first one's from begin().
  std::vector<BlockTime> block_times() const { return times_; }

 private:
  void forget();

  std::vector<std::pair<std::string, at::Tensor>> weights_;  // layer, (B, N, L): the mean over heads
  std::vector<BlockTime> times_;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace mdm
