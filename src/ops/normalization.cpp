// group_norm: the composition that defines it, and the choice of a faster back end.
#include "mdm/ops/normalization.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/silu.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <utility>
#include <vector>

#include "ops/group_norm_cpu.h"
#if MDM_HAS_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/group_norm_cuda.h"
#endif

namespace mdm::ops {
namespace {

constexpr double kGroupNormEpsilon = 1e-5;

// (B, C) -> (B, C, 1, 1), so that it broadcasts over the positions.
at::Tensor over_positions(const at::Tensor& t) { return t.unsqueeze(-1).unsqueeze(-1); }

bool needs_gradient(const at::Tensor& t) { return t.defined() && t.requires_grad(); }

// float32 (B, C) rows for the kernel, made contiguous; undefined stays undefined.
at::Tensor modulation_rows(const at::Tensor& t) { return t.defined() ? t.to(at::kFloat).contiguous() : t; }

// An autograd function takes no undefined tensors.
std::optional<at::Tensor> optional_of(const at::Tensor& t) { return t.defined() ? std::optional(t) : std::nullopt; }
at::Tensor or_undefined(const std::optional<at::Tensor>& t) { return t.value_or(at::Tensor()); }

// One call of the kernels, on the CPU or, in a build with CUDA, on the device that x is on.
class KernelCall {
 public:
  KernelCall(const at::Tensor& x, int64_t groups, const at::Tensor& weight, const at::Tensor& bias,
             const at::Tensor& scale, const at::Tensor& shift, bool silu)
      : scale_(modulation_rows(scale)), shift_(modulation_rows(shift)) {
    arguments_.batch = x.size(0);
    arguments_.positions = x.size(2) * x.size(3);
    arguments_.channels = weight.size(0);
    arguments_.groups = groups;
    arguments_.epsilon = kGroupNormEpsilon;
    arguments_.weight = weight.const_data_ptr<float>();
    arguments_.bias = bias.const_data_ptr<float>();
    arguments_.scale = scale.defined() ? scale_.const_data_ptr<float>() : nullptr;
    arguments_.shift = scale.defined() ? shift_.const_data_ptr<float>() : nullptr;
    arguments_.silu = silu;
  }

  // The result, and the statistics that backward() needs. `rest`: further channels, or undefined.
  std::pair<at::Tensor, at::Tensor> forward(const at::Tensor& x, const at::Tensor& rest = {}) const {
    at::Tensor y =
        at::empty({x.size(0), arguments_.channels, x.size(2), x.size(3)}, x.options(), at::MemoryFormat::ChannelsLast);
    at::Tensor statistics = at::empty({arguments_.batch, arguments_.groups, 2}, x.options().dtype(at::kDouble));
    auto* kept = statistics.mutable_data_ptr<double>();
#if MDM_HAS_CUDA
    if (x.is_cuda()) {
      const c10::cuda::CUDAGuard guard(x.device());
      const at::Tensor work = workspace(x);
      group_norm_cuda(arguments_, type_of(x), x.const_data_ptr(), y.mutable_data_ptr(), kept,
                      work.mutable_data_ptr<float>(), c10::cuda::getCurrentCUDAStream());
      return {y, statistics};
    }
#endif
    if (x.scalar_type() == at::kFloat) {
      const float* more = rest.defined() ? rest.const_data_ptr<float>() : nullptr;
      group_norm_channels_last(arguments_, {x.const_data_ptr<float>(), more, x.size(1)}, y.mutable_data_ptr<float>(),
                               kept);
    } else {
      const uint16_t* more = rest.defined() ? bits(rest) : nullptr;
      group_norm_channels_last_bf16(arguments_, {bits(x), more, x.size(1)},
                                    static_cast<uint16_t*>(y.mutable_data_ptr()), kept);
    }
    return {y, statistics};
  }

  // Gradients of x, weight, bias, scale, shift (the last two undefined without modulation).
  std::vector<at::Tensor> backward(const at::Tensor& x, const at::Tensor& statistics, const at::Tensor& dy) const {
    const at::Tensor gradient = dy.to(x.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
    const auto rows = x.options().dtype(at::kFloat).memory_format(at::MemoryFormat::Contiguous);
    std::vector<at::Tensor> out = {at::empty_like(x), at::empty({arguments_.channels}, rows),
                                   at::empty({arguments_.channels}, rows), at::Tensor(), at::Tensor()};
    GroupNormGradients parameters;
    parameters.weight = out[1].mutable_data_ptr<float>();
    parameters.bias = out[2].mutable_data_ptr<float>();
    if (arguments_.scale != nullptr) {
      out[3] = at::empty({arguments_.batch, arguments_.channels}, rows);
      out[4] = at::empty({arguments_.batch, arguments_.channels}, rows);
      parameters.scale = out[3].mutable_data_ptr<float>();
      parameters.shift = out[4].mutable_data_ptr<float>();
    }
    const auto* kept = statistics.const_data_ptr<double>();
#if MDM_HAS_CUDA
    if (x.is_cuda()) {
      const c10::cuda::CUDAGuard guard(x.device());
      const at::Tensor work = workspace(x);
      group_norm_backward_cuda(arguments_, type_of(x), kept, x.const_data_ptr(), gradient.const_data_ptr(),
                               out[0].mutable_data_ptr(), parameters, work.mutable_data_ptr<float>(),
                               c10::cuda::getCurrentCUDAStream());
      return out;
    }
#endif
    if (x.scalar_type() == at::kFloat) {
      group_norm_backward_channels_last(arguments_, kept, x.const_data_ptr<float>(), gradient.const_data_ptr<float>(),
                                        out[0].mutable_data_ptr<float>(), parameters);
    } else {
      group_norm_backward_channels_last_bf16(arguments_, kept, bits(x), bits(gradient),
                                             static_cast<uint16_t*>(out[0].mutable_data_ptr()), parameters);
    }
    return out;
  }

 private:
#if MDM_HAS_CUDA
  static GroupNormType type_of(const at::Tensor& x) {
    return x.scalar_type() == at::kFloat ? GroupNormType::kFloat : GroupNormType::kBFloat16;
  }
  at::Tensor workspace(const at::Tensor& x) const {
    return at::empty({group_norm_cuda_workspace(arguments_, type_of(x))},
                     at::TensorOptions().device(x.device()).dtype(at::kFloat));
  }
#endif
  static const uint16_t* bits(const at::Tensor& t) { return static_cast<const uint16_t*>(t.const_data_ptr()); }

  at::Tensor scale_, shift_;
  GroupNormArguments arguments_;
};

// Keeps x and the statistics, and computes all else again, where the composition holds four tensors like x.
struct GroupNormFunction : torch::autograd::Function<GroupNormFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, int64_t groups,
                            const at::Tensor& weight, const at::Tensor& bias, const std::optional<at::Tensor>& scale,
                            const std::optional<at::Tensor>& shift, bool silu) {
    const auto [y, statistics] =
        KernelCall(x, groups, weight, bias, or_undefined(scale), or_undefined(shift), silu).forward(x);
    context->save_for_backward({x, weight, bias, or_undefined(scale), or_undefined(shift), statistics});
    context->saved_data["groups"] = groups;
    context->saved_data["silu"] = silu;
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &scale = saved[3], &shift = saved[4];
    const KernelCall call(x, context->saved_data["groups"].toInt(), saved[1], saved[2], scale, shift,
                          context->saved_data["silu"].toBool());
    std::vector<at::Tensor> out = call.backward(x, saved[5], gradients[0]);
    if (scale.defined()) {
      out[3] = out[3].to(scale.scalar_type());
      out[4] = out[4].to(shift.scalar_type());
    }
    return {out[0], at::Tensor(), out[1], out[2], out[3], out[4], at::Tensor()};
  }
};

}  // namespace

at::Tensor group_norm_composition(const at::Tensor& x, int64_t groups, const at::Tensor& weight, const at::Tensor& bias,
                                  const at::Tensor& scale, const at::Tensor& shift, bool silu) {
  // Only LibTorch's CPU kernel takes a bfloat16 input with float32 parameters.
  const bool cast = !x.is_cpu() && weight.scalar_type() != x.scalar_type();
  at::Tensor y = at::group_norm(x, groups, cast ? weight.to(x.scalar_type()) : weight,
                                cast ? bias.to(x.scalar_type()) : bias, kGroupNormEpsilon);
  if (scale.defined()) y = y * (1 + over_positions(scale)) + over_positions(shift);
  return (silu ? at::silu(y) : y).to(x.scalar_type());
}

namespace {

// Where there are kernels.
bool suits_device(const at::Tensor& x) {
#if MDM_HAS_CUDA
  if (x.is_cuda()) return x.storage_offset() * x.element_size() % 16 == 0;  // they read 16 bytes at a time
#endif
  return x.is_cpu();
}

bool suits_kernel(const at::Tensor& x) {
  return suits_device(x) && x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast) && x.numel() > 0 &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

bool suits_kernel(const at::Tensor& weight, const at::Tensor& bias) {
  return weight.scalar_type() == at::kFloat && weight.is_contiguous() && bias.is_contiguous();
}

}  // namespace

at::Tensor group_norm(const at::Tensor& x, int64_t groups, const at::Tensor& weight, const at::Tensor& bias,
                      const at::Tensor& scale, const at::Tensor& shift, bool silu) {
  const bool gradient =
      c10::GradMode::is_enabled() && (needs_gradient(x) || needs_gradient(weight) || needs_gradient(bias) ||
                                      needs_gradient(scale) || needs_gradient(shift));
  if (!suits_kernel(x) || !suits_kernel(weight, bias)) {
    return group_norm_composition(x, groups, weight, bias, scale, shift, silu);
  }
  if (gradient) {
    return GroupNormFunction::apply(x, groups, weight, bias, optional_of(scale), optional_of(shift), silu);
  }
  RECORD_FUNCTION("mdm::group_norm", std::vector<c10::IValue>({x}));
  return KernelCall(x, groups, weight, bias, scale, shift, silu).forward(x).first;
}

at::Tensor group_norm_of_joined(const at::Tensor& x, const at::Tensor& rest, int64_t groups, const at::Tensor& weight,
                                const at::Tensor& bias, bool silu) {
  const bool gradient = c10::GradMode::is_enabled() &&
                        (needs_gradient(x) || needs_gradient(rest) || needs_gradient(weight) || needs_gradient(bias));
  if (gradient || !x.is_cpu() || !suits_kernel(x) || !suits_kernel(rest) || !suits_kernel(weight, bias) ||
      x.scalar_type() != rest.scalar_type()) {
    return group_norm(at::cat({x, rest}, 1), groups, weight, bias, {}, {}, silu);
  }
  RECORD_FUNCTION("mdm::group_norm", std::vector<c10::IValue>({x, rest}));
  return KernelCall(x, groups, weight, bias, {}, {}, silu).forward(x, rest).first;
}

}  // namespace mdm::ops
