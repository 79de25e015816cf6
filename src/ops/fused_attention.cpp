#include "ops/fused_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "ops/attention_bf16_cpu.h"
#include "ops/small_attention_cpu.h"

namespace mdm::ops {
namespace {

at::Tensor value_of(const std::optional<at::Tensor>& t) { return t.value_or(at::Tensor()); }
std::optional<at::Tensor> defined_only(const at::Tensor& t) { return t.defined() ? std::optional(t) : std::nullopt; }

// The kernels for heads of few channels, in both types.
template <typename T>
struct SmallKernel {
  static int64_t statistics(const HeadShape& a) { return small_attention_statistics(a); }
  template <typename... Arguments>
  static void forward(Arguments... arguments) {
    small_attention<T>(arguments...);
  }
  template <typename... Arguments>
  static void backward(Arguments... arguments) {
    small_attention_backward<T>(arguments...);
  }
  using Number = T;
};

struct Bf16Kernel {
  static int64_t statistics(const HeadShape& a) { return bf16_attention_statistics(a); }
  template <typename... Arguments>
  static void forward(Arguments... arguments) {
    bf16_attention(arguments...);
  }
  template <typename... Arguments>
  static void backward(Arguments... arguments) {
    bf16_attention_backward(arguments...);
  }
  using Number = uint16_t;
};

// One call: third `part` of qkv (B, N, 3 C), rows of out (B, N, C), and the text's heads (B, heads, L, d).
template <typename Kernel>
class Call {
  using T = typename Kernel::Number;

 public:
  Call(const at::Tensor& qkv, int64_t heads, const at::Tensor& key, const at::Tensor& mask)
      : positions_(qkv.size(1)), channels_(qkv.size(2) / 3), mask_(mask.defined() ? mask.contiguous() : mask) {
    self_.batch = text_.batch = qkv.size(0);
    self_.heads = text_.heads = heads;
    self_.queries = text_.queries = self_.keys = positions_;
    self_.width = text_.width = channels_ / heads;
    if (!key.defined()) return;
    text_.keys = key.size(2);
    if (mask_.defined()) text_.mask = mask_.const_data_ptr<bool>();
  }

  // Gives the statistics for the backward pass.
  at::Tensor forward(const at::Tensor& qkv, const at::Tensor& key, const at::Tensor& value,
                     const at::Tensor& out) const {
    const int64_t own = Kernel::statistics(self_);
    const at::Tensor statistics =
        at::empty({own + (key.defined() ? Kernel::statistics(text_) : 0)}, qkv.options().dtype(at::kFloat));
    auto* numbers = data<float>(statistics);
    const auto q = third<const T>(qkv, 0);
    Kernel::forward(self_, q, third<const T>(qkv, 1), third<const T>(qkv, 2), rows<T>(out), false, numbers);
    if (key.defined()) {
      Kernel::forward(text_, q, heads<const T>(key), heads<const T>(value), rows<T>(out), true, numbers + own);
    }
    return statistics;
  }

  void backward(const at::Tensor& qkv, const at::Tensor& key, const at::Tensor& value, const at::Tensor& dout,
                const at::Tensor& statistics, const at::Tensor& dqkv, const at::Tensor& dkey,
                const at::Tensor& dvalue) const {
    const auto* numbers = data<const float>(statistics);
    const auto q = third<const T>(qkv, 0), gradient = rows<const T>(dout);
    const auto dq = third<T>(dqkv, 0);
    Kernel::backward(self_, q, third<const T>(qkv, 1), third<const T>(qkv, 2), gradient, numbers, dq, false,
                     third<T>(dqkv, 1), third<T>(dqkv, 2));
    if (!key.defined()) return;
    Kernel::backward(text_, q, heads<const T>(key), heads<const T>(value), gradient,
                     numbers + Kernel::statistics(self_), dq, true, heads<T>(dkey), heads<T>(dvalue));
  }

 private:
  template <typename U>
  static U* data(const at::Tensor& t) {
    return static_cast<U*>(t.data_ptr());
  }
  template <typename U>
  HeadView<U> third(const at::Tensor& qkv, int64_t part) const {
    return {data<U>(qkv) + part * channels_, positions_ * 3 * channels_, self_.width, 3 * channels_};
  }
  template <typename U>
  HeadView<U> rows(const at::Tensor& out) const {
    return {data<U>(out), positions_ * channels_, self_.width, channels_};
  }
  template <typename U>
  static HeadView<U> heads(const at::Tensor& t) {
    return {data<U>(t), t.stride(0), t.stride(1), t.stride(2)};
  }

  int64_t positions_, channels_;
  at::Tensor mask_;
  HeadShape self_, text_;
};

bool suits_small(const at::Tensor& qkv, int64_t heads, int64_t text_keys) {
  const int64_t width = qkv.size(2) / 3 / heads;
  return small_attention_suits(width, qkv.size(1)) && (text_keys == 0 || small_attention_suits(width, text_keys));
}

bool suits_bf16(const at::Tensor& qkv, int64_t heads, int64_t text_keys) {
  const int64_t width = qkv.size(2) / 3 / heads;
  return qkv.scalar_type() == at::kBFloat16 && bf16_attention_suits(width, std::max(qkv.size(1), text_keys));
}

template <typename Run>
void with_kernel(const at::Tensor& qkv, int64_t heads, const at::Tensor& key, Run run) {
  if (!suits_small(qkv, heads, key.defined() ? key.size(2) : 0)) {
    run(Bf16Kernel{});
  } else if (qkv.scalar_type() == at::kFloat) {
    run(SmallKernel<float>{});
  } else {
    run(SmallKernel<uint16_t>{});
  }
}

// Keeps its inputs, and a number or two of each query's softmax; scores are computed again.
struct FusedAttentionFunction : torch::autograd::Function<FusedAttentionFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& qkv, int64_t heads,
                            const std::optional<at::Tensor>& key, const std::optional<at::Tensor>& value,
                            const std::optional<at::Tensor>& mask) {
    at::Tensor out = at::empty({qkv.size(0), qkv.size(1), qkv.size(2) / 3}, qkv.options());
    at::Tensor statistics;
    with_kernel(qkv, heads, value_of(key), [&](auto kernel) {
      statistics = Call<decltype(kernel)>(qkv, heads, value_of(key), value_of(mask))
                       .forward(qkv, value_of(key), value_of(value), out);
    });
    context->save_for_backward({qkv, value_of(key), value_of(value), value_of(mask), statistics});
    context->saved_data["heads"] = heads;
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &qkv = saved[0], &key = saved[1], &value = saved[2], &mask = saved[3];
    const at::Tensor dout = gradients[0].to(qkv.scalar_type()).contiguous();
    const at::Tensor dqkv = at::empty_like(qkv);
    at::Tensor dkey, dvalue;
    if (key.defined()) {
      dkey = at::empty(key.sizes(), key.options());
      dvalue = at::empty(value.sizes(), value.options());
    }
    const int64_t heads = context->saved_data["heads"].toInt();
    with_kernel(qkv, heads, key, [&](auto kernel) {
      Call<decltype(kernel)>(qkv, heads, key, mask).backward(qkv, key, value, dout, saved[4], dqkv, dkey, dvalue);
    });
    return {dqkv, at::Tensor(), dkey, dvalue, at::Tensor()};
  }
};

bool fits(const at::Tensor& t, at::ScalarType type) {
  return t.is_cpu() && t.scalar_type() == type && t.stride(-1) == 1;
}

}  // namespace

std::optional<at::Tensor> fused_attention(const at::Tensor& qkv, int64_t heads, const KeyValue* text,
                                          const at::Tensor& text_mask) {
  const at::ScalarType type = qkv.scalar_type();
  if ((type != at::kFloat && type != at::kBFloat16) || !fits(qkv, type) || !qkv.is_contiguous() || qkv.numel() == 0 ||
      qkv.size(2) % (3 * heads) != 0) {
    return std::nullopt;
  }
  const int64_t text_keys = text != nullptr ? text->key.size(2) : 0;
  if (!suits_small(qkv, heads, text_keys) && !suits_bf16(qkv, heads, text_keys)) return std::nullopt;
  if (text == nullptr) {
    RECORD_FUNCTION("mdm::attention", std::vector<c10::IValue>({qkv}));
    return FusedAttentionFunction::apply(qkv, heads, std::nullopt, std::nullopt, std::nullopt);
  }
  const at::Tensor &key = text->key, &value = text->value;
  if (text_keys == 0 || !fits(key, type) || !fits(value, type)) return std::nullopt;
  // The kernels take the text's rows for the pictures'; others broadcast, or are an error, in the general one.
  const std::vector<int64_t> heads_of_text = {qkv.size(0), heads, text_keys, qkv.size(2) / 3 / heads};
  const std::vector<int64_t> keys_of_text = {qkv.size(0), text_keys};
  if (key.sizes() != heads_of_text || value.sizes() != heads_of_text) return std::nullopt;
  if (text_mask.defined() && (text_mask.sizes() != keys_of_text || text_mask.scalar_type() != at::kBool)) {
    return std::nullopt;
  }
  RECORD_FUNCTION("mdm::attention", std::vector<c10::IValue>({qkv, key}));
  return FusedAttentionFunction::apply(qkv, heads, std::optional(key), std::optional(value), defined_only(text_mask));
}

}  // namespace mdm::ops
