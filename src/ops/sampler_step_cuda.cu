// A thread for four consecutive numbers of an image: those of one block of Philox. Compiled with --fmad=false, so that
// the bits are the CPU's.
#include "ops/sampler_step_cuda.h"

#include "mdm/core/error.h"
#include "ops/cuda_language.h"

namespace mdm::ops {
namespace {

constexpr unsigned kThreads = 256;

// Blocks [first_block[i], first_block[i + 1]) work on level i.
struct Levels {
  SamplerArguments level[kMostSamplerLevels];
  int64_t first_block[kMostSamplerLevels + 1];
  int count;
};

struct alignas(16) Four {
  float values[4];
};

// Numbers [at, at + count) of an image; `whole`: its numbers come in fours.
__device__ inline void load(const float* from, int64_t at, int count, bool whole, float (&out)[4]) {
  if (whole) {
    const Four four = *reinterpret_cast<const Four*>(from + at);
    for (int i = 0; i < 4; ++i) out[i] = four.values[i];
  } else {
    for (int i = 0; i < 4; ++i) out[i] = i < count ? from[at + i] : 0;
  }
}

__device__ inline void store(const float (&values)[4], int64_t at, int count, bool whole, float* to) {
  if (whole) {
    *reinterpret_cast<Four*>(to + at) = {values[0], values[1], values[2], values[3]};
  } else {
    for (int i = 0; i < count; ++i) to[at + i] = values[i];
  }
}

__device__ inline void load_prediction(const SamplerArguments& a, int64_t row, int64_t first, int count,
                                       float (&out)[4]) {
  const float* from = a.prediction + row * a.row_stride;
  int64_t channel = first / a.positions, position = first % a.positions;
  for (int i = 0; i < count; ++i) {
    out[i] = from[channel * a.channel_stride + position * a.position_stride];
    if (++position == a.positions) {
      position = 0;
      ++channel;
    }
  }
}

// x_0 before the threshold.
__device__ inline void predict(const SamplerArguments& a, const SamplerPlan& plan, int64_t image, int64_t first,
                               int count, const float (&x)[4], float (&x_0)[4]) {
  float p[4] = {};
  load_prediction(a, image, first, count, p);
  if (plan.guided) {
    float conditional[4] = {};
    load_prediction(a, image + a.batch, first, count, conditional);
    for (int i = 0; i < 4; ++i) p[i] = guided(p[i], conditional[i], plan.guidance);
  }
  for (int i = 0; i < 4; ++i) x_0[i] = x_0_from(plan.predicts, p[i], x[i], a.signal, a.deviation);
}

__device__ inline void step_four(const SamplerArguments& a, const SamplerPlan& plan, int64_t image, int64_t first) {
  const int64_t numbers = a.numbers(), at = image * numbers + first;
  const bool whole = numbers % 4 == 0;
  const int count = static_cast<int>(min(numbers - first, static_cast<int64_t>(4)));
  float x[4] = {}, x_0[4] = {};
  load(a.x_t, at, count, whole, x);
  if (plan.stage == Stage::kFinish) {
    load(a.x_0, at, count, whole, x_0);
  } else {
    predict(a, plan, image, first, count, x, x_0);
  }
  const bool bounded = plan.stage == Stage::kFinish || (plan.stage == Stage::kWhole && plan.clips);
  const float bound = plan.stage == Stage::kFinish ? a.bounds[image] : 1;
  for (int i = 0; i < 4; ++i) {
    if (plan.stage == Stage::kPredict || (bounded && plan.stage == Stage::kWhole)) x_0[i] = x_0[i] * a.image_scale;
    if (bounded) x_0[i] = clipped(x_0[i], bound) / bound / a.image_scale;
  }
  store(x_0, at, count, whole, a.x_0);
  if (plan.stage == Stage::kPredict || a.x_next == nullptr) return;
  float noise[4] = {};
  if (a.noise != nullptr) {
    load(a.noise, at, count, whole, noise);
  } else if (plan.draws(a)) {
    const philox::Sequence sequence = step_sequence(plan.seeds[image], plan.step, a.layer);
    const auto block = static_cast<uint64_t>(first / 4);
    const philox::Floats drawn = philox::normals(
        philox::block_words(sequence, static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32)));
    noise[0] = drawn.a;
    noise[1] = drawn.b;
    noise[2] = drawn.c;
    noise[3] = drawn.d;
  }
  for (int i = 0; i < 4; ++i) x[i] = next_from(a, x_0[i], x[i], noise[i]);
  store(x, at, count, whole, a.x_next);
}

__global__ void step(Levels levels, SamplerPlan plan) {
  int which = 0;
  while (which + 1 < levels.count && blockIdx.x >= levels.first_block[which + 1]) ++which;
  const SamplerArguments& a = levels.level[which];
  const int64_t fours = (a.numbers() + 3) / 4;
  const int64_t item = (blockIdx.x - levels.first_block[which]) * kThreads + threadIdx.x;
  if (item < a.batch * fours) step_four(a, plan, item / fours, item % fours * 4);
}

}  // namespace

void sampler_step_cuda(const std::vector<SamplerArguments>& given, const SamplerPlan& plan, CUstream_st* stream) {
  if (given.size() > kMostSamplerLevels) fail("a sampling step of ", given.size(), " levels");
  Levels levels = {};
  for (const SamplerArguments& level : given) {
    const int64_t threads = level.batch * ((level.numbers() + 3) / 4);
    levels.level[levels.count] = level;
    levels.first_block[levels.count + 1] = levels.first_block[levels.count] + (threads + kThreads - 1) / kThreads;
    ++levels.count;
  }
  const int64_t blocks = levels.first_block[levels.count];
  if (blocks == 0) return;
  MDM_LAUNCH((step), static_cast<unsigned>(blocks), kThreads, 0, stream, levels, plan);
  const cudaError_t code = cudaGetLastError();
  if (code != cudaSuccess) fail<Error>("a sampling step on the CUDA device: ", cudaGetErrorString(code));
}

}  // namespace mdm::ops
