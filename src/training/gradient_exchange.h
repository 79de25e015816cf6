// Sums the gradients of all processes, bucket by bucket, while the backward pass still runs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mdm/distributed/process_group.h"
#include "mdm/training/parameter_arena.h"

namespace mdm {

// A bucket is an element range of the arena's flat gradients. It is handed to the group as soon as the gradient of each
// parameter that lies in it is there, in one order on every process; what is left over (parameters without a gradient
// in this process) follows at the end. So one backward pass is one collective a bucket, whatever was used.
//
// The order is learned: in the first exchange buckets go from the last to the first, and rank 0 notes in which order
// they became ready; from the second on all processes take that one.
class GradientExchange {
 public:
  struct Options {
    int64_t bucket_bytes = 25 << 20;
    at::ScalarType reduce = at::kFloat;  // or kBFloat16: what is sent, and summed in
  };
  struct Traffic {
    uint64_t collectives = 0, bytes = 0;  // handed to the group so far
  };

  // Both outlive it. Sets the post-accumulate hooks of the arena's parameters.
  GradientExchange(ParameterArena& arena, ProcessGroup& group, const Options& options);
  ~GradientExchange();
  GradientExchange(const GradientExchange&) = delete;
  GradientExchange& operator=(const GradientExchange&) = delete;

  // The next backward pass is the last one before an update: its gradients are sent. Those of earlier ones add up.
  void begin();
  // Sends what is left (everything, without begin()), and waits: flat_gradients() then holds the sums.
  void finish();

  const Traffic& traffic() const;
  size_t buckets() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
