// The two engines of collectives. c10d's headers of them stay in their .cpp files.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace mdm {

struct BackendRequest {
  c10::intrusive_ptr<c10d::Store> store;
  int64_t rank = 0, world_size = 1;
  std::string address;  // Gloo: of this machine, where the others reach it; empty: what the host's name resolves to
  at::Device device = at::kCPU;
  std::chrono::milliseconds timeout{600000};
};

// ConfigError when this build, or the machine, doesn't have it.
c10::intrusive_ptr<c10d::Backend> make_gloo_backend(const BackendRequest& request);
c10::intrusive_ptr<c10d::Backend> make_nccl_backend(const BackendRequest& request);
// Ends what NCCL has under way: without that a process waits for a lost peer for ever.
void abort_nccl_backend(c10d::Backend& backend);

}  // namespace mdm
