#include "ops/onednn.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include "ops/instructions.h"

namespace mdm::ops::onednn {
namespace {

using Text = c10::string_view;
using OptionalText = std::optional<c10::string_view>;
using OptionalTensor = std::optional<at::Tensor>;
using Scalars = c10::List<std::optional<at::Scalar>>;

template <typename Signature>
auto operation(const char* name, const char* overload = "") {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).typed<Signature>();
}

OptionalTensor defined_only(const at::Tensor& t) { return t.defined() ? OptionalTensor(t) : std::nullopt; }

// oneDNN has bfloat16 from AVX-512 on. Without it weights are packed in float32, and what they meet is converted.
at::Tensor packable(const at::Tensor& weight) {
  const bool widened = weight.scalar_type() == at::kBFloat16 && best_instructions() != Instructions::kAvx512;
  return widened ? weight.to(at::kFloat) : weight;
}

at::Tensor as_packed(const at::Tensor& t, const at::Tensor& packed) {
  return t.defined() ? t.to(packed.scalar_type()) : t;
}

}  // namespace

at::Tensor pack_convolution(const at::Tensor& weight, at::IntArrayRef padding, at::IntArrayRef stride,
                            at::IntArrayRef input_size) {
  static const auto op = operation<at::Tensor(const at::Tensor&, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef,
                                              int64_t, at::OptionalIntArrayRef)>("mkldnn::_reorder_convolution_weight");
  return op.call(packable(weight), padding, stride, {1, 1}, 1, input_size);
}

at::Tensor pack_linear(const at::Tensor& weight, int64_t rows) {
  static const auto op =
      operation<at::Tensor(const at::Tensor&, std::optional<c10::SymInt>)>("mkldnn::_reorder_linear_weight");
  return op.call(packable(weight), c10::SymInt(rows));
}

at::Tensor convolution(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias, at::IntArrayRef padding,
                       at::IntArrayRef stride, After after) {
  static const auto op =
      operation<at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&, at::IntArrayRef,
                           at::IntArrayRef, at::IntArrayRef, int64_t, Text, Scalars, OptionalText)>(
          "mkldnn::_convolution_pointwise");
  const bool gelu = after == After::kGelu;
  const char* attribute = gelu ? "gelu" : after == After::kRelu ? "relu" : "none";
  return op
      .call(as_packed(x, packed), packed, defined_only(as_packed(bias, packed)), padding, stride, {1, 1}, 1, attribute,
            Scalars(), gelu ? OptionalText("none") : std::nullopt)
      .to(x.scalar_type());
}

void add_convolution(at::Tensor& sum, const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                     at::IntArrayRef padding, at::IntArrayRef stride) {
  if (sum.scalar_type() != packed.scalar_type()) {
    sum.add_(convolution(as_packed(x, packed), packed, bias, padding, stride));
    return;
  }
  static const auto op =
      operation<at::Tensor&(at::Tensor&, const at::Tensor&, const at::Tensor&, const OptionalTensor&, at::IntArrayRef,
                            at::IntArrayRef, at::IntArrayRef, int64_t, Text, std::optional<at::Scalar>, OptionalText,
                            Scalars, OptionalText)>("mkldnn::_convolution_pointwise_", "binary");
  op.call(sum, x, packed, defined_only(bias), padding, stride, {1, 1}, 1, "add", std::nullopt, std::nullopt, Scalars(),
          std::nullopt);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& packed) {
  static const auto op =
      operation<at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&, Text, Scalars, OptionalText)>(
          "mkldnn::_linear_pointwise");
  return op.call(as_packed(x, packed), packed, std::nullopt, "none", Scalars(), std::nullopt).to(x.scalar_type());
}

}  // namespace mdm::ops::onednn
