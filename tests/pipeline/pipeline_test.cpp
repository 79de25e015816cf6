// The class Pipeline: what it tells about a model, what it makes, who may look on, and what it refuses.
#include "mdm/pipeline.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <limits>

#include "mdm/checkpoint/write.h"
#include "mdm/core/error.h"
#include "mdm/pipeline/checkpoint_job.h"
#include "pipeline/device.h"
#include "pipeline/support.h"
#include "support/pictures.h"

namespace mdm {
namespace {

using pipeline_test::checkpoint_of;
using pipeline_test::Kind;
using pipeline_test::make_checkpoint;
using pipeline_test::model_yaml;
using pipeline_test::quick_settings;
using pipeline_test::request;
using test_support::contrast;
using test_support::largest_difference;
using test_support::psnr;

Pipeline opened(Kind kind, const Overrides& overrides = {}) {
  return Pipeline::from_checkpoint(checkpoint_of(kind), {}, overrides);
}

// The text of the error of this type that `run` throws; "" when it throws none.
template <typename ErrorType, typename Function>
std::string error_of(const Function& run) {
  try {
    run();
    return "";
  } catch (const ErrorType& error) {
    return error.what();
  }
}

void expect_parts(const std::string& error, const std::vector<std::string>& parts) {
  EXPECT_NE(error, "");
  for (const std::string& part : parts)
    EXPECT_NE(error.find(part), std::string::npos) << "no '" << part << "' in: " << error;
}

TEST(PipelineModel, TellsItsLevelsSizeAndTextWidth) {
  for (const auto& [kind, levels] :
       {std::pair{Kind::kFlat, 1u}, std::pair{Kind::kNested, 2u}, std::pair{Kind::kNested2, 3u}}) {
    const Pipeline pipeline = opened(kind);
    EXPECT_EQ(pipeline.levels(), levels);
    EXPECT_EQ(pipeline.text_width(), 32);
    EXPECT_EQ(pipeline.image_side(SampleConfig()), 16);
    EXPECT_EQ(pipeline.config().sample.checkpoint, checkpoint_of(kind));
  }
}

TEST(PipelineModel, ReadsTheTextsWidthFromTheInnermostLevel) {
  // With a projection the checkpoint's features are 32 wide, and what the levels see 16.
  std::string yaml = model_yaml(Kind::kNested);
  const std::string inner = "    temporal_dim: 64\n";
  yaml.replace(yaml.find(inner), inner.size(), inner + "    conditioning_feature_proj_dim: 16\n");
  const std::string projected = make_checkpoint("projected", yaml);
  Pipeline pipeline = Pipeline::from_checkpoint(projected);
  EXPECT_EQ(pipeline.text_width(), 32);
  EXPECT_EQ(pipeline.generate({request("a cat")}, quick_settings()).size(), 1u);
  EXPECT_EQ(Pipeline::from_checkpoint(make_checkpoint("narrow", model_yaml(Kind::kNested2), "24")).text_width(), 24);
}

TEST(PipelineModel, WithoutTextNeedsNoTextModel) {
  const std::string file = make_checkpoint("textless", model_yaml(Kind::kFlat), "0");
  Pipeline pipeline = Pipeline::from_checkpoint(file, {}, {{"text_model", "/nowhere"}});
  EXPECT_EQ(pipeline.text_width(), -1);
  SampleConfig settings = quick_settings();
  const auto guided = pipeline.generate({request("a cat", 3)}, settings);
  const auto other_prompt = pipeline.generate({request("a dog", 3)}, settings);
  settings.guidance_scale = 1;
  const auto plain = pipeline.generate({request("", 3)}, settings);
  ASSERT_EQ(plain.size(), 1u);
  EXPECT_EQ(guided[0].image.pixels, other_prompt[0].image.pixels);
  EXPECT_GE(psnr(guided[0].image, plain[0].image), 50);  // both halves of guidance are the same
}

TEST(PipelineModel, SaysHowLargeThePicturesAre) {
  const Pipeline flat = opened(Kind::kFlat), nested = opened(Kind::kNested);
  SampleConfig sample;
  sample.sample_image_size = 48;
  EXPECT_EQ(flat.image_side(sample), 48);
  const std::string unknown = make_checkpoint(
      "unknown_size", "model: unet\nunet_config: {resolution_channels: [32], conditioning_feature_dim: 32}\n");
  EXPECT_EQ(Pipeline::from_checkpoint(unknown, {}, {{"micro_conditioning", ""}, {"reader_config.image_size", "40"}})
                .image_side({}),
            40);
  expect_parts(error_of<ConfigError>([&] {
                 Pipeline::from_checkpoint(unknown, {}, {{"reader_config.image_size", "-1"}}).image_side({});
               }),
               {"sample_image_size: the config does not say how large the pictures are"});
  sample.sample_image_size = 17;
  expect_parts(error_of<ConfigError>([&] { flat.image_side(sample); }), {"sample_image_size: 17 does not divide by 2"});
  sample.sample_image_size = 18;
  EXPECT_EQ(flat.image_side(sample), 18);
  expect_parts(error_of<ConfigError>([&] { nested.image_side(sample); }),
               {"sample_image_size: 18 does not divide by 4"});
}

TEST(PipelineGenerate, MakesOnePictureARequestInTheirOrder) {
  Pipeline pipeline = opened(Kind::kNested);
  std::vector<PictureRequest> requests;
  for (uint64_t i = 0; i < 5; ++i) requests.push_back(request(i % 2 == 0 ? "a cat" : "a dog", 100 + i, "rain"));
  SampleConfig settings = quick_settings(2);
  settings.output_inner = true;
  const auto pictures = pipeline.generate(requests, settings);
  ASSERT_EQ(pictures.size(), 5u);
  for (size_t i = 0; i < pictures.size(); ++i) {
    EXPECT_EQ(pictures[i].index, i);
    EXPECT_EQ(pictures[i].request.prompt, requests[i].prompt);
    EXPECT_EQ(pictures[i].request.seed, requests[i].seed);
    EXPECT_EQ(pictures[i].image.width, 16);
    EXPECT_EQ(pictures[i].image.height, 16);
    EXPECT_EQ(pictures[i].image.channels, 3);
    ASSERT_EQ(pictures[i].inner.size(), 1u);
    EXPECT_EQ(pictures[i].inner[0].width, 8);
    EXPECT_GE(pictures[i].levels.width, 16 + 8);
    EXPECT_GT(contrast(pictures[i].image), 10);
    for (size_t k = 0; k < i; ++k) EXPECT_LT(psnr(pictures[k].image, pictures[i].image), 30);
  }
  EXPECT_TRUE(pipeline.generate({}, settings).empty());
  settings.output_inner = false;
  EXPECT_EQ(pipeline.generate({requests[0]}, settings)[0].levels.width, 0);
}

TEST(PipelineGenerate, MakesTheSameBitsEachTime) {
  for (const Kind kind : {Kind::kFlat, Kind::kNested}) {
    Pipeline pipeline = opened(kind);
    const std::vector<PictureRequest> requests = {request("a cat", 1), request("the sea at night", 2, "rain")};
    const auto first = pipeline.generate(requests, quick_settings());
    const auto second = pipeline.generate(requests, quick_settings());
    const auto third = opened(kind).generate(requests, quick_settings());
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(first[i].image.pixels, second[i].image.pixels);
      EXPECT_EQ(first[i].image.pixels, third[i].image.pixels);
    }
  }
}

TEST(PipelineGenerate, HardlyDependsOnTheNumberOfThreads) {
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = opened(Kind::kNested).generate({request("a cat", 1)}, quick_settings());
  at::set_num_threads(2);
  const auto two = opened(Kind::kNested).generate({request("a cat", 1)}, quick_settings());
  at::set_num_threads(before);
  EXPECT_LE(largest_difference(one[0].image, two[0].image), 2);
  EXPECT_GE(psnr(one[0].image, two[0].image), 50);
}

TEST(PipelineGenerate, FollowsEverySetting) {
  const PictureRequest cat = request("a cat", 1);
  Pipeline pipeline = opened(Kind::kFlat);
  const SampleConfig base = quick_settings();
  const Image usual = pipeline.generate({cat}, base)[0].image;
  using Change = std::function<void(SampleConfig&)>;
  const std::vector<std::pair<const char*, Change>> changes = {
      {"guidance_scale", [](SampleConfig& s) { s.guidance_scale = 1; }},
      {"guidance_rescale", [](SampleConfig& s) { s.guidance_rescale = 0.7; }},
      {"guidance_start", [](SampleConfig& s) { s.guidance_start = 0.5; }},
      {"guidance_end", [](SampleConfig& s) { s.guidance_end = 0.5; }},
      {"num_inference_steps", [](SampleConfig& s) { s.num_inference_steps = 5; }},
      {"ddim", [](SampleConfig& s) { s.sampler = SamplerKind::kDdim; }},
      {"ddim_eta", [](SampleConfig& s) { s.sampler = SamplerKind::kDdim, s.ddim_eta = 0.5; }},
      {"trailing", [](SampleConfig& s) { s.timestep_spacing = TimestepSpacing::kTrailing; }},
      {"leading", [](SampleConfig& s) { s.timestep_spacing = TimestepSpacing::kLeading; }},
      {"linspace", [](SampleConfig& s) { s.timestep_spacing = TimestepSpacing::kLinspace; }},
      {"threshold none", [](SampleConfig& s) { s.threshold = ThresholdType::kNone; }},
      {"threshold dynamic", [](SampleConfig& s) { s.threshold = ThresholdType::kDynamic; }}};
  std::vector<Image> made;
  for (const auto& [name, change] : changes) {
    SampleConfig settings = base;
    change(settings);
    made.push_back(pipeline.generate({cat}, settings)[0].image);
    EXPECT_GT(largest_difference(made.back(), usual), 2) << name;
  }
  EXPECT_GT(largest_difference(made[5], made[6]), 2);  // ddim with eta 0 and 0.5
  // What must not change anything.
  SampleConfig settings = base;
  settings.sampler = SamplerKind::kDdim;
  settings.ddim_eta = 1;
  EXPECT_LE(largest_difference(pipeline.generate({cat}, settings)[0].image, usual), 1);  // is DDPM
  settings = base;
  settings.strength = 0.5;  // no picture to start from
  EXPECT_EQ(pipeline.generate({cat}, settings)[0].image.pixels, usual.pixels);
  // What belongs to the request.
  EXPECT_GT(largest_difference(pipeline.generate({request("a dog", 1)}, base)[0].image, usual), 2);
  EXPECT_GT(largest_difference(pipeline.generate({request("a cat", 2)}, base)[0].image, usual), 2);
  EXPECT_GT(largest_difference(pipeline.generate({request("a cat", 1, "rain")}, base)[0].image, usual), 2);
  settings = base;
  settings.guidance_scale = 1;
  EXPECT_EQ(pipeline.generate({request("a cat", 1, "rain")}, settings)[0].image.pixels,
            made[0].pixels);  // not looked at
  settings = base;
  settings.sample_image_size = 32;
  EXPECT_EQ(pipeline.generate({cat}, settings)[0].image.width, 32);
  // What belongs to the pipeline.
  EXPECT_GT(largest_difference(opened(Kind::kFlat, {{"pad", "fixed:40"}}).generate({cat}, base)[0].image, usual), 2);
  const Image half = opened(Kind::kFlat, {{"precision", "bf16"}}).generate({cat}, base)[0].image;
  EXPECT_NE(half.pixels, usual.pixels);
  EXPECT_GT(psnr(half, usual), 20);
}

TEST(PipelineCallbacks, SeeEveryStepOfEveryBatch) {
  Pipeline pipeline = opened(Kind::kNested);
  std::vector<std::vector<int64_t>> steps;
  std::vector<Image> last;
  GenerationCallbacks callbacks;
  callbacks.on_step = [&](const GenerationStep& step) {
    steps.push_back({step.step, step.steps, static_cast<int64_t>(step.first), static_cast<int64_t>(step.count)});
    EXPECT_EQ(step.predicted(0).width, 16);
    EXPECT_EQ(step.noisy(step.count - 1, 1).width, 8);
    EXPECT_THROW(step.predicted(step.count), Error);
    EXPECT_THROW(step.noisy(0, 2), Error);
    if (step.step < step.steps) return;
    for (size_t i = 0; i < step.count; ++i) last.push_back(step.noisy(i));
  };
  const std::vector<PictureRequest> requests = {request("a", 1), request("b", 2), request("c", 3)};
  SampleConfig settings = quick_settings(2);
  settings.num_inference_steps = 2;
  const auto pictures = pipeline.generate(requests, settings, callbacks);
  EXPECT_EQ(steps, (std::vector<std::vector<int64_t>>{{1, 2, 0, 2}, {2, 2, 0, 2}, {1, 2, 2, 1}, {2, 2, 2, 1}}));
  ASSERT_EQ(last.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(last[i].pixels, pictures[i].image.pixels);
}

TEST(PipelineCallbacks, GetPicturesBatchByBatch) {
  Pipeline pipeline = opened(Kind::kFlat);
  const std::vector<PictureRequest> requests = {request("a", 1), request("b", 2), request("c", 3)};
  const auto expected = pipeline.generate(requests, quick_settings(2));
  std::vector<size_t> sizes;
  std::vector<Picture> got;
  GenerationCallbacks callbacks;
  callbacks.on_pictures = [&](std::vector<Picture> pictures) {
    sizes.push_back(pictures.size());
    std::move(pictures.begin(), pictures.end(), std::back_inserter(got));
  };
  EXPECT_TRUE(pipeline.generate(requests, quick_settings(2), callbacks).empty());
  EXPECT_EQ(sizes, (std::vector<size_t>{2, 1}));
  ASSERT_EQ(got.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(got[i].image.pixels, expected[i].image.pixels);
  callbacks.on_pictures = [](const std::vector<Picture>&) { throw Error("the disk is full"); };
  EXPECT_EQ(error_of<Error>([&] { pipeline.generate(requests, quick_settings(2), callbacks); }), "the disk is full");
  EXPECT_EQ(pipeline.generate(requests, quick_settings(2))[2].image.pixels, expected[2].image.pixels);  // still usable
}

TEST(PipelineCallbacks, CancelKeepsFinishedBatches) {
  Pipeline pipeline = opened(Kind::kFlat);
  std::atomic<bool> cancel{false};
  int steps = 0;
  GenerationCallbacks callbacks;
  callbacks.cancel = &cancel;
  callbacks.on_step = [&](const GenerationStep& step) {
    ++steps;
    if (step.first == 2 && step.step == 2) cancel = true;
  };
  const std::vector<PictureRequest> requests = {request("a", 1), request("b", 2), request("c", 3), request("d", 4),
                                                request("e", 5)};
  EXPECT_EQ(pipeline.generate(requests, quick_settings(2), callbacks).size(), 2u);
  EXPECT_EQ(steps, 4 + 2);
  EXPECT_TRUE(pipeline.generate(requests, quick_settings(2), callbacks).empty());
  EXPECT_EQ(steps, 4 + 2);
  cancel = false;
  EXPECT_EQ(pipeline.generate(requests, quick_settings(5)).size(), 5u);
}

// Whether the encoder was kept shows when its folder is gone.
TEST(PipelineText, IsReadAgainUnlessItsEncoderIsKept) {
  for (const bool keep : {true, false}) {
    const auto folder = pipeline_test::scratch() / "encoder";
    std::filesystem::copy(pipeline_test::text_model(), folder);
    Pipeline pipeline =
        opened(Kind::kFlat, {{"text_model", folder.string()}, {"keep_text_encoder", keep ? "yes" : "no"}});
    const auto first = pipeline.generate({request("a cat", 1)}, quick_settings());
    std::filesystem::remove_all(folder);
    if (keep) {
      EXPECT_EQ(pipeline.generate({request("a cat", 1)}, quick_settings())[0].image.pixels, first[0].image.pixels);
    } else {
      expect_parts(error_of<ConfigError>([&] { pipeline.generate({request("a cat", 1)}, quick_settings()); }),
                   {"text_model '" + folder.string(), "config.json"});
    }
  }
}

TEST(PipelineText, OfAnotherWidthIsRefused) {
  Pipeline pipeline = Pipeline::from_checkpoint(make_checkpoint("narrow_text", model_yaml(Kind::kFlat), "24"));
  expect_parts(error_of<ConfigError>([&] { pipeline.generate({request("a cat")}, quick_settings()); }),
               {"text_model: '", "makes features 32 wide, but the checkpoint was trained with 24"});
}

TEST(PipelineErrors, NameTheSettingThatIsWrong) {
  Pipeline pipeline = opened(Kind::kFlat);
  const auto refused = [&](const std::function<void(SampleConfig&)>& change) {
    SampleConfig settings = quick_settings();
    change(settings);
    return error_of<ConfigError>([&] { pipeline.generate({request("a cat")}, settings); });
  };
  expect_parts(refused([](SampleConfig& s) { s.batch_size = 0; }), {"batch_size: must be at least 1"});
  expect_parts(refused([](SampleConfig& s) { s.num_inference_steps = 0; }),
               {"num_inference_steps: must be at least 1"});
  expect_parts(refused([](SampleConfig& s) { s.guidance_scale = std::numeric_limits<double>::quiet_NaN(); }),
               {"guidance_scale"});
  expect_parts(refused([](SampleConfig& s) { s.guidance_rescale = 2; }), {"guidance_rescale"});
  expect_parts(refused([](SampleConfig& s) { s.guidance_start = 1; }), {"guidance"});
  expect_parts(refused([](SampleConfig& s) { s.sampler = SamplerKind::kDdim, s.ddim_eta = -1; }), {"ddim_eta"});
  expect_parts(refused([](SampleConfig& s) { s.init_image = "x.png", s.strength = 0; }), {"strength"});
  expect_parts(refused([](SampleConfig& s) { s.sample_image_size = 15; }), {"sample_image_size: 15"});
}

TEST(PipelineErrors, TellWhatIsWrongWithACheckpoint) {
  expect_parts(error_of<CheckpointError>([] { Pipeline::from_checkpoint("/gone.pth"); }), {"/gone.pth"});
  Config config = opened(Kind::kFlat).config();
  config.sample.checkpoint.clear();
  expect_parts(error_of<ConfigError>([&] { Pipeline{config}; }), {"checkpoint: no file of weights is named"});
  config.sample.checkpoint = checkpoint_of(Kind::kNested);
  expect_parts(error_of<CheckpointError>([&] { Pipeline{config}; }),
               {"doesn't fit the model", "inner_unet.conv_in.weight",
                "The config describes a unet; use the config that belongs"});

  // One without a config inside needs a YAML file.
  const auto bare = pipeline_test::scratch() / "bare.safetensors";
  const TensorFile source = TensorFile::open(checkpoint_of(Kind::kFlat));
  std::vector<NamedTensor> tensors;
  for (const TensorEntry& entry : source.entries()) tensors.push_back({entry.name, source.tensor(entry.name)});
  write_safetensors(bare, tensors);
  expect_parts(error_of<ConfigError>([&] { Pipeline::from_checkpoint(bare); }),
               {"bare.safetensors: holds no config; name the model's YAML"});
  const auto yaml = pipeline_test::scratch_file("bare.yaml", model_yaml(Kind::kFlat));
  EXPECT_EQ(Pipeline::from_checkpoint(bare, {yaml}).generate({request("a cat", 1)}, quick_settings())[0].image.pixels,
            opened(Kind::kFlat).generate({request("a cat", 1)}, quick_settings())[0].image.pixels);
  // A missing tensor is named.
  tensors.erase(tensors.begin() + 5);
  write_safetensors(bare, tensors);
  expect_parts(error_of<CheckpointError>([&] { Pipeline::from_checkpoint(bare, {yaml}); }),
               {"1 missing:\n    " + source.entries()[5].name});
}

TEST(PipelineDevices, AreNamedAndThereOrRefused) {
  EXPECT_TRUE(resolve_device("cpu").is_cpu());
  for (const char* wrong : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:12345", "cpu:0", "CPU"}) {
    EXPECT_THROW(resolve_device(wrong), ConfigError) << wrong;
  }
  EXPECT_THROW(resolve_device("cuda:9999"), ConfigError);
  if (resolve_device("auto").is_cuda()) return;
  expect_parts(error_of<ConfigError>([] { resolve_device("cuda"); }),
               {"device: cuda was asked for", "use --device cpu"});
  expect_parts(error_of<ConfigError>([] {
                 opened(Kind::kFlat, {{"device", "cuda:0"}});
               }),
               {"device: cuda:0 was asked for"});
}

}  // namespace
}  // namespace mdm
