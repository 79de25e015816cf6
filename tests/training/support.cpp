#include "training/support.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "mdm/core/digest.h"
#include "mdm/core/error.h"

namespace mdm::training_test {
namespace {

const char* const kUnet = R"(
model: unet
unet_config:
  num_resnets_per_resolution: [1, 1]
  temporal_dim: 16
  attention_levels: [1]
  num_attention_layers: [1, 1]
  conditioning_feature_dim: 12
  conditioning_feature_proj_dim: -1
  masked_cross_attention: 0
  resolution_channels: [8, 32]
  skip_mid_blocks: true
  skip_cond_emb: false
  micro_conditioning: scale:8
  resnet_config: {num_groups_norm: 4, dropout: 0.1, use_attention_ffn: true}
)";

const char* const kNested = R"(
model: nested_unet
unet_config:
  num_resnets_per_resolution: [1, 1]
  temporal_dim: 16
  attention_levels: []
  num_attention_layers: [1, 1]
  conditioning_feature_dim: 12
  masked_cross_attention: 0
  resolution_channels: [8, 8]
  skip_mid_blocks: true
  skip_cond_emb: true
  micro_conditioning: scale:16
  interp_conditioning: true
  resnet_config: {num_groups_norm: 4, dropout: 0.1}
  inner_config:
    num_resnets_per_resolution: [1, 1]
    temporal_dim: 16
    attention_levels: [1]
    num_attention_layers: [1, 1]
    conditioning_feature_dim: 12
    masked_cross_attention: 0
    resolution_channels: [8, 32]
    skip_mid_blocks: true
    skip_cond_emb: false
    nesting: true
    micro_conditioning: scale:8
    resnet_config: {num_groups_norm: 4, dropout: 0.1}
)";

const char* const kRest = R"(
diffusion_config:
  sampler_config: {num_diffusion_steps: 100, schedule_type: DEEPFLOYD, prediction_type: V_PREDICTION, loss_target_type: DDPM}
  use_vdm_loss_weights: false
  no_use_residual: true
trainer:
  use_adamw: true
  lr: 0.001
  warmup_steps: 5
  gradient_clip_norm: 2.0
  num_training_steps: 20
  save_freq: 5
  batch_size: 4
  seed: 11
)";

}  // namespace

const Overrides kBothLevels = {{"use_double_loss", "true"}};
const Overrides kHalfMixed = {{"use_double_loss", "true"}, {"mixed_ratio", "1:1"}};

Config tiny_config(bool nested, const Overrides& extra) {
  return load_yaml_text(std::string(nested ? kNested : kUnet) + kRest, "tiny.yaml", extra).config;
}

int64_t side_of(const Config& config) { return config.model.nested() ? 16 : 8; }

at::Tensor picture(int64_t kind, int64_t side) {
  at::Tensor out = at::empty({side, side, 3}, at::kByte);
  auto* bytes = out.data_ptr<uint8_t>();
  for (int64_t y = 0; y < side; ++y) {
    for (int64_t x = 0; x < side; ++x) {
      for (int64_t c = 0; c < 3; ++c) {
        const int64_t along = ((kind >> c) & 1) != 0 ? x : side - 1 - y;
        *bytes++ = static_cast<uint8_t>(255 * along / (side - 1));
      }
    }
  }
  return out;
}

ToyBatches::ToyBatches(int64_t side, int64_t rows, int64_t micro_steps)
    : side_(side), rows_(rows), micro_steps_(micro_steps) {}

Batch ToyBatches::next() {
  Batch batch;
  if (fails_at == step_) fail<DataError>("the toy data can't be read");
  batch.step = step_;
  batch.first_row = (micro_ * processes + rank) * rows_;
  batch.total_rows = rows_ * micro_steps_ * processes;
  batch.weights = at::ones({rows_});
  std::vector<at::Tensor> images;
  for (int64_t i = 0; i < rows_; ++i) {
    uint64_t sample = step_ * static_cast<uint64_t>(batch.total_rows) + static_cast<uint64_t>(batch.first_row + i);
    const uint64_t shown = fixed_samples > 0 ? sample % static_cast<uint64_t>(fixed_samples) : sample;
    images.push_back(picture(static_cast<int64_t>(shown % kKinds), side_));
    if (broken.count(sample) != 0) {
      images.back().fill_(127);
      batch.weights[i] = 0;
    }
    batch.samples.push_back(sample);
    ++served;
  }
  batch.images = at::stack(images);
  if (poisoned.count(step_) != 0) batch.weights[0] = std::numeric_limits<float>::infinity();
  batch.micros["scale"] = at::full({rows_}, static_cast<double>(side_));
  if (++micro_ == micro_steps_) {
    micro_ = 0;
    ++step_;
  }
  return batch;
}

void ToyBatches::seek(uint64_t step) {
  if (poison_first_attempt && step < step_) poisoned.clear();
  step_ = step;
  micro_ = 0;
}

std::string ToyBatches::state_json() const { return nlohmann::json({{"served", served}}).dump(); }

void ToyBatches::restore(const std::string& state_json) {
  nlohmann::json::parse(state_json).at("served").get_to(served);
}

ToyText::ToyText(bool learned) : learned_(learned) {
  table_ = at::randn({kKinds, 2 * kTextWidth}, make_generator(3), at::kFloat);
  if (learned_) table_.set_requires_grad(true);
}

TextEmbedding ToyText::of_kinds(const std::vector<int64_t>& kinds) const {
  const auto rows = static_cast<int64_t>(kinds.size());
  return {table_.index_select(0, at::tensor(kinds, at::kLong)).view({rows, 2, kTextWidth}), at::ones({rows, 2}), {}};
}

TextEmbedding ToyText::embed(const Batch& batch) {
  std::vector<int64_t> kinds;
  for (const uint64_t sample : batch.samples) kinds.push_back(static_cast<int64_t>(sample % kKinds));
  return of_kinds(kinds);
}

std::vector<NamedTensor> ToyText::trained() const {
  if (!learned_) return {};
  return {{"table", table_}};
}

ToyRun::ToyRun(const Config& source, bool learned_text)
    : config(source),
      model(make_model(config.model, kTextWidth, {at::kFloat, /*channels_last=*/true})),
      data(side_of(config), config.trainer.batch_size, config.trainer.num_gradient_accumulations),
      text(learned_text) {
  model->init({make_generator(5), LayerInit::kSmallNormal});
  parts.model = model.get();
  parts.data = &data;
  parts.text = &text;
  parts.show = [](std::string_view) {};
}

std::unique_ptr<Trainer> ToyRun::make_trainer() { return std::make_unique<Trainer>(config, 11, parts); }

std::string digest(const ParameterArena& arena) {
  Digest hash(Digest::Kind::kSha256);
  for (const auto& list : {arena.weights(), arena.ema(), arena.moments()}) {
    for (const NamedTensor& item : list) {
      const at::Tensor values = item.tensor.contiguous();
      hash.add(item.name.data(), item.name.size());
      hash.add(values.const_data_ptr(), values.nbytes());
    }
  }
  return hash.finish_hex();
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "mdm_training_XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code code;
  std::filesystem::remove_all(path_, code);
}

double worst_difference(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  if (a.size() != b.size()) throw std::runtime_error("lists of different length are compared");
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double largest = b[i].abs().max().item<double>();
    const double off = (a[i] - b[i]).abs().max().item<double>();
    if (off > 0) worst = std::max(worst, largest > 0 ? off / largest : 1e30);
  }
  return worst;
}

std::vector<at::Tensor> copies(const std::vector<NamedTensor>& named) {
  std::vector<at::Tensor> out;
  for (const NamedTensor& item : named) out.push_back(item.tensor.clone());
  return out;
}

}  // namespace mdm::training_test
