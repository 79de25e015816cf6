#include "ops/small_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "ops/small_attention_cpu.h"

namespace mdm::ops {
namespace {

at::Tensor value_of(const std::optional<at::Tensor>& t) { return t.value_or(at::Tensor()); }
std::optional<at::Tensor> defined_only(const at::Tensor& t) { return t.defined() ? std::optional(t) : std::nullopt; }

// One call: third `part` of qkv (B, N, 3 C), rows of out (B, N, C), and the text's heads (B, heads, L, d).
template <typename T>
class Call {
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
    const int64_t own = small_attention_statistics(self_);
    const at::Tensor statistics =
        at::empty({own + (key.defined() ? small_attention_statistics(text_) : 0)}, qkv.options().dtype(at::kFloat));
    auto* numbers = data<float>(statistics);
    const auto q = third<const T>(qkv, 0);
    small_attention<T>(self_, q, third<const T>(qkv, 1), third<const T>(qkv, 2), rows<T>(out), false, numbers);
    if (key.defined()) {
      small_attention<T>(text_, q, heads<const T>(key), heads<const T>(value), rows<T>(out), true, numbers + own);
    }
    return statistics;
  }

  void backward(const at::Tensor& qkv, const at::Tensor& key, const at::Tensor& value, const at::Tensor& dout,
                const at::Tensor& statistics, const at::Tensor& dqkv, const at::Tensor& dkey,
                const at::Tensor& dvalue) const {
    const auto* numbers = data<const float>(statistics);
    const auto q = third<const T>(qkv, 0), gradient = rows<const T>(dout);
    const auto dq = third<T>(dqkv, 0);
    small_attention_backward<T>(self_, q, third<const T>(qkv, 1), third<const T>(qkv, 2), gradient, numbers, dq, false,
                                third<T>(dqkv, 1), third<T>(dqkv, 2));
    if (!key.defined()) return;
    small_attention_backward<T>(text_, q, heads<const T>(key), heads<const T>(value), gradient,
                                numbers + small_attention_statistics(self_), dq, true, heads<T>(dkey),
                                heads<T>(dvalue));
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
  SmallAttention self_, text_;
};

template <typename Run>
void by_type(at::ScalarType type, Run run) {
  if (type == at::kFloat) {
    run(float{});
  } else {
    run(uint16_t{});
  }
}

// Keeps its inputs, and two numbers of each query's softmax; scores are computed again.
struct SmallAttentionFunction : torch::autograd::Function<SmallAttentionFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& qkv, int64_t heads,
                            const std::optional<at::Tensor>& key, const std::optional<at::Tensor>& value,
                            const std::optional<at::Tensor>& mask) {
    at::Tensor out = at::empty({qkv.size(0), qkv.size(1), qkv.size(2) / 3}, qkv.options());
    at::Tensor statistics;
    by_type(qkv.scalar_type(), [&](auto zero) {
      statistics = Call<decltype(zero)>(qkv, heads, value_of(key), value_of(mask))
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
    by_type(qkv.scalar_type(), [&](auto zero) {
      Call<decltype(zero)>(qkv, context->saved_data["heads"].toInt(), key, mask)
          .backward(qkv, key, value, dout, saved[4], dqkv, dkey, dvalue);
    });
    return {dqkv, at::Tensor(), dkey, dvalue, at::Tensor()};
  }
};

bool fits(const at::Tensor& t, at::ScalarType type) {
  return t.is_cpu() && t.scalar_type() == type && t.stride(-1) == 1;
}

}  // namespace

std::optional<at::Tensor> attention_of_small_heads(const at::Tensor& qkv, int64_t heads, const KeyValue* text,
                                                   const at::Tensor& text_mask) {
  const at::ScalarType type = qkv.scalar_type();
  if ((type != at::kFloat && type != at::kBFloat16) || !fits(qkv, type) || !qkv.is_contiguous() || qkv.numel() == 0) {
    return std::nullopt;
  }
  const int64_t width = qkv.size(2) / 3 / heads;
  if (!small_attention_suits(width, qkv.size(1))) return std::nullopt;
  if (text == nullptr) return SmallAttentionFunction::apply(qkv, heads, std::nullopt, std::nullopt, std::nullopt);
  const at::Tensor &key = text->key, &value = text->value;
  if (!small_attention_suits(width, key.size(2)) || !fits(key, type) || !fits(value, type)) return std::nullopt;
  // The kernel takes the text's rows for the pictures'; others broadcast, or are an error, in the general one.
  const std::vector<int64_t> heads_of_text = {qkv.size(0), heads, key.size(2), width};
  const std::vector<int64_t> keys_of_text = {qkv.size(0), key.size(2)};
  if (key.sizes() != heads_of_text || value.sizes() != heads_of_text) return std::nullopt;
  if (text_mask.defined() && (text_mask.sizes() != keys_of_text || text_mask.scalar_type() != at::kBool)) {
    return std::nullopt;
  }
  return SmallAttentionFunction::apply(qkv, heads, std::optional(key), std::optional(value), defined_only(text_mask));
}

}  // namespace mdm::ops
