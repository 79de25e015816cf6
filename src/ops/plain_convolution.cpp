#include "ops/plain_convolution.h"

#include <ATen/core/ivalue.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>
#include <vector>

#include "mdm/core/error.h"

namespace mdm::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A 1x1 convolution of channels_last images is a product of matrices, whose backward pass is faster where there are
// many channels and the numbers are bfloat16 (measured; in float32, or with few channels, it is not).
bool is_product(const at::Tensor& x, const at::Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding) {
  constexpr int64_t kLeastWeights = 1 << 18;
  return weight.size(2) == 1 && stride[0] == 1 && padding[0] == 0 && weight.numel() >= kLeastWeights &&
         x.scalar_type() == at::kBFloat16 && x.is_contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor matrix(const at::Tensor& weight) { return weight.view({weight.size(0), weight.size(1)}); }

// (B, C, H, W) -> (B H W, C); a view when x is channels_last.
at::Tensor rows(const at::Tensor& x) { return x.permute({0, 2, 3, 1}).reshape({-1, x.size(1)}); }

constexpr int64_t kPartChannels = 768;

// oneDNN makes the weight's gradient in bfloat16 at a third of its speed where small images have many channels
// (measured for 16x16 and 3x3 taps: 225 GFLOP/s from 1280 channels, 308 from 1536, and 620 from 768 or fewer).
bool gains_from_parts(const at::Tensor& x, const at::Tensor& weight) {
  return x.is_cpu() && x.scalar_type() == at::kBFloat16 && weight.size(1) > kPartChannels && weight.size(2) > 1 &&
         x.size(2) * x.size(3) <= 256;
}

// Gradients of the weight and, if wanted, of the bias. (LibTorch makes the one along with the other.)
std::pair<at::Tensor, at::Tensor> gradients_in_parts(const at::Tensor& x, const at::Tensor& weight,
                                                     const at::Tensor& bias, at::IntArrayRef stride,
                                                     at::IntArrayRef padding, const at::Tensor& dy, bool of_bias) {
  std::vector<at::Tensor> parts;
  at::Tensor dbias;
  for (int64_t first = 0; first < x.size(1); first += kPartChannels) {
    const int64_t count = std::min(kPartChannels, x.size(1) - first);
    const auto part = [&](const at::Tensor& t) {
      return t.narrow(1, first, count).contiguous(t.suggest_memory_format());
    };
    at::Tensor dweight, sum;
    std::tie(std::ignore, dweight, sum) =
        at::convolution_backward(dy, part(x), part(weight), bias.sizes(), stride, padding, {1, 1}, false, {0, 0}, 1,
                                 {false, true, of_bias && first == 0});
    if (first == 0) dbias = sum;
    parts.push_back(dweight);
  }
  return {at::cat(parts, 1), dbias};
}

// Gradients of x, weight and bias, undefined where `wanted` doesn't ask for one.
using Wanted = std::array<bool, 3>;

std::array<at::Tensor, 3> gradients_of_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& dy,
                                               const Wanted& wanted) {
  std::array<at::Tensor, 3> out;
  const at::Tensor dy_rows = rows(dy);
  if (wanted[0]) {
    out[0] = dy_rows.mm(matrix(weight)).view({x.size(0), x.size(2), x.size(3), x.size(1)}).permute({0, 3, 1, 2});
  }
  if (wanted[1]) out[1] = dy_rows.t().mm(rows(x)).view(weight.sizes());
  if (wanted[2]) out[2] = dy_rows.sum(0);
  return out;
}

std::array<at::Tensor, 3> gradients_of(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                       at::IntArrayRef stride, at::IntArrayRef padding, const at::Tensor& dy,
                                       const Wanted& wanted) {
  if (is_product(x, weight, stride, padding)) return gradients_of_product(x, weight, dy, wanted);
  std::array<at::Tensor, 3> out;
  const bool in_parts = wanted[1] && gains_from_parts(x, weight);
  if (in_parts) std::tie(out[1], out[2]) = gradients_in_parts(x, weight, bias, stride, padding, dy, wanted[2]);
  const Wanted left = in_parts ? Wanted{wanted[0], false, false} : wanted;
  if (left == Wanted{}) return out;
  const auto rest =
      at::convolution_backward(dy, x, weight, bias.sizes(), stride, padding, {1, 1}, false, {0, 0}, 1, left);
  out[0] = std::get<0>(rest);
  if (!in_parts) std::tie(std::ignore, out[1], out[2]) = rest;
  return out;
}

// What a call needs beside its tensors.
struct ConvolutionCall : torch::CustomClassHolder {
  Recomputable::Maker make;
  std::vector<int64_t> stride, padding;
};

// Gradients of those of `from` that ask for one, undefined for the others, of the tensor that was made of them. All
// three are let go as soon as they have served: what is alive here adds to the most that a training step holds.
variable_list gradients_of_made(const variable_list& from, at::Tensor made, at::Tensor gradient) {
  variable_list out(from.size());
  if (!made.requires_grad()) return out;
  const torch::autograd::edge_list roots = {torch::autograd::impl::gradient_edge(made)};
  made.reset();
  torch::autograd::edge_list leaves;
  for (const at::Tensor& t : from) {
    if (t.requires_grad()) leaves.push_back(torch::autograd::impl::gradient_edge(t));
  }
  variable_list found =
      torch::autograd::Engine::get_default_engine().execute(roots, {std::move(gradient)}, /*keep_graph=*/false,
                                                            /*create_graph=*/false, /*accumulate_grad=*/false, leaves);
  size_t next = 0;
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i].requires_grad()) out[i] = std::move(found[next++]);
  }
  return out;
}

struct RecomputedConvolution : torch::autograd::Function<RecomputedConvolution> {
  // `tensors`: what the input is made of, then weight and bias.
  static at::Tensor forward(AutogradContext* context, const c10::intrusive_ptr<ConvolutionCall>& call,
                            at::TensorList tensors) {
    context->save_for_backward(tensors.vec());
    context->set_materialize_grads(false);
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    const at::TensorList from = tensors.slice(0, tensors.size() - 2);
    return plain_convolution(call->make(from), tensors[tensors.size() - 2], tensors.back(), call->stride,
                             call->padding);
  }

  static variable_list backward(AutogradContext* context, variable_list& gradients) {
    if (c10::GradMode::is_enabled()) fail("a convolution of a recomputed input has no second derivative");
    const auto holder = context->saved_data["call"].toCapsule();
    const auto& call = static_cast<const ConvolutionCall&>(*holder);
    variable_list from = context->get_saved_variables();
    variable_list out(from.size() + 1);  // the first: of the call itself
    if (!gradients[0].defined()) return out;
    const size_t weight_at = from.size() - 2, bias_at = from.size() - 1;
    const at::Tensor weight = std::move(from[weight_at]), bias = std::move(from[bias_at]);
    from.resize(weight_at);

    bool any = false;
    for (size_t i = 0; i < from.size(); ++i) {
      const bool wanted = context->needs_input_grad(i);
      from[i] = from[i].detach().set_requires_grad(wanted);
      any = any || wanted;
    }
    at::Tensor x;
    {
      const c10::AutoGradMode record(true);
      x = call.make(from);
    }
    std::array<at::Tensor, 3> found = gradients_of(
        x.detach(), weight, bias, call.stride, call.padding, gradients[0],
        {any && x.requires_grad(), context->needs_input_grad(weight_at), context->needs_input_grad(bias_at)});
    gradients.clear();
    out[1 + weight_at] = std::move(found[1]);
    out[1 + bias_at] = std::move(found[2]);
    variable_list inner = gradients_of_made(from, std::move(x), std::move(found[0]));
    std::move(inner.begin(), inner.end(), out.begin() + 1);
    return out;
  }
};

}  // namespace

at::Tensor plain_convolution(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             at::IntArrayRef stride, at::IntArrayRef padding) {
  if (is_product(x, weight, stride, padding)) {
    return at::linear(x.permute({0, 2, 3, 1}), matrix(weight), bias).permute({0, 3, 1, 2});
  }
  return at::conv2d(x, weight, bias, stride, padding);
}

at::Tensor plain_convolution(const Recomputable& x, const at::Tensor& weight, const at::Tensor& bias,
                             at::IntArrayRef stride, at::IntArrayRef padding) {
  auto call = c10::make_intrusive<ConvolutionCall>();
  call->make = x.maker();
  call->stride = stride.vec();
  call->padding = padding.vec();
  std::vector<at::Tensor> tensors = x.from();
  tensors.push_back(weight);
  tensors.push_back(bias);
  return RecomputedConvolution::apply(call, at::TensorList(tensors));
}

}  // namespace mdm::ops
