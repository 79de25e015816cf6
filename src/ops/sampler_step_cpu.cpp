// Tiles that stay in the first cache between the passes over them.
#include "ops/sampler_step_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "ops/instructions.h"

namespace mdm::ops {
namespace {

constexpr int64_t kTile = 2048;  // numbers
constexpr int64_t kTilesAtATime = 8;

struct Tile {
  int64_t image = 0, first = 0, count = 0;  // of the image's numbers
};

// The prediction's numbers of a tile, in the order of x_t.
const float* gathered(const SamplerArguments& a, int64_t row, const Tile& tile, float* room) {
  const float* from = a.prediction + row * a.row_stride;
  if (a.position_stride == 1 && a.channel_stride == a.positions) return from + tile.first;
  int64_t channel = tile.first / a.positions, position = tile.first % a.positions;
  for (int64_t i = 0; i < tile.count; ++i) {
    room[i] = from[channel * a.channel_stride + position * a.position_stride];
    if (++position == a.positions) {
      position = 0;
      ++channel;
    }
  }
  return room;
}

inline MDM_INLINED void join_range(const float* __restrict unconditional, const float* __restrict conditional,
                                   float guidance, float* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = guided(unconditional[i], conditional[i], guidance);
}

template <Predicts kPredicts>
inline MDM_INLINED void predict_range(const float* __restrict p, const float* __restrict x, float signal,
                                      float deviation, float* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = x_0_from(kPredicts, p[i], x[i], signal, deviation);
}

inline MDM_INLINED void scale_range(float* __restrict x_0, float scale, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x_0[i] = x_0[i] * scale;
}

inline MDM_INLINED void bound_range(float* __restrict x_0, float bound, float scale, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x_0[i] = clipped(x_0[i], bound) / bound / scale;
}

inline MDM_INLINED void next_range(const SamplerArguments& arguments, const float* __restrict x_0,
                                   const float* __restrict x, const float* __restrict noise, float* __restrict out,
                                   int64_t count) {
  const SamplerArguments a = arguments;
  if (noise != nullptr) {
    for (int64_t i = 0; i < count; ++i) out[i] = next_from(a, x_0[i], x[i], noise[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = next_from(a, x_0[i], x[i], 0);
  }
}

inline MDM_INLINED void predict_tile(const SamplerArguments& a, const SamplerPlan& plan, const float* unconditional,
                                     const float* conditional, const float* x, float* room, float* x_0, int64_t count) {
  const float* p = conditional;
  if (plan.guided) {
    join_range(unconditional, conditional, plan.guidance, room, count);
    p = room;
  }
  switch (plan.predicts) {
    case Predicts::kX0: return predict_range<Predicts::kX0>(p, x, a.signal, a.deviation, x_0, count);
    case Predicts::kEps: return predict_range<Predicts::kEps>(p, x, a.signal, a.deviation, x_0, count);
    case Predicts::kV: return predict_range<Predicts::kV>(p, x, a.signal, a.deviation, x_0, count);
  }
}

void step_tile(const SamplerArguments& a, const SamplerPlan& plan, const Tile& tile) {
  float first_room[kTile], second_room[kTile], joined[kTile];
  const int64_t at = tile.image * a.numbers() + tile.first, count = tile.count;
  float* const x_0 = a.x_0 + at;
  const float* const x = a.x_t + at;
  if (plan.stage != Stage::kFinish) {
    const float* unconditional = gathered(a, tile.image, tile, first_room);
    const float* conditional = plan.guided ? gathered(a, tile.image + a.batch, tile, second_room) : unconditional;
    with_vectors([&]() MDM_INLINED {
      predict_tile(a, plan, unconditional, conditional, x, joined, x_0, count);
      if (plan.clips || plan.stage == Stage::kPredict) scale_range(x_0, a.image_scale, count);
    });
  }
  const float* noise = a.noise != nullptr ? a.noise + at : nullptr;
  if (plan.draws(a)) {
    RandomAddress address;
    address.seed = plan.seeds[tile.image];
    address.step = plan.step;
    address.stream = RandomStream::kStep;
    address.layer = a.layer;
    random_normal(address, static_cast<uint64_t>(tile.first), first_room, static_cast<size_t>(count));
    noise = first_room;
  }
  with_vectors([&]() MDM_INLINED {
    if (plan.stage == Stage::kFinish) bound_range(x_0, a.bounds[tile.image], a.image_scale, count);
    if (plan.stage == Stage::kWhole && plan.clips) bound_range(x_0, 1, a.image_scale, count);
    if (plan.stage != Stage::kPredict && a.x_next != nullptr) next_range(a, x_0, x, noise, a.x_next + at, count);
  });
}

}  // namespace

void sampler_step_cpu(const SamplerArguments& a, const SamplerPlan& plan) {
  const int64_t numbers = a.numbers(), tiles = (numbers + kTile - 1) / kTile;
  at::parallel_for(0, a.batch * tiles, kTilesAtATime, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % tiles * kTile;
      step_tile(a, plan, {i / tiles, first, std::min(kTile, numbers - first)});
    }
  });
}

}  // namespace mdm::ops
