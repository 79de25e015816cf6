// A look inside the model while it draws: guidance's halves, attention over the prompt, times of blocks, tokens, parts;
// and text encoders that pipelines share.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

#include "mdm/pipeline.h"
#include "pipeline/shared_text_encoders.h"
#include "pipeline/support.h"

namespace mdm {
namespace {

using pipeline_test::checkpoint_of;
using pipeline_test::Kind;
using pipeline_test::quick_settings;
using pipeline_test::request;

// Draws two pictures and calls `look` at each step.
std::vector<Picture> looked_at(Pipeline& pipeline, const SampleConfig& sample,
                               const std::function<void(const GenerationStep&)>& look) {
  GenerationCallbacks callbacks;
  callbacks.look_inside = true;
  callbacks.on_step = look;
  return pipeline.generate({request("a dog", 3, "blue"), request("the old man and the sea", 4)}, sample, callbacks);
}

TEST(LookInside, LeavesPicturesAsTheyAre) {
  for (const Kind kind : {Kind::kFlat, Kind::kNested, Kind::kNested2}) {
    Pipeline pipeline = Pipeline::from_checkpoint(checkpoint_of(kind));
    const auto plain =
        pipeline.generate({request("a dog", 3, "blue"), request("the old man and the sea", 4)}, quick_settings());
    const auto seen = looked_at(pipeline, quick_settings(), [](const GenerationStep& step) { step.attention(0); });
    ASSERT_EQ(seen.size(), plain.size());
    for (size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i].image.pixels, plain[i].image.pixels);
  }
}

// With guidance of nearly nothing but one half, the picture is that half's.
TEST(LookInside, HalvesOfGuidanceAreWhatTheyMakeAlone) {
  Pipeline pipeline = Pipeline::from_checkpoint(checkpoint_of(Kind::kNested));
  SampleConfig sample = quick_settings();
  sample.num_inference_steps = 2;
  for (const auto& [scale, half] :
       {std::pair(1 + 1e-9, GuidanceHalf::kConditional), std::pair(1e-9, GuidanceHalf::kUnconditional)}) {
    sample.guidance_scale = scale;
    looked_at(pipeline, sample, [&, half = half](const GenerationStep& step) {
      for (size_t at = 0; at < 2; ++at) {
        for (size_t level = 0; level < 2; ++level) {
          EXPECT_EQ(step.predicted_by(half, at, level).pixels, step.predicted(at, level).pixels);
          EXPECT_EQ(step.predicted_by(half, at, level).width, level == 0 ? 16 : 8);
        }
      }
    });
  }
  // Outside of the interval of guidance there are no halves, and with guidance 1 never.
  sample.guidance_scale = 3;
  sample.guidance_end = 0.5;
  looked_at(pipeline, sample, [](const GenerationStep& step) {
    EXPECT_EQ(step.predicted_by(GuidanceHalf::kConditional, 0).width > 0, step.step == 1);
  });
  sample.guidance_scale = 1;
  sample.guidance_end = 1;
  looked_at(pipeline, sample,
            [](const GenerationStep& step) { EXPECT_EQ(step.predicted_by(GuidanceHalf::kConditional, 0).width, 0); });
}

TEST(LookInside, AttentionIsOfThePromptAndSumsToOne) {
  Pipeline pipeline = Pipeline::from_checkpoint(checkpoint_of(Kind::kNested));
  for (const double scale : {1.0, 3.0}) {
    SampleConfig sample = quick_settings();
    sample.guidance_scale = scale;
    looked_at(pipeline, sample, [&](const GenerationStep& step) {
      const auto first = step.attention(0), second = step.attention(1);
      ASSERT_EQ(first.size(), second.size());
      ASSERT_GE(first.size(), 1u);
      for (const AttentionMap& map : first) {
        EXPECT_EQ(map.level, 1u) << map.layer;
        EXPECT_EQ(map.height, 4) << "the inner level attends at its lowest resolution";
        const auto places = static_cast<size_t>(map.height * map.width);
        ASSERT_EQ(map.weights.size(), places * static_cast<size_t>(map.tokens));
        EXPECT_GE(static_cast<size_t>(map.tokens), pipeline.tokens("a dog").tokens.size());
        for (size_t place = 0; place < places; ++place) {
          double sum = 0;
          for (size_t token = 0; token < static_cast<size_t>(map.tokens); ++token)
            sum += map.weights[token * places + place];
          EXPECT_NEAR(sum, 1, 1e-5);
        }
      }
      EXPECT_NE(first[0].weights, second[0].weights) << "two prompts are looked at alike";
    });
  }
}

TEST(LookInside, TimesAreOfEveryBlockOnce) {
  Pipeline pipeline = Pipeline::from_checkpoint(checkpoint_of(Kind::kNested));
  for (const SamplerKind kind : {SamplerKind::kDdpm, SamplerKind::kHeun}) {  // Heun calls the model twice a step
    SampleConfig sample = quick_settings();
    sample.sampler = kind;
    size_t blocks = 0;
    looked_at(pipeline, sample, [&](const GenerationStep& step) {
      const auto times = step.block_times();
      std::set<std::string> names;
      for (const BlockTime& time : times) {
        EXPECT_TRUE(names.insert(time.block).second) << time.block;
        EXPECT_GE(time.seconds, 0);
      }
      EXPECT_TRUE(names.count("0.conv_in") && names.count("1.conv_in") && names.count("1.up_blocks.0"));
      EXPECT_TRUE(blocks == 0 || times.size() == blocks);
      blocks = times.size();
    });
  }
}

TEST(LookInside, StepsSayTheirTime) {
  Pipeline pipeline = Pipeline::from_checkpoint(checkpoint_of(Kind::kFlat));
  int64_t last = 1000;
  looked_at(pipeline, quick_settings(), [&](const GenerationStep& step) {
    EXPECT_LT(step.time, last);
    EXPECT_GE(step.time, 0);
    last = step.time;
  });
}

TEST(Structure, CountsEveryParameter) {
  for (const Kind kind : {Kind::kFlat, Kind::kNested2}) {
    const Pipeline pipeline = Pipeline::from_checkpoint(checkpoint_of(kind));
    const std::function<int64_t(const ModelPart&)> leaves = [&](const ModelPart& part) {
      int64_t inner = 0, sum = 0;
      for (const ModelPart& one : part.parts) {
        inner += one.parameters;
        sum += leaves(one);
      }
      return sum + part.parameters - inner;
    };
    EXPECT_EQ(leaves(pipeline.structure()), pipeline.structure().parameters);
    EXPECT_GT(pipeline.structure().parameters, 100000);
    EXPECT_EQ(pipeline.weight_bytes(), 4 * pipeline.structure().parameters);
  }
}

TEST(Tokens, AreTheEncodersOwn) {
  const Pipeline pipeline = Pipeline::from_checkpoint(checkpoint_of(Kind::kFlat));
  const PromptTokens tokens = pipeline.tokens("a dog");
  std::string joined;
  for (const PromptToken& token : tokens.tokens) joined += token.piece;
  EXPECT_EQ(joined, " a dog</s>");
  EXPECT_FALSE(tokens.cut);
  std::string words;
  for (int i = 0; i < 200; ++i) words += "a dog ";
  EXPECT_TRUE(pipeline.tokens(words).cut);
  const Pipeline without =
      Pipeline::from_checkpoint(pipeline_test::make_checkpoint("no_text", pipeline_test::model_yaml(Kind::kFlat), "0"));
  EXPECT_TRUE(without.tokens("a dog").tokens.empty());
}

TEST(Unloading, FreesAndLoadsAgain) {
  Pipeline pipeline = Pipeline::from_checkpoint(checkpoint_of(Kind::kFlat));
  EXPECT_FALSE(pipeline.loaded());
  const auto first = pipeline.generate({request("a dog", 3)}, quick_settings());
  EXPECT_TRUE(pipeline.loaded());
  pipeline.unload();
  EXPECT_FALSE(pipeline.loaded());
  EXPECT_EQ(pipeline.generate({request("a dog", 3)}, quick_settings())[0].image.pixels, first[0].image.pixels);
}

TEST(SharedEncoders, OfEqualSettingsAreOne) {
  const Config config = Pipeline::from_checkpoint(checkpoint_of(Kind::kFlat)).config();
  SharedTextEncoders shared;
  auto first = shared.get(config.text, config.reader, {});
  ReaderConfig other_size = config.reader;
  other_size.image_size = 99;
  EXPECT_EQ(shared.get(config.text, other_size, {}), first);
  ReaderConfig other_tokens = config.reader;
  other_tokens.max_token_length = 7;
  EXPECT_NE(shared.get(config.text, other_tokens, {}), first);
  const std::weak_ptr<TextEncoder> weak = first;
  first.reset();
  EXPECT_TRUE(weak.expired()) << "nobody uses it, and it stays in memory";
}

TEST(SharedEncoders, GiveThePicturesOfOwnOnes) {
  const auto shared = share_text_encoders();
  const Overrides keep = {{"text.keep_text_encoder", "yes"}};
  Pipeline own = Pipeline::from_checkpoint(checkpoint_of(Kind::kFlat));
  Pipeline a = Pipeline::from_checkpoint(checkpoint_of(Kind::kFlat), {}, keep, shared);
  Pipeline b = Pipeline::from_checkpoint(checkpoint_of(Kind::kNested), {}, keep, shared);
  const auto expected = own.generate({request("a dog", 3)}, quick_settings())[0].image.pixels;
  EXPECT_EQ(a.generate({request("a dog", 3)}, quick_settings())[0].image.pixels, expected);
  b.generate({request("a dog", 3)}, quick_settings());
  a.unload();
  EXPECT_EQ(a.generate({request("a dog", 3)}, quick_settings())[0].image.pixels, expected);
}

}  // namespace
}  // namespace mdm
