#include "mdm/evaluation/clip.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "evaluation/hugging_face.h"
#include "evaluation/network_weights.h"
#include "evaluation/transformer.h"
#include "mdm/core/error.h"
#include "mdm/evaluation/clip_tokenizer.h"
#include "mdm/evaluation/preprocessing.h"

namespace mdm {

using evaluation::ModelConfigJson;
using evaluation::NetworkWeights;
using evaluation::Transformer;
using evaluation::TransformerNames;
using evaluation::TransformerShape;

namespace {

constexpr int64_t kWidestTower = 1 << 14;
constexpr Normalization kOpenAi{{0.48145466F, 0.4578275F, 0.40821073F}, {0.26862954F, 0.26130258F, 0.27577711F}};

struct TowerDefaults {
  int64_t width, heads, inner;
};

TransformerShape tower_shape(const ModelConfigJson& json, const TowerDefaults& defaults) {
  TransformerShape shape;
  shape.width = json.integer("hidden_size", 1, kWidestTower, defaults.width);
  shape.heads = json.integer("num_attention_heads", 1, 1024, defaults.heads);
  shape.layers = json.integer("num_hidden_layers", 1, 1000, 12);
  shape.inner = json.integer("intermediate_size", 1, 8 * kWidestTower, defaults.inner);
  shape.epsilon = json.number("layer_norm_eps", 0, 1, 1e-5);
  shape.activation = evaluation::parse_activation(json.text("hidden_act", "quick_gelu"), json.where());
  if (shape.width % shape.heads != 0) {
    fail<ConfigError>(json.where(), ": 'hidden_size' ", shape.width, " is not a multiple of the ", shape.heads,
                      " heads");
  }
  return shape;
}

TransformerNames names_below(const char* block) {
  TransformerNames names = evaluation::kClipNames;
  names.block = block;
  return names;
}

}  // namespace

struct ClipModel::Impl {
  struct Norm {
    at::Tensor weight, bias;
    void declare(NetworkWeights& weights, const std::string& name, int64_t width) {
      weight = weights.add(name + ".weight", {width});
      bias = weights.add(name + ".bias", {width});
    }
    at::Tensor operator()(const at::Tensor& x, double epsilon) const {
      return evaluation::layer_norm(x, weight, bias, epsilon);
    }
  };

  explicit Impl(const std::filesystem::path& folder)
      : tokenizer(ClipTokenizer::open(folder)), json(folder / "config.json") {
    if (json.text("model_type", "") != "clip") {
      fail<ConfigError>(json.where(), ": 'model_type' is '", printable(json.text("model_type", "")),
                        "'; expected clip");
    }
    width = json.integer("projection_dim", 1, kWidestTower, 512);
    const ModelConfigJson text_part = json.part("text_config"), vision_part = json.part("vision_config");
    text_shape = tower_shape(text_part, {512, 8, 2048});
    vision_shape = tower_shape(vision_part, {768, 12, 3072});
    words = text_part.integer("vocab_size", 1, 1 << 24, 49408);
    positions = text_part.integer("max_position_embeddings", 3, 1 << 16, 77);
    side = vision_part.integer("image_size", 1, 4096, 224);
    patch = vision_part.integer("patch_size", 1, side, 32);
    if (tokenizer.vocab_size() > words) {
      fail<ConfigError>(json.where(), ": has ", words, " words, and the tokenizer ", tokenizer.vocab_size());
    }
    const std::filesystem::path preprocessor = folder / "preprocessor_config.json";
    std::error_code error;
    if (std::filesystem::exists(preprocessor, error)) {
      const ModelConfigJson says(preprocessor);
      says.three("image_mean", normalization.mean);
      says.three("image_std", normalization.deviation);
    }
  }

  void load(const TensorFile& file) {
    NetworkWeights weights;
    const int64_t text_width = text_shape.width, vision_width = vision_shape.width;
    const int64_t patches = (side / patch) * (side / patch);
    word_embedding = weights.add("text_model.embeddings.token_embedding.weight", {words, text_width});
    text_positions = weights.add("text_model.embeddings.position_embedding.weight", {positions, text_width});
    text.declare(weights, text_shape, names_below("text_model.encoder.layers."));
    text_norm.declare(weights, "text_model.final_layer_norm", text_width);
    text_projection = weights.add("text_projection.weight", {width, text_width});
    class_embedding = weights.add("vision_model.embeddings.class_embedding", {vision_width});
    patch_weight = weights.add("vision_model.embeddings.patch_embedding.weight", {vision_width, 3, patch, patch});
    vision_positions = weights.add("vision_model.embeddings.position_embedding.weight", {patches + 1, vision_width});
    first_norm.declare(weights, "vision_model.pre_layrnorm", vision_width);  // its name in all these files
    vision.declare(weights, vision_shape, names_below("vision_model.encoder.layers."));
    last_norm.declare(weights, "vision_model.post_layernorm", vision_width);
    vision_projection = weights.add("visual_projection.weight", {width, vision_width});
    weights.ignore(".position_ids");
    weights.ignore("logit_scale");
    weights.load(file);
    text.prepare();
    vision.prepare();
  }

  ClipTokenizer tokenizer;
  ModelConfigJson json;
  int64_t width = 0, words = 0, positions = 0, side = 0, patch = 0;
  Normalization normalization = kOpenAi;
  TransformerShape text_shape, vision_shape;
  Transformer text, vision;
  at::Tensor word_embedding, text_positions, text_projection;
  at::Tensor class_embedding, patch_weight, vision_positions, vision_projection;
  Norm text_norm, first_norm, last_norm;
};

ClipModel::ClipModel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ClipModel::ClipModel(ClipModel&&) noexcept = default;
ClipModel& ClipModel::operator=(ClipModel&&) noexcept = default;
ClipModel::~ClipModel() = default;

ClipModel ClipModel::load(const std::filesystem::path& folder) {
  const c10::NoGradGuard no_grad;
  auto impl = std::make_unique<Impl>(folder);
  impl->load(evaluation::open_model_weights(folder));
  return ClipModel(std::move(impl));
}

at::Tensor ClipModel::image_embeddings(const at::Tensor& x) const {
  const c10::NoGradGuard no_grad;
  const Impl& m = *impl_;
  const int64_t batch = x.size(0), width = m.vision_shape.width;
  const at::Tensor patches = at::conv2d(x, m.patch_weight, {}, {m.patch, m.patch}).flatten(2).transpose(1, 2);
  at::Tensor h = at::cat({m.class_embedding.expand({batch, 1, width}), patches}, 1) + m.vision_positions;
  h = m.vision.forward(m.first_norm(h, m.vision_shape.epsilon), /*causal=*/false);
  return at::linear(m.last_norm(h.select(1, 0), m.vision_shape.epsilon), m.vision_projection);
}

at::Tensor ClipModel::image_embedding(const Image& image) const {
  return image_embeddings(clip_input(image, side(), impl_->normalization).unsqueeze(0)).squeeze(0);
}

at::Tensor ClipModel::text_embedding(const std::string& caption, bool* cut) const {
  const c10::NoGradGuard no_grad;
  const Impl& m = *impl_;
  const std::vector<int32_t> tokens = m.tokenizer.encode(caption, static_cast<size_t>(m.positions), cut);
  // Where a caption itself holds the end token, the first one counts, as in transformers.
  const auto first_end = std::find(tokens.begin(), tokens.end(), tokens.back());
  const auto length = static_cast<int64_t>(first_end - tokens.begin() + 1);
  at::Tensor ids = at::empty({length}, at::TensorOptions().dtype(at::kLong));
  std::copy_n(tokens.begin(), length, ids.mutable_data_ptr<int64_t>());
  at::Tensor h = m.word_embedding.index_select(0, ids) + m.text_positions.narrow(0, 0, length);
  h = m.text.forward(h.unsqueeze(0), /*causal=*/true);
  // A position sees none behind it: padding would change nothing, and the end token's is the last.
  const at::Tensor last = m.text_norm(h.select(1, length - 1), m.text_shape.epsilon);
  return at::linear(last, m.text_projection).squeeze(0);
}

double ClipModel::similarity(const Image& image, const std::string& caption, bool* cut) const {
  const at::Tensor a = image_embedding(image), b = text_embedding(caption, cut);
  return 100 * ((a / a.norm()) * (b / b.norm())).sum().item<double>();
}

int64_t ClipModel::width() const { return impl_->width; }
int ClipModel::side() const { return static_cast<int>(impl_->side); }
int64_t ClipModel::most_tokens() const { return impl_->positions; }

std::string ClipModel::description() const {
  const auto& shape = impl_->vision_shape;
  const char* size = shape.width == 768 ? "B" : shape.width == 1024 ? "L" : shape.width == 1280 ? "H" : "";
  const std::string kind = *size != 0 ? concat("ViT-", size, "/", impl_->patch)
                                      : concat("ViT, ", shape.width, " wide, patches of ", impl_->patch);
  return concat(kind, " at ", impl_->side, " pixels");
}

}  // namespace mdm
