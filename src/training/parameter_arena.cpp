#include "mdm/training/parameter_arena.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <unordered_set>

#include "mdm/core/error.h"
#include "training/arena_layout.h"

namespace mdm {
namespace {

at::Tensor zeros_of(int64_t count, at::Device device) {
  return at::zeros({count}, at::TensorOptions().dtype(at::kFloat).device(device));
}

at::Tensor empty_of(int64_t count, at::ScalarType type, at::Device device) {
  return at::empty({count}, at::TensorOptions().dtype(type).device(device));
}

// What the trained parameters compute with, in the order of the layout: first the rounded ones, then the others.
struct Shown {
  at::Tensor rounded, floats;
};

}  // namespace

struct ParameterArena::Impl {
  Impl(std::vector<ArenaSlot> slots, const Options& given)
      : options(given),
        group(given.divided_over != nullptr && given.divided_over->size() > 1 ? given.divided_over : nullptr),
        layout(std::move(slots), given.bucket_numbers, group != nullptr ? group->rank() : 0,
               group != nullptr ? group->size() : 1),
        first_float(group != nullptr ? layout.trained_rounded : 0) {}

  Options options;
  ProcessGroup* group;  // null: not divided
  ArenaLayout layout;
  int64_t first_float;  // the element with which `weights` begins
  bool ema_in_use = false;
  at::Tensor weights;                        // (total - first_float)
  at::Tensor grads;                          // (trained)
  at::Tensor exp_avg, exp_avg_sq, averages;  // (own(trained))
  at::Tensor own_weights;                    // (own(trained_rounded)), divided only: float32 of the rounded ones
  at::Tensor compute;                        // (rounded) bfloat16

  bool divided() const { return group != nullptr; }

  // Buffers and parts of them.
  at::Tensor weights_at(const ArenaSlot& slot) const { return view_of(weights, slot, slot.offset - first_float); }
  at::Tensor computed_at(const ArenaSlot& slot) const { return view_of(compute, slot, slot.compute_offset); }
  at::Tensor own_values(const ArenaSlot& slot) const {  // what the module computes with
    return slot.rounded ? computed_at(slot) : weights_at(slot);
  }
  at::Tensor averaged(const ArenaSlot& slot) const {  // not divided
    return averages.defined() && slot.trained() ? view_of(averages, slot, slot.offset) : weights_at(slot);
  }
  at::Tensor weights_of(const ArenaPiece& piece) const {
    return piece.rounded && divided() ? own_weights.narrow(0, piece.own, piece.count)
                                      : weights.narrow(0, piece.first - first_float, piece.count);
  }
  at::Tensor computed_of(const ArenaPiece& piece) const {
    return piece.rounded ? compute.narrow(0, piece.first, piece.count) : at::Tensor();
  }
  at::Tensor averages_of(const ArenaPiece& piece) const {
    return averages.defined() ? averages.narrow(0, piece.own, piece.count) : at::Tensor();
  }
  Shown shown() const {
    Shown all;
    if (layout.trained_rounded > 0) all.rounded = compute.narrow(0, 0, layout.trained_rounded);
    all.floats = weights.narrow(0, layout.trained_rounded - first_float, layout.trained - layout.trained_rounded);
    return all;
  }

  template <typename Values>
  std::vector<NamedTensor> named(const std::string& prefix, bool trained_only, const Values& values) const {
    std::vector<NamedTensor> out;
    for (const ArenaSlot& slot : layout.slots) {
      if (!trained_only || slot.trained()) out.push_back({prefix + slot.name, values(slot)});
    }
    return out;
  }

  void take_over();
  void round_slots();

  // Divided.
  void share(const Shown& all) const;
  at::Tensor whole(const at::Tensor& own, int64_t numbers) const;
  at::Tensor whole_weights() const;
  std::vector<NamedTensor> copies(const at::Tensor& trained) const;
  void keep_own(const at::Tensor& all, const at::Tensor& own) const;
  void keep_weights(const at::Tensor& all);
  Shown room_for_averages() const;
};

// Copies each parameter into its slot and frees the parameter's own memory, one after the other.
void ParameterArena::Impl::take_over() {
  weights = empty_of(layout.total - first_float, at::kFloat, options.device);
  if (layout.rounded > 0) compute = empty_of(layout.rounded, at::kBFloat16, options.device).zero_();
  if (divided()) own_weights = zeros_of(layout.own(layout.trained_rounded), options.device);
  weights.zero_();
  for (const size_t i : layout.placement) {
    ArenaSlot& slot = layout.slots[i];
    at::Tensor values = slot.tensor.detach();
    if (divided() && slot.trained() && slot.rounded) {
      // Its own flat memory, of which this process's elements are kept.
      const at::Tensor flat = zeros_of(ArenaLayout::room(slot), options.device);
      view_of(flat, slot, 0).copy_(values);
      for (const ArenaPiece& piece : layout.pieces) {
        const int64_t first = std::max(piece.first, slot.offset);
        const int64_t end = std::min(piece.first + piece.count, slot.offset + flat.numel());
        if (first >= end) continue;
        own_weights.narrow(0, piece.own + first - piece.first, end - first)
            .copy_(flat.narrow(0, first - slot.offset, end - first));
      }
    } else {
      weights_at(slot).copy_(values);
    }
    if (slot.rounded) computed_at(slot).copy_(values);
    slot.tensor.set_data(own_values(slot));
  }
}

ParameterArena::ParameterArena(std::vector<ArenaParameter> parameters, const Options& options) {
  const c10::NoGradGuard no_grad;
  std::unordered_set<std::string> names;
  std::vector<ArenaSlot> slots;
  for (ArenaParameter& parameter : parameters) {
    if (!names.insert(parameter.name).second) fail("the arena got two parameters '", printable(parameter.name), "'");
    if (parameter.tensor.scalar_type() != at::kFloat) {
      fail("parameter '", printable(parameter.name), "' is not float32");
    }
    ArenaSlot slot;
    slot.name = std::move(parameter.name);
    slot.tensor = std::move(parameter.tensor);
    slot.segment = parameter.segment;
    slot.rounded = options.compute == at::kBFloat16 && !parameter.keep_float;
    slot.sizes = slot.tensor.sizes().vec();
    slot.strides = slot.tensor.is_non_overlapping_and_dense() ? slot.tensor.strides().vec()
                                                              : slot.tensor.contiguous().strides().vec();
    slot.count = slot.tensor.numel();
    slots.push_back(std::move(slot));
  }
  impl_ = std::make_unique<Impl>(std::move(slots), options);
  Impl& a = *impl_;
  a.take_over();
  a.grads = zeros_of(a.layout.trained, options.device);
  a.exp_avg = zeros_of(a.layout.own(a.layout.trained), options.device);
  a.exp_avg_sq = zeros_of(a.layout.own(a.layout.trained), options.device);
  if (options.ema) {
    a.averages = zeros_of(a.layout.own(a.layout.trained), options.device);
    reset_ema();
  }
  for (ArenaSlot& slot : a.layout.slots) {
    slot.tensor.set_requires_grad(slot.trained());
    // float32 also where the parameter is bfloat16: micro-steps add up in it.
    if (slot.trained()) slot.tensor.mutable_grad() = view_of(a.grads, slot, slot.offset);
  }
}

ParameterArena::~ParameterArena() = default;

bool ParameterArena::divided() const { return impl_->divided(); }

// The parts of all processes, in the memory of each: parts of a bucket lie beside each other.
void ParameterArena::Impl::share(const Shown& all) const {
  std::vector<std::unique_ptr<ProcessGroup::Pending>> pending;
  for (const Range& bucket : layout.buckets) {
    const bool rounded = bucket.first < layout.trained_rounded;
    const at::Tensor& values = rounded ? all.rounded : all.floats;
    const int64_t first = rounded ? bucket.first : bucket.first - layout.trained_rounded;
    pending.push_back(group->begin_all_gather(values.narrow(0, first, bucket.count), "exchange of weights"));
  }
  for (const auto& part : pending) part->wait();
}

// The first `numbers` elements of what is kept in parts, in host memory of rank 0; elsewhere undefined. It takes part
// in all collectives even when it has no room.
at::Tensor ParameterArena::Impl::whole(const at::Tensor& own, int64_t numbers) const {
  at::Tensor all;
  std::exception_ptr trouble;
  try {
    if (group->rank() == 0) all = zeros_of(layout.trained, at::kCPU);
  } catch (const std::exception&) {
    trouble = std::current_exception();
  }
  for (const Range& bucket : layout.buckets) {
    if (bucket.first >= numbers) break;
    const ArenaPiece piece = layout.own_piece(bucket);
    const at::Tensor values = at::empty({bucket.count}, own.options());
    values.narrow(0, piece.first - bucket.first, piece.count).copy_(own.narrow(0, piece.own, piece.count));
    group->begin_all_gather(values, "collection of the optimizer's parts")->wait();
    if (all.defined()) all.narrow(0, bucket.first, bucket.count).copy_(values);
  }
  if (trouble) std::rethrow_exception(trouble);
  return all;
}

at::Tensor ParameterArena::Impl::whole_weights() const {
  const at::Tensor all = whole(own_weights, layout.trained_rounded);
  if (all.defined()) {
    const at::Tensor floats = shown().floats;
    all.narrow(0, layout.trained_rounded, floats.numel()).copy_(floats);
  }
  return all;
}

// All parameters, the trained ones from a flat buffer; nothing without one.
std::vector<NamedTensor> ParameterArena::Impl::copies(const at::Tensor& trained) const {
  if (!trained.defined()) return {};
  return named("", false, [&](const ArenaSlot& slot) {
    return slot.trained() ? view_of(trained, slot, slot.offset)
                          : weights_at(slot).to(at::kCPU, at::kFloat, false, /*copy=*/true);
  });
}

// Of a flat buffer of all trained elements, those of this process.
void ParameterArena::Impl::keep_own(const at::Tensor& all, const at::Tensor& own) const {
  for (const ArenaPiece& piece : layout.pieces) {
    own.narrow(0, piece.own, piece.count).copy_(all.narrow(0, piece.first, piece.count));
  }
}

void ParameterArena::Impl::keep_weights(const at::Tensor& all) {
  for (const ArenaPiece& piece : layout.pieces) {
    if (piece.rounded) weights_of(piece).copy_(all.narrow(0, piece.first, piece.count));
  }
  const Shown to = shown();
  if (to.rounded.defined()) to.rounded.copy_(all.narrow(0, 0, layout.trained_rounded));
  to.floats.copy_(all.narrow(0, layout.trained_rounded, to.floats.numel()));
}

std::vector<NamedTensor> ParameterArena::weights() const {
  const c10::NoGradGuard no_grad;
  if (impl_->divided()) return impl_->copies(impl_->whole_weights());
  return impl_->named("", false, [this](const ArenaSlot& s) { return impl_->weights_at(s); });
}
std::vector<NamedTensor> ParameterArena::ema() const {
  const c10::NoGradGuard no_grad;
  if (!impl_->divided()) return impl_->named("", false, [this](const ArenaSlot& s) { return impl_->averaged(s); });
  return impl_->copies(impl_->averages.defined() ? impl_->whole(impl_->averages, impl_->layout.trained)
                                                 : impl_->whole_weights());
}
std::vector<NamedTensor> ParameterArena::gradients() const {
  return impl_->named("", true, [this](const ArenaSlot& s) { return view_of(impl_->grads, s, s.offset); });
}
std::vector<NamedTensor> ParameterArena::moments() const {
  const c10::NoGradGuard no_grad;
  std::vector<NamedTensor> out;
  const auto add = [&](const std::string& prefix, const at::Tensor& own) {
    const at::Tensor all = impl_->divided() ? impl_->whole(own, impl_->layout.trained) : own;
    if (!all.defined()) return;
    const auto named = impl_->named(prefix, true, [&](const ArenaSlot& s) { return view_of(all, s, s.offset); });
    out.insert(out.end(), named.begin(), named.end());
  };
  add("exp_avg.", impl_->exp_avg);
  add("exp_avg_sq.", impl_->exp_avg_sq);
  return out;
}

void ParameterArena::write(ArenaPart part, const std::function<void(const std::vector<NamedTensor>&)>& fill) {
  Impl& a = *impl_;
  const c10::NoGradGuard no_grad;
  if (!a.divided()) {
    fill(part == ArenaPart::kWeights ? weights() : part == ArenaPart::kEma ? ema() : moments());
  } else if (part == ArenaPart::kMoments) {
    const at::Tensor first = zeros_of(a.layout.trained, at::kCPU), second = zeros_of(a.layout.trained, at::kCPU);
    auto all = a.named("exp_avg.", true, [&](const ArenaSlot& s) { return view_of(first, s, s.offset); });
    const auto more = a.named("exp_avg_sq.", true, [&](const ArenaSlot& s) { return view_of(second, s, s.offset); });
    all.insert(all.end(), more.begin(), more.end());
    fill(all);
    a.keep_own(first, a.exp_avg);
    a.keep_own(second, a.exp_avg_sq);
  } else {
    const at::Tensor all = zeros_of(a.layout.trained, at::kCPU);
    fill(a.named("", false,
                 [&](const ArenaSlot& s) { return s.trained() ? view_of(all, s, s.offset) : a.weights_at(s); }));
    if (part == ArenaPart::kWeights) a.keep_weights(all);
    if (part == ArenaPart::kEma && a.averages.defined()) a.keep_own(all, a.averages);
  }
  if (part == ArenaPart::kWeights) a.round_slots();
}

std::vector<at::Tensor> ParameterArena::trained_parameters() const {
  std::vector<at::Tensor> out;
  for (const ArenaSlot& slot : impl_->layout.slots) {
    if (slot.trained()) out.push_back(slot.tensor);
  }
  return out;
}

std::vector<ParameterArena::Range> ParameterArena::trained_ranges() const {
  std::vector<Range> out;
  for (const ArenaSlot& slot : impl_->layout.slots) {
    if (slot.trained()) out.push_back({slot.offset, slot.count});
  }
  return out;
}

at::Tensor ParameterArena::flat_gradients() const { return impl_->grads; }

const std::vector<ParameterArena::Range>& ParameterArena::buckets() const { return impl_->layout.buckets; }

ParameterArena::Range ParameterArena::own_part(const Range& bucket) const {
  const ArenaPiece piece = impl_->layout.own_piece(bucket);
  return {piece.first, piece.count};
}

// Of what has its float32 weights here.
void ParameterArena::Impl::round_slots() {
  for (const ArenaSlot& slot : layout.slots) {
    if (slot.rounded && !(divided() && slot.trained())) computed_at(slot).copy_(weights_at(slot));
  }
}

void ParameterArena::weights_changed() {
  if (impl_->divided()) fail("weights_changed() is not for a divided arena: use write()");
  const c10::NoGradGuard no_grad;
  impl_->round_slots();
}

void ParameterArena::reset_ema() {
  const c10::NoGradGuard no_grad;
  if (!impl_->averages.defined()) return;
  for (const ArenaPiece& piece : impl_->layout.pieces) impl_->averages_of(piece).copy_(impl_->weights_of(piece));
}

void ParameterArena::weights_from_ema() {
  Impl& a = *impl_;
  const c10::NoGradGuard no_grad;
  if (!a.averages.defined()) return;
  for (const ArenaPiece& piece : a.layout.pieces) {
    a.weights_of(piece).copy_(a.averages_of(piece));
    if (piece.rounded) a.computed_of(piece).copy_(a.averages_of(piece));
  }
  if (a.divided()) a.share(a.shown());
}

void ParameterArena::zero_gradients() { impl_->grads.zero_(); }

at::Tensor ParameterArena::gradient_squares() const {
  const Impl& a = *impl_;
  if (!a.divided()) return ops::sum_of_squares_tensor(a.grads);
  const at::Tensor squares = at::zeros({1}, at::TensorOptions().dtype(at::kDouble).device(a.options.device));
  for (const ArenaPiece& piece : a.layout.pieces) {
    squares.add_(ops::sum_of_squares_tensor(a.grads.narrow(0, piece.first, piece.count)));
  }
  a.group->sum(squares, "norm of the gradients");
  return squares;
}

double ParameterArena::weight_norm() const {
  const Impl& a = *impl_;
  const ArenaLayout& l = a.layout;
  constexpr int64_t kAtATime = int64_t{1} << 20;
  double squares = 0;
  for (int64_t first = 0; first < l.trained_rounded; first += kAtATime) {
    squares +=
        ops::sum_of_squares(a.compute.narrow(0, first, std::min(kAtATime, l.trained_rounded - first)).to(at::kFloat));
  }
  const int64_t skipped = l.trained_rounded - a.first_float;
  return std::sqrt(squares + ops::sum_of_squares(a.weights.narrow(0, skipped, a.weights.numel() - skipped)));
}

void ParameterArena::update(const ops::AdamSettings& settings, const ops::DeviceClip* clip) {
  Impl& a = *impl_;
  if (a.ema_in_use) fail("a step was made while the averaged weights are in use");
#ifndef NDEBUG
  check_aliasing();
#endif
  const c10::NoGradGuard no_grad;
  for (const ArenaPiece& piece : a.layout.pieces) {
    const ops::OptimizerBuffers buffers = {a.weights_of(piece),
                                           a.grads.narrow(0, piece.first, piece.count),
                                           a.exp_avg.narrow(0, piece.own, piece.count),
                                           a.exp_avg_sq.narrow(0, piece.own, piece.count),
                                           a.averages_of(piece),
                                           a.computed_of(piece)};
    clip != nullptr ? ops::adamw_ema_step(buffers, settings, *clip) : ops::adamw_ema_step(buffers, settings);
  }
  if (a.divided()) a.share(a.shown());
}

// For all averages, in what the module computes in.
Shown ParameterArena::Impl::room_for_averages() const {
  Shown room;
  std::exception_ptr trouble;
  try {
    const Shown like = shown();
    if (like.rounded.defined()) room.rounded = at::empty_like(like.rounded);
    room.floats = at::empty_like(like.floats);
  } catch (const std::exception&) {
    trouble = std::current_exception();
  }
  const at::Tensor failed =
      at::full({1}, trouble ? 1.0 : 0.0, at::TensorOptions().dtype(at::kDouble).device(options.device));
  group->sum(failed, "room for averaged weights");
  if (trouble) std::rethrow_exception(trouble);
  if (failed.item<double>() > 0) fail("another process has no room for the averaged weights");
  return room;
}

ParameterArena::UseEma::UseEma(ParameterArena& arena) : arena_(arena) {
  Impl& a = *arena_.impl_;
  if (!a.averages.defined()) fail("the arena keeps no averaged weights");
  if (a.ema_in_use) fail("the averaged weights are in use already");
  const c10::NoGradGuard no_grad;
  Shown room;
  if (a.divided()) {
    room = a.room_for_averages();
    for (const ArenaPiece& piece : a.layout.pieces) {
      const at::Tensor& to = piece.rounded ? room.rounded : room.floats;
      to.narrow(0, piece.rounded ? piece.first : piece.first - a.layout.trained_rounded, piece.count)
          .copy_(a.averages_of(piece));
    }
    a.share(room);
  }
  a.ema_in_use = true;
  for (ArenaSlot& slot : a.layout.slots) {
    if (!slot.trained()) continue;
    if (a.divided()) {
      slot.tensor.set_data(slot.rounded ? view_of(room.rounded, slot, slot.offset)
                                        : view_of(room.floats, slot, slot.offset - a.layout.trained_rounded));
    } else if (slot.rounded) {
      a.computed_at(slot).copy_(a.averaged(slot));
    } else {
      slot.tensor.set_data(a.averaged(slot));
    }
  }
}

ParameterArena::UseEma::~UseEma() {
  Impl& a = *arena_.impl_;
  const c10::NoGradGuard no_grad;
  for (ArenaSlot& slot : a.layout.slots) {
    if (slot.trained() && (a.divided() || !slot.rounded)) slot.tensor.set_data(a.own_values(slot));
  }
  if (!a.divided()) a.round_slots();
  a.ema_in_use = false;
}

void ParameterArena::check_aliasing() const {
  const Impl& a = *impl_;
  for (const ArenaSlot& slot : a.layout.slots) {
    if (a.ema_in_use && a.divided() && slot.trained()) continue;
    const at::Tensor own = a.ema_in_use && slot.trained() && !slot.rounded ? a.averaged(slot) : a.own_values(slot);
    if (slot.tensor.const_data_ptr() != own.const_data_ptr() || slot.tensor.strides() != own.strides()) {
      fail("parameter '", printable(slot.name), "' has left the arena: something re-allocated it");
    }
    if (!slot.trained()) continue;
    const at::Tensor gradient = view_of(a.grads, slot, slot.offset);
    if (!slot.tensor.grad().defined() || slot.tensor.grad().const_data_ptr() != gradient.const_data_ptr() ||
        slot.tensor.grad().strides() != gradient.strides()) {
      fail("the gradient of parameter '", printable(slot.name), "' has left the arena: something replaced it");
    }
  }
}

int64_t ParameterArena::numbers() const {
  int64_t count = 0;
  for (const ArenaSlot& slot : impl_->layout.slots) count += slot.count;
  return count;
}

ParameterArena::Bytes ParameterArena::bytes() const {
  const Impl& a = *impl_;
  const auto size = [](const at::Tensor& buffer) { return buffer.defined() ? buffer.nbytes() : 0; };
  Bytes out;
  out.weights = size(a.weights) + size(a.own_weights) + size(a.compute);
  out.gradients = size(a.grads);
  out.moments = size(a.exp_avg) + size(a.exp_avg_sq);
  out.ema = size(a.averages);
  return out;
}

int64_t ParameterArena::trained_numbers() const {
  int64_t count = 0;
  for (const ArenaSlot& slot : impl_->layout.slots) count += slot.trained() ? slot.count : 0;
  return count;
}

}  // namespace mdm
