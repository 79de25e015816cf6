#include "training/small_job.h"

#include <string>

#include "mdm/core/files.h"
#include "mdm/data/tar.h"
#include "mdm/media/png.h"

namespace mdm::training_test {
namespace {

const char* const kJobVocabulary =
    "<pad>\t0\n</"
    "s>\t0\n<unk>\t0\n\xE2\x96\x81\t-2\na\t-4\nb\t-4\nc\t-4\nd\t-4\ne\t-4\ng\t-4\nl\t-4\nn\t-4\nr\t-4\nu\t-4\n";

const char* const kFlatJob = R"(
model: unet
unet_config:
  resolution_channels: [8, 32]
  num_resnets_per_resolution: 1
  attention_levels: [1]
  num_attention_layers: [0, 1]
  conditioning_feature_proj_dim: -1
  micro_conditioning: scale:16
  resnet_config: {num_groups_norm: 4}
diffusion_config:
  use_vdm_loss_weights: false
  sampler_config: {num_diffusion_steps: 50, schedule_type: DEEPFLOYD, prediction_type: V_PREDICTION}
reader_config: {image_size: 8, smaller_side_size: 8, num_readers: 1, max_token_length: 16}
)";

const char* const kNestedJob = R"(
model: nested_unet
unet_config:
  resolution_channels: [8, 32]
  num_resnets_per_resolution: 1
  attention_levels: []
  temporal_dim: 32
  conditioning_feature_proj_dim: -1
  micro_conditioning: scale:16
  resnet_config: {num_groups_norm: 4}
  inner_config:
    resolution_channels: [8, 32]
    num_resnets_per_resolution: 1
    attention_levels: [1]
    num_attention_layers: [0, 1]
    conditioning_feature_proj_dim: -1
    micro_conditioning: scale:16
    skip_mid_blocks: false
    skip_cond_emb: false
    resnet_config: {num_groups_norm: 4}
diffusion_config:
  use_vdm_loss_weights: false
  use_double_loss: true
  mixed_ratio: 1:1
  sampler_config: {num_diffusion_steps: 50, schedule_type: DEEPFLOYD, prediction_type: V_PREDICTION}
reader_config: {image_size: 16, smaller_side_size: 16, num_readers: 1, max_token_length: 16}
)";

const char* const kRestOfJob = R"(
text: {text_kind: joint, joint_width: 16, joint_layers: 1, joint_heads: 2, joint_tokens: 16}
trainer:
  {batch_size: 4, num_training_steps: 12, use_adamw: true, warmup_steps: 3, save_freq: 5, log_freq: 1, seed: 3}
)";

// A colour gradient of its own for each eighth sample.
Image small_picture(int sample) {
  constexpr int kSide = 8;
  Image image(kSide, kSide, 3);
  uint8_t* bytes = image.pixels.data();
  for (int y = 0; y < kSide; ++y) {
    for (int x = 0; x < kSide; ++x) {
      for (int c = 0; c < 3; ++c) {
        const int along = ((sample >> c) & 1) != 0 ? x : kSide - 1 - y;
        *bytes++ = static_cast<uint8_t>(255 * along / (kSide - 1));
      }
    }
  }
  return image;
}

}  // namespace

const char* small_job_caption(int sample) { return sample % 2 == 0 ? "a red blue" : "bag and lace"; }

void write_small_job(const std::filesystem::path& folder) {
  make_writable_folder(folder);
  write_file(folder / "vocabulary.vocab", kJobVocabulary);
  write_file(folder / "flat.yaml", std::string(kFlatJob) + kRestOfJob);
  write_file(folder / "nested.yaml", std::string(kNestedJob) + kRestOfJob);
  TarWriter tar(folder / "train.tar");
  std::string list = "tar\tfile\tcaption\n";
  for (int i = 0; i < kSmallJobSamples; ++i) {
    const std::string key = std::to_string(i);
    tar.add(key + ".png", encode_png(small_picture(i)));
    tar.add(key + ".txt", small_job_caption(i));
    list += "train.tar\t" + key + ".png\t" + small_job_caption(i) + "\n";
  }
  tar.finish();
  write_file(folder / "train.tsv", list);
}

std::vector<std::string> small_job_command(const std::string& program, const std::filesystem::path& folder,
                                           const std::string& config, const std::filesystem::path& run) {
  return {program,
          "--config-path",
          (folder / config).string(),
          "--file-list",
          (folder / "train.tar").string(),
          "--vocab-file",
          (folder / "vocabulary.vocab").string(),
          "--output-dir",
          run.string()};
}

}  // namespace mdm::training_test
