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

// A bucket (ParameterArena::buckets()) is handed to the group as soon as the gradient of each parameter that lies in it
// is there, in one order on every process; what is left over (parameters without a gradient in this process) follows at
// the end. So one backward pass is one collective a bucket, whatever was used: a sum for all, or, when the arena is
// divided, a sum of each part for the process that it belongs to.
//
// The order is learned: in the first exchange buckets go from the last to the first, and rank 0 notes in which order
// they became ready; from the second on all processes take that one.
class GradientExchange {
 public:
  // Both outlive it. Sets the post-accumulate hooks of the arena's parameters. `reduce`: kFloat or kBFloat16, what is
  // sent, and summed in.
  GradientExchange(ParameterArena& arena, ProcessGroup& group, at::ScalarType reduce);
  ~GradientExchange();
  GradientExchange(const GradientExchange&) = delete;
  GradientExchange& operator=(const GradientExchange&) = delete;

  // The next backward pass is the last one before an update: its gradients are sent. Those of earlier ones add up.
  void begin();
  // Sends what is left (everything, without begin()), and waits: flat_gradients() then holds the
  // sums, or those in this process's parts.
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
