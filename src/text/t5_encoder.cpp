#include "mdm/text/t5_encoder.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <limits>

#include "mdm/core/error.h"
#include "text/t5_weights.h"

namespace mdm {

struct T5Encoder::Impl {
  T5Config config;
  Options options;
  T5Weights weights;

  float lowest() const {  // what a masked score gets: the compute dtype's lowest finite value
    return options.dtype == at::kBFloat16 ? -3.3895313892515355e38F : std::numeric_limits<float>::lowest();
  }
  at::Tensor position_bias(int64_t first_query, int64_t queries, int64_t length) const;
  at::Tensor attention(const T5Block& block, const at::Tensor& x, int64_t batch, int64_t length, const at::Tensor& bias,
                       const at::Tensor& mask_bias) const;
};

namespace {

// T5LayerNorm: no mean is taken and no bias added. x float -> compute dtype.
at::Tensor t5_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon, at::ScalarType dtype) {
  const at::Tensor scale = x.square().mean(-1, true).add_(epsilon).rsqrt_();
  return (x * scale).mul_(weight).to(dtype);
}

// Queries handled at a time, so that the scores of a long text need no more than about 64 MiB.
int64_t queries_at_a_time(int64_t batch, int64_t heads, int64_t length) {
  constexpr int64_t kScores = int64_t{1} << 24;
  return std::clamp<int64_t>(kScores / std::max<int64_t>(batch * heads * length, 1), 1, length);
}

}  // namespace

// (1, H, queries, L) float: what is added to the scores of queries [first_query, first_query + queries).
at::Tensor T5Encoder::Impl::position_bias(int64_t first_query, int64_t queries, int64_t length) const {
  const int64_t lowest_distance = -(first_query + queries - 1);
  at::Tensor buckets = at::empty({queries, length}, at::TensorOptions().dtype(at::kLong));
  auto* out = buckets.data_ptr<int64_t>();
  std::vector<int64_t> by_distance(static_cast<size_t>(length + queries));
  for (size_t i = 0; i < by_distance.size(); ++i) {
    by_distance[i] = t5_relative_bucket(lowest_distance + static_cast<int64_t>(i),
                                        config.relative_attention_num_buckets, config.relative_attention_max_distance);
  }
  for (int64_t q = 0; q < queries; ++q) {
    const int64_t* row = by_distance.data() + (-(first_query + q) - lowest_distance);
    std::copy(row, row + length, out + q * length);
  }
  const at::Tensor values = weights.relative_bias.index_select(0, buckets.flatten().to(options.device));
  return values.view({queries, length, config.num_heads}).permute({2, 0, 1}).contiguous().unsqueeze(0);
}

// `x`: normed, (B * L, D). `bias`: for all queries, mask included; undefined when it is made block by
// block. Returns (B * L, D).
at::Tensor T5Encoder::Impl::attention(const T5Block& block, const at::Tensor& x, int64_t batch, int64_t length,
                                      const at::Tensor& bias, const at::Tensor& mask_bias) const {
  const int64_t heads = config.num_heads, width = config.d_kv;
  const auto split = [&](const at::Tensor& weight) {  // (B, H, L, K)
    return at::linear(x, weight).view({batch, length, heads, width}).transpose(1, 2);
  };
  const at::Tensor query = split(block.query), keys = split(block.key).transpose(2, 3), values = split(block.value);
  const int64_t step = bias.defined() ? length : queries_at_a_time(batch, heads, length);
  std::vector<at::Tensor> parts;
  for (int64_t first = 0; first < length; first += step) {
    const int64_t count = std::min(step, length - first);
    at::Tensor scores = at::matmul(query.narrow(2, first, count), keys).to(at::kFloat);  // no 1/sqrt(K)
    if (bias.defined()) {
      scores.add_(bias);
    } else {
      scores.add_(position_bias(first, count, length));
      if (mask_bias.defined()) scores.add_(mask_bias);
    }
    parts.push_back(at::matmul(at::softmax(scores, -1).to(options.dtype), values));
  }
  const at::Tensor mixed = parts.size() == 1 ? parts[0] : at::cat(parts, 2);
  return at::linear(mixed.transpose(1, 2).reshape({batch * length, heads * width}), block.output);
}

T5Encoder::T5Encoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
T5Encoder::T5Encoder(T5Encoder&&) noexcept = default;
T5Encoder& T5Encoder::operator=(T5Encoder&&) noexcept = default;
T5Encoder::~T5Encoder() = default;
const T5Config& T5Encoder::config() const { return impl_->config; }
at::Device T5Encoder::device() const { return impl_->options.device; }
int64_t T5Encoder::resident_bytes() const { return impl_->weights.resident_bytes; }

T5Encoder T5Encoder::load(const TextModelFiles& files, const Options& options) {
  if (options.dtype != at::kFloat && options.dtype != at::kBFloat16) {
    fail<ConfigError>("T5 runs in fp32 or bf16, not in ", c10::toString(options.dtype), " (fp16 overflows)");
  }
  auto impl = std::make_unique<Impl>();
  impl->config = T5Config::read(files.config);
  impl->options = options;
  impl->weights = load_t5_weights(files, impl->config, options);
  return T5Encoder(std::move(impl));
}

at::Tensor T5Encoder::forward(const at::Tensor& ids, const at::Tensor& mask, T5Trace* trace) const {
  const auto& config = impl_->config;
  const auto dtype = impl_->options.dtype;
  const int64_t batch = ids.size(0), length = ids.size(1), width = config.d_model;
  if (ids.numel() == 0) return at::zeros({batch, length, width}, at::TensorOptions().device(device()));
  const int64_t low = ids.min().item<int64_t>(), high = ids.max().item<int64_t>();
  if (low < 0 || high >= config.vocab_size) {
    fail<ConfigError>("token id ", low < 0 ? low : high, " has no row in the text model's embedding of ",
                      config.vocab_size, " rows: the vocabulary belongs to another model");
  }

  at::Tensor x = impl_->weights.embedding.index_select(0, ids.flatten().to(device())).to(at::kFloat);  // (B * L, D)
  at::Tensor mask_bias;                                                                                // (B, 1, 1, L)
  if (mask.defined()) {
    mask_bias = (1 - mask.to(device(), at::kFloat)).mul_(impl_->lowest()).view({batch, 1, 1, length});
  }
  at::Tensor bias;
  if (queries_at_a_time(batch, config.num_heads, length) == length) {
    bias = impl_->position_bias(0, length, length);
    if (trace != nullptr) trace->position_bias = bias.squeeze(0);
    if (mask_bias.defined()) bias = bias + mask_bias;
  }
  const auto record = [&](const at::Tensor& hidden) {
    if (trace != nullptr) trace->hidden.push_back(hidden.view({batch, length, width}).clone());
  };

  record(x);
  for (size_t i = 0; i < impl_->weights.blocks.size(); ++i) {
    const auto& block = impl_->weights.blocks[i];
    const at::Tensor attended = t5_norm(x, block.attention_norm, config.layer_norm_epsilon, dtype);
    x = x + impl_->attention(block, attended, batch, length, bias, mask_bias);
    const at::Tensor h = t5_norm(x, block.feed_forward_norm, config.layer_norm_epsilon, dtype);
    at::Tensor gated = at::gelu(at::linear(h, block.gate), "tanh");
    gated.mul_(at::linear(h, block.up));
    x.add_(at::linear(gated, block.down));
    if (i + 1 < impl_->weights.blocks.size()) record(x);
  }
  x = t5_norm(x, impl_->weights.final_norm, config.layer_norm_epsilon, at::kFloat);
  record(x);
  return x.view({batch, length, width});
}

}  // namespace mdm
