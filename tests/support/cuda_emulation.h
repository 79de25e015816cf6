// Runs CUDA kernels on the CPU: one block after the other, the threads of a block in turns, each up to the next
// __syncthreads(). For tests of what kernels compute on machines without a GPU; a data race between two barriers is
// not seen. Include it before the .cu file.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#define MDM_CUDA_EMULATION 1

struct CUstream_st;

namespace mdm::cuda_emulation {

struct Dimensions {
  unsigned x = 1, y = 1, z = 1;
  Dimensions() = default;
  Dimensions(unsigned a, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

inline Dimensions thread_index, block_index, block_dimensions, grid_dimensions;
inline float* dynamic_shared = nullptr;

// The threads of a block: contexts of their own on this one thread.
class Block {
 public:
  Block(unsigned threads, const std::function<void()>& body) : body_(body), fibers_(threads) {
    for (Fiber& fiber : fibers_) fiber.stack = std::make_unique<char[]>(kStack);
  }

  void run() {
    current_ = this;
    for (Fiber& fiber : fibers_) {
      fiber.done = false;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStack;
      fiber.context.uc_link = &scheduler_;
      makecontext(&fiber.context, &Block::enter, 0);
    }
    for (bool any = true; any;) {
      any = false;
      size_t at_barrier = 0;
      for (unsigned i = 0; i < fibers_.size(); ++i) {
        if (fibers_[i].done) continue;
        thread_index = {i};
        running_ = i;
        swapcontext(&scheduler_, &fibers_[i].context);
        any = true;
        at_barrier += fibers_[i].done ? 0 : 1;
      }
      if (at_barrier != 0 && at_barrier != fibers_.size()) {
        throw std::logic_error("some threads of a block wait at a barrier that others never reach");
      }
    }
    current_ = nullptr;
  }

  static void wait() {
    Block& block = *current_;
    swapcontext(&block.fibers_[block.running_].context, &block.scheduler_);
    thread_index = {block.running_};
  }

 private:
  static constexpr size_t kStack = 64 * 1024;
  struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool done = false;
  };

  static void enter() {
    Block& block = *current_;
    block.body_();
    block.fibers_[block.running_].done = true;
  }

  inline static Block* current_ = nullptr;
  const std::function<void()>& body_;
  std::vector<Fiber> fibers_;
  ucontext_t scheduler_{};
  unsigned running_ = 0;
};

inline void launch(Dimensions grid, Dimensions threads, size_t shared_bytes, const std::function<void()>& body) {
  constexpr unsigned kMostThreads = 1024;
  constexpr size_t kMostShared = 48 * 1024;
  if (threads.x * threads.y * threads.z > kMostThreads || threads.y != 1 || threads.z != 1 || grid.y > 65535 ||
      grid.z > 65535 || shared_bytes > kMostShared) {
    throw std::logic_error("a launch that no device takes");
  }
  std::vector<float> shared(shared_bytes / sizeof(float) + 1);
  dynamic_shared = shared.data();
  grid_dimensions = grid;
  block_dimensions = threads;
  Block block(threads.x, body);
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        block_index = {x, y, z};
        std::fill(shared.begin(), shared.end(), NAN);  // a device's holds what was there before
        block.run();
      }
    }
  }
}

}  // namespace mdm::cuda_emulation

#define MDM_LAUNCH(kernel, grid, threads, shared, stream, ...) \
  ::mdm::cuda_emulation::launch((grid), (threads), (shared), [=] { (kernel)(__VA_ARGS__); })
#define MDM_DYNAMIC_SHARED(type, name) type* name = ::mdm::cuda_emulation::dynamic_shared

#define __global__
#define __device__
#define __shared__ static
#define threadIdx ::mdm::cuda_emulation::thread_index
#define blockIdx ::mdm::cuda_emulation::block_index
#define blockDim ::mdm::cuda_emulation::block_dimensions
#define gridDim ::mdm::cuda_emulation::grid_dimensions

using dim3 = mdm::cuda_emulation::Dimensions;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return ""; }
inline void __syncthreads() { mdm::cuda_emulation::Block::wait(); }
inline float __expf(float v) { return std::exp(v); }
inline uint32_t atomicAdd(uint32_t* at, uint32_t value) {
  const uint32_t old = *at;
  *at += value;
  return old;
}
inline uint32_t atomicMax(uint32_t* at, uint32_t value) {
  const uint32_t old = *at;
  *at = std::max(old, value);
  return old;
}
inline uint32_t atomicMin(uint32_t* at, uint32_t value) {
  const uint32_t old = *at;
  *at = std::min(old, value);
  return old;
}
using std::max;
using std::min;

struct __nv_bfloat16 {
  uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 value) {
  const uint32_t wide = static_cast<uint32_t>(value.bits) << 16;
  float out;
  std::memcpy(&out, &wide, sizeof out);
  return out;
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return {static_cast<uint16_t>(value != value ? 0x7FFF : (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16)};
}
