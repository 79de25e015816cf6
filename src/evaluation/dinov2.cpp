#include "mdm/evaluation/dinov2.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/upsample_bicubic2d.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "evaluation/hugging_face.h"
#include "evaluation/network_weights.h"
#include "evaluation/transformer.h"
#include "mdm/core/error.h"

namespace mdm {

using evaluation::ModelConfigJson;
using evaluation::NetworkWeights;
using evaluation::TransformerShape;

namespace {

constexpr int64_t kWidestDino = 1 << 14;

TransformerShape dino_shape(const ModelConfigJson& json) {
  TransformerShape shape;
  shape.width = json.integer("hidden_size", 1, kWidestDino, 768);
  shape.heads = json.integer("num_attention_heads", 1, 1024, 12);
  shape.layers = json.integer("num_hidden_layers", 1, 1000, 12);
  shape.epsilon = json.number("layer_norm_eps", 0, 1, 1e-6);
  shape.activation = evaluation::parse_activation(json.text("hidden_act", "gelu"), json.where());
  shape.query_bias = json.flag("qkv_bias", true);
  shape.gated = json.flag("use_swiglu_ffn", false);
  shape.scaled = true;
  shape.inner = json.integer("mlp_ratio", 1, 64, 4) * shape.width;
  if (shape.gated) shape.inner = (shape.inner * 2 / 3 + 7) / 8 * 8;
  if (shape.width % shape.heads != 0) {
    fail<ConfigError>(json.where(), ": 'hidden_size' ", shape.width, " is not a multiple of the ", shape.heads,
                      " heads");
  }
  return shape;
}

}  // namespace

struct DinoV2::Impl {
  TransformerShape shape;
  evaluation::Transformer blocks;
  int64_t patch = 14;
  at::Tensor class_token, positions, patch_weight, patch_bias, norm_weight, norm_bias;

  // The grid of positions was learned for another size of picture.
  void fit_positions(int64_t trained_side) {
    const int64_t old = trained_side / patch, wanted = kSide / patch;
    if (old == wanted) return;
    const int64_t width = shape.width;
    const at::Tensor grid =
        positions.narrow(1, 1, old * old).reshape({1, old, old, width}).permute({0, 3, 1, 2}).contiguous();
    const at::Tensor fitted = at::upsample_bicubic2d(grid, {wanted, wanted}, /*align_corners=*/false);
    positions =
        at::cat({positions.narrow(1, 0, 1), fitted.permute({0, 2, 3, 1}).reshape({1, wanted * wanted, width})}, 1);
  }
};

DinoV2::DinoV2(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DinoV2::DinoV2(DinoV2&&) noexcept = default;
DinoV2& DinoV2::operator=(DinoV2&&) noexcept = default;
DinoV2::~DinoV2() = default;

DinoV2 DinoV2::load(const std::filesystem::path& folder) {
  const c10::NoGradGuard no_grad;
  const ModelConfigJson json(folder / "config.json");
  if (json.text("model_type", "") != "dinov2") {
    fail<ConfigError>(json.where(), ": 'model_type' is '", printable(json.text("model_type", "")),
                      "'; expected dinov2");
  }
  auto impl = std::make_unique<Impl>();
  impl->shape = dino_shape(json);
  impl->patch = json.integer("patch_size", 1, kSide, 14);
  const int64_t trained_side = json.integer("image_size", impl->patch, 4096, 224);
  if (kSide % impl->patch != 0)
    fail<ConfigError>(json.where(), ": patches of ", impl->patch, " don't fill ", kSide, " pixels");
  const int64_t width = impl->shape.width, patch = impl->patch, cells = trained_side / patch;
  NetworkWeights weights;
  impl->class_token = weights.add("embeddings.cls_token", {1, 1, width});
  impl->positions = weights.add("embeddings.position_embeddings", {1, cells * cells + 1, width});
  impl->patch_weight = weights.add("embeddings.patch_embeddings.projection.weight", {width, 3, patch, patch});
  impl->patch_bias = weights.add("embeddings.patch_embeddings.projection.bias", {width});
  evaluation::TransformerNames names = evaluation::kDinoNames;
  names.block = "encoder.layer.";
  if (impl->shape.gated) names.up = "mlp.weights_in", names.down = "mlp.weights_out";
  impl->blocks.declare(weights, impl->shape, names);
  impl->norm_weight = weights.add("layernorm.weight", {width});
  impl->norm_bias = weights.add("layernorm.bias", {width});
  weights.ignore("embeddings.mask_token");
  weights.load(evaluation::open_model_weights(folder));
  impl->blocks.prepare();
  impl->fit_positions(trained_side);
  return DinoV2(std::move(impl));
}

at::Tensor DinoV2::forward(const at::Tensor& x) const {
  const c10::NoGradGuard no_grad;
  const Impl& m = *impl_;
  const at::Tensor patches = at::conv2d(x, m.patch_weight, m.patch_bias, {m.patch, m.patch}).flatten(2).transpose(1, 2);
  const at::Tensor h = at::cat({m.class_token.expand({x.size(0), 1, m.shape.width}), patches}, 1) + m.positions;
  return evaluation::layer_norm(m.blocks.forward(h, /*causal=*/false).select(1, 0), m.norm_weight, m.norm_bias,
                                m.shape.epsilon);
}

int64_t DinoV2::width() const { return impl_->shape.width; }

std::string DinoV2::description() const {
  return concat(impl_->shape.layers, " layers, ", impl_->shape.width, " wide, patches of ", impl_->patch);
}

}  // namespace mdm
