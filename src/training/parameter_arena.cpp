#include "mdm/training/parameter_arena.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "mdm/core/error.h"

namespace mdm {

// One parameter's place.
struct ArenaSlot {
  std::string name;
  at::Tensor tensor;  // the module's own
  ArenaSegment segment = ArenaSegment::kTrained;
  bool rounded = false;  // computes in bfloat16
  std::vector<int64_t> sizes, strides;
  int64_t count = 0;
  int64_t offset = 0;          // in the buffers of float32
  int64_t compute_offset = 0;  // in that of bfloat16

  bool trained() const { return segment == ArenaSegment::kTrained; }
};

namespace {

// Slots begin at multiples of 64 bytes in every buffer, bfloat16 ones too.
constexpr int64_t kSlotAlignment = 32;

int64_t aligned(int64_t count) { return (count + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment; }

// Trained parameters come first, of these the rounded ones: a step then is one or two ranges.
int order_of(const ArenaSlot& slot) {
  if (slot.trained()) return slot.rounded ? 0 : 1;
  return slot.segment == ArenaSegment::kFrozen ? 2 : 3;
}

at::Tensor zeros_of(int64_t count, at::Device device) {
  return at::zeros({count}, at::TensorOptions().dtype(at::kFloat).device(device));
}

// A view of a slot. variable_data() gives it a version counter of its own: without that, writing to one
// parameter would count as a change of all others.
at::Tensor view_of(const at::Tensor& flat, const ArenaSlot& slot, int64_t offset) {
  return at::as_strided(flat, slot.sizes, slot.strides, offset).variable_data();
}

}  // namespace

struct ParameterArena::Impl {
  std::vector<ArenaSlot> slots;   // in the caller's order
  std::vector<size_t> placement;  // indices of slots, in the order in which they lie in the buffers
  int64_t total = 0;              // numbers in all slots with padding
  int64_t trained = 0;            // ... in those of trained parameters, which come first
  int64_t trained_rounded = 0;    // ... in those of trained parameters that compute in bfloat16, the first of these
  int64_t rounded = 0;            // size of `compute`
  bool ema_in_use = false;
  at::Tensor weights;                               // (total)
  at::Tensor grads, exp_avg, exp_avg_sq, averages;  // (trained)
  at::Tensor compute;                               // (rounded) bfloat16

  void place();
  void take_over(at::Device device);
  at::Tensor own_values(const ArenaSlot& slot) const {  // what the module computes with
    return slot.rounded ? view_of(compute, slot, slot.compute_offset) : view_of(weights, slot, slot.offset);
  }
  at::Tensor averaged(const ArenaSlot& slot) const {
    return view_of(averages.defined() && slot.trained() ? averages : weights, slot, slot.offset);
  }
  template <typename Values>
  std::vector<NamedTensor> named(const std::string& prefix, bool trained_only, const Values& values) const {
    std::vector<NamedTensor> out;
    for (const ArenaSlot& slot : slots) {
      if (!trained_only || slot.trained()) out.push_back({prefix + slot.name, values(slot)});
    }
    return out;
  }
};

void ParameterArena::Impl::place() {
  for (size_t i = 0; i < slots.size(); ++i) placement.push_back(i);
  std::stable_sort(placement.begin(), placement.end(),
                   [this](size_t a, size_t b) { return order_of(slots[a]) < order_of(slots[b]); });
  for (const size_t i : placement) {
    ArenaSlot& slot = slots[i];
    const int64_t room = aligned(slot.count);
    slot.offset = total;
    total += room;
    if (slot.rounded) {
      slot.compute_offset = rounded;
      rounded += room;
    }
    if (slot.trained()) trained = total;
    if (slot.trained() && slot.rounded) trained_rounded = total;
  }
}

// Copies each parameter into its slot and frees the parameter's own memory, one after the other.
void ParameterArena::Impl::take_over(at::Device device) {
  weights = at::empty({total}, at::TensorOptions().dtype(at::kFloat).device(device));
  if (rounded > 0) {
    compute = at::empty({rounded}, at::TensorOptions().dtype(at::kBFloat16).device(device));
  }
  for (const size_t i : placement) {
    ArenaSlot& slot = slots[i];
    weights.narrow(0, slot.offset, aligned(slot.count)).narrow(0, slot.count, aligned(slot.count) - slot.count).zero_();
    view_of(weights, slot, slot.offset).copy_(slot.tensor.detach());
    if (slot.rounded) {
      at::Tensor room = compute.narrow(0, slot.compute_offset, aligned(slot.count));
      room.copy_(weights.narrow(0, slot.offset, aligned(slot.count)));
    }
    slot.tensor.set_data(own_values(slot));
  }
}

ParameterArena::ParameterArena(std::vector<ArenaParameter> parameters, const Options& options)
    : impl_(std::make_unique<Impl>()) {
  const c10::NoGradGuard no_grad;
  std::unordered_set<std::string> names;
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
    impl_->slots.push_back(std::move(slot));
  }
  impl_->place();
  impl_->take_over(options.device);
  impl_->grads = zeros_of(impl_->trained, options.device);
  impl_->exp_avg = zeros_of(impl_->trained, options.device);
  impl_->exp_avg_sq = zeros_of(impl_->trained, options.device);
  if (options.ema) impl_->averages = impl_->weights.narrow(0, 0, impl_->trained).clone();
  for (ArenaSlot& slot : impl_->slots) {
    slot.tensor.set_requires_grad(slot.trained());
    // float32 also where the parameter is bfloat16: micro-steps add up in it.
    if (slot.trained()) slot.tensor.mutable_grad() = view_of(impl_->grads, slot, slot.offset);
  }
}

ParameterArena::~ParameterArena() = default;

std::vector<NamedTensor> ParameterArena::weights() const {
  return impl_->named("", false, [this](const ArenaSlot& s) { return view_of(impl_->weights, s, s.offset); });
}
std::vector<NamedTensor> ParameterArena::ema() const {
  return impl_->named("", false, [this](const ArenaSlot& s) { return impl_->averaged(s); });
}
std::vector<NamedTensor> ParameterArena::gradients() const {
  return impl_->named("", true, [this](const ArenaSlot& s) { return view_of(impl_->grads, s, s.offset); });
}
std::vector<NamedTensor> ParameterArena::moments() const {
  auto out =
      impl_->named("exp_avg.", true, [this](const ArenaSlot& s) { return view_of(impl_->exp_avg, s, s.offset); });
  auto squares =
      impl_->named("exp_avg_sq.", true, [this](const ArenaSlot& s) { return view_of(impl_->exp_avg_sq, s, s.offset); });
  out.insert(out.end(), squares.begin(), squares.end());
  return out;
}

std::vector<at::Tensor> ParameterArena::trained_parameters() const {
  std::vector<at::Tensor> out;
  for (const ArenaSlot& slot : impl_->slots) {
    if (slot.trained()) out.push_back(slot.tensor);
  }
  return out;
}

std::vector<ParameterArena::Range> ParameterArena::trained_ranges() const {
  std::vector<Range> out;
  for (const ArenaSlot& slot : impl_->slots) {
    if (slot.trained()) out.push_back({slot.offset, slot.count});
  }
  return out;
}

at::Tensor ParameterArena::flat_gradients() const { return impl_->grads; }

void ParameterArena::weights_changed() {
  const c10::NoGradGuard no_grad;
  for (const ArenaSlot& slot : impl_->slots) {
    if (slot.rounded)
      view_of(impl_->compute, slot, slot.compute_offset).copy_(view_of(impl_->weights, slot, slot.offset));
  }
}

void ParameterArena::reset_ema() {
  const c10::NoGradGuard no_grad;
  if (impl_->averages.defined()) impl_->averages.copy_(impl_->weights.narrow(0, 0, impl_->trained));
}

void ParameterArena::weights_from_ema() {
  const c10::NoGradGuard no_grad;
  if (impl_->averages.defined()) impl_->weights.narrow(0, 0, impl_->trained).copy_(impl_->averages);
  weights_changed();
}

void ParameterArena::zero_gradients() { impl_->grads.zero_(); }

double ParameterArena::gradient_norm() const { return std::sqrt(ops::sum_of_squares(impl_->grads)); }

double ParameterArena::weight_norm() const { return std::sqrt(ops::sum_of_squares(impl_->weights)); }

void ParameterArena::update(const ops::AdamSettings& settings) {
  Impl& a = *impl_;
  if (a.ema_in_use) fail("a step was made while the averaged weights are in use");
#ifndef NDEBUG
  check_aliasing();
#endif
  const c10::NoGradGuard no_grad;
  const ops::OptimizerBuffers all{a.weights.narrow(0, 0, a.trained), a.grads, a.exp_avg, a.exp_avg_sq, a.averages, {}};
  if (a.trained_rounded > 0) {
    ops::OptimizerBuffers rounded = all.narrow(0, a.trained_rounded);
    rounded.compute = a.compute.narrow(0, 0, a.trained_rounded);
    ops::adamw_ema_step(rounded, settings);
  }
  if (a.trained > a.trained_rounded) {
    ops::adamw_ema_step(all.narrow(a.trained_rounded, a.trained - a.trained_rounded), settings);
  }
}

ParameterArena::UseEma::UseEma(ParameterArena& arena) : arena_(arena) {
  Impl& a = *arena_.impl_;
  if (!a.averages.defined()) fail("the arena keeps no averaged weights");
  if (a.ema_in_use) fail("the averaged weights are in use already");
  const c10::NoGradGuard no_grad;
  a.ema_in_use = true;
  for (ArenaSlot& slot : a.slots) {
    if (!slot.trained()) continue;
    if (slot.rounded) {
      view_of(a.compute, slot, slot.compute_offset).copy_(a.averaged(slot));
    } else {
      slot.tensor.set_data(a.averaged(slot));
    }
  }
}

ParameterArena::UseEma::~UseEma() {
  Impl& a = *arena_.impl_;
  const c10::NoGradGuard no_grad;
  for (ArenaSlot& slot : a.slots) {
    if (slot.trained() && !slot.rounded) slot.tensor.set_data(a.own_values(slot));
  }
  arena_.weights_changed();
  a.ema_in_use = false;
}

void ParameterArena::check_aliasing() const {
  const Impl& a = *impl_;
  for (const ArenaSlot& slot : a.slots) {
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
  for (const ArenaSlot& slot : impl_->slots) count += slot.count;
  return count;
}

int64_t ParameterArena::trained_numbers() const {
  int64_t count = 0;
  for (const ArenaSlot& slot : impl_->slots) count += slot.trained() ? slot.count : 0;
  return count;
}

}  // namespace mdm
