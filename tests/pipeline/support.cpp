#include "pipeline/support.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <map>

#include "mdm/pipeline/checkpoint_job.h"

namespace mdm::pipeline_test {
namespace {

namespace fs = std::filesystem;

struct Scratch {
  fs::path path;
  Scratch() {
    std::string name = (fs::path(::testing::TempDir()) / "mdm_pipeline_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no folder " + name);
    path = name;
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

// These models are too small for threads to gain anything, and two busy cores make them wait for each other.
class OneThread : public ::testing::Environment {
 public:
  void SetUp() override { at::set_num_threads(1); }
};
const auto* const kOneThread = ::testing::AddGlobalTestEnvironment(new OneThread);

// A level that attends to text at its lowest resolution.
std::string level(const std::string& indent, bool innermost, int scale) {
  std::string out;
  const auto line = [&](const std::string& text) { out += indent + text + "\n"; };
  line("resolution_channels: [16, 32]");
  line("num_resnets_per_resolution: 1");
  line(innermost ? "attention_levels: [1]" : "attention_levels: []");
  line(innermost ? "num_attention_layers: [0, 1]" : "num_attention_layers: 0");
  line("temporal_dim: 64");
  line("masked_cross_attention: 0");
  line("micro_conditioning: scale:" + std::to_string(scale));
  line("resnet_config: {num_groups_norm: 8, use_attention_ffn: true}");
  return out;
}

}  // namespace

const fs::path& scratch() {
  static const Scratch folder;
  return folder.path;
}

fs::path scratch_file(const std::string& name, const std::string& bytes) {
  std::ofstream(scratch() / name, std::ios::binary) << bytes;
  return scratch() / name;
}

fs::path text_model() { return fs::path(MDM_PROJECT_DIR) / "configs/demo/text_model"; }

std::string model_yaml(Kind kind) {
  const int levels = kind == Kind::kFlat ? 1 : kind == Kind::kNested ? 2 : 3;
  std::string yaml = std::string("model: ") +
                     (levels == 1   ? "unet"
                      : levels == 2 ? "nested_unet"
                                    : "nested2_unet") +
                     "\nunet_config:\n";
  std::string indent = "  ";
  for (int i = 0; i < levels; ++i) {
    if (i > 0) {
      yaml += indent + "inner_config:\n";
      indent += "  ";
    }
    yaml += level(indent, i + 1 == levels, 16 >> i);
    if (i == 0) yaml += indent + "conditioning_feature_dim: 32\n";
  }
  yaml +=
      "diffusion_config:\n  sampler_config: {num_diffusion_steps: 1000, schedule_type: DEEPFLOYD, "
      "prediction_type: V_PREDICTION" +
      std::string(levels > 1 ? ", rescale_signal: 1, schedule_shifted: true}" : "}") +
      "\nreader_config: {image_size: 16, max_caption_length: 512, max_token_length: 128}\n"
      "text_model: " +
      text_model().string() + "\nvocab_file: " + (text_model() / "own.vocab").string() + "\n";
  return yaml;
}

std::string make_checkpoint(const std::string& name, const std::string& yaml, const std::string& text_width,
                            const std::string& seed) {
  const std::string file = (scratch() / (name + ".pth")).string();
  std::vector<std::string> words = {"init",        file, "--config-path", scratch_file(name + ".yaml", yaml).string(),
                                    "--randomize", seed};
  if (!text_width.empty()) words.insert(words.end(), {"--text-width", text_width});
  const int code = run_checkpoint(parse_command_line(words, checkpoint_app_info()));
  EXPECT_EQ(code, 0);
  return file;
}

const std::string& checkpoint_of(Kind kind) {
  static std::map<Kind, std::string> made;
  std::string& file = made[kind];
  if (file.empty()) file = make_checkpoint("model_" + std::to_string(static_cast<int>(kind)), model_yaml(kind));
  return file;
}

SampleConfig quick_settings(int64_t batch_size) {
  SampleConfig sample;
  sample.num_inference_steps = 4;
  sample.guidance_scale = 3;
  sample.batch_size = batch_size;
  return sample;
}

PictureRequest request(const std::string& prompt, uint64_t seed, const std::string& negative) {
  PictureRequest out;
  out.prompt = prompt;
  out.negative_prompt = negative;
  out.seed = seed;
  return out;
}

}  // namespace mdm::pipeline_test
