// Whole runs through graphs, on a device that is emulated: the pictures of every sampler are those without, to the bit.
#include <algorithm>
#include <set>

#include "mdm/diffusion/guidance.h"
#include "support/fake_graph.h"
#include "test_model.h"

namespace mdm {
namespace {

using testing::FakeDevice;
using testing::random_text;
using testing::tiny_model;
using Levels = std::vector<at::Tensor>;

constexpr SamplerKind kSamplers[] = {SamplerKind::kDdpm, SamplerKind::kDdim,        SamplerKind::kEuler,
                                     SamplerKind::kHeun, SamplerKind::kDpmSolver2M, SamplerKind::kDpmSolver2MSde,
                                     SamplerKind::kUniPc};

// A run of a nested model, and what an onlooker sees of it on the way.
struct Seen {
  std::vector<Levels> steps;  // x_t and x_0 after each step
  std::vector<Levels> halves;
};

struct RunSetting {
  SamplerKind sampler = SamplerKind::kDdim;
  PredictionType predicts = PredictionType::kVPrediction;
  ThresholdType threshold = ThresholdType::kClip;
  GuidanceOptions guidance;
  bool keeps_halves = false;
  int64_t count = 12;
};

Seen run_of(const UNet& model, const RunSetting& setting, GraphMaker* make) {
  const at::NoGradGuard no_grad;
  SamplerConfig config;
  config.num_diffusion_steps = 100;
  config.schedule_type = ScheduleType::kCosine;
  config.prediction_type = setting.predicts;
  config.threshold_function = setting.threshold;
  const Schedule schedule(config, {2, 1});
  const TextEmbedding text = random_text(4);
  GuidedModel guided(model, condition_pairs(model, &text, {}, 2), setting.guidance);
  if (setting.keeps_halves) guided.keep_halves();
  const Denoiser denoiser(schedule, guided.callback());
  SampleConfig sample;
  sample.sampler = setting.sampler;
  const auto sampler = make_sampler(sample);
  SeededNoise noise({5, 6});
  SamplingRun run;
  run.batch = 2;
  run.height = run.width = 16;
  run.timesteps = make_timesteps(100, setting.count, TimestepSpacing::kReference);
  std::unique_ptr<GraphedForward> graphed;
  if (make != nullptr) {
    graphed = std::make_unique<GraphedForward>(model, *make, setting.count);
    guided.run_through(*graphed);
  }
  Seen out;
  run.before_step = [&](const SamplingStep& step) { guided.begin_step(step); };
  run.after_step = [&](const SamplingStep&, const SampleState& state) {
    out.steps.push_back(state.x_t);
    out.steps.push_back(state.x_0);
    out.halves.push_back(guided.halves().unconditional);
    out.halves.push_back(guided.halves().conditional);
  };
  run_sampler(*sampler, denoiser, noise, run);
  return out;
}

// All that was seen is compared at the end of the run: what a later step overwrites shows.
void expect_equal(const std::vector<Levels>& a, const std::vector<Levels>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].size(), b[i].size());
    for (size_t level = 0; level < a[i].size(); ++level) ASSERT_TRUE(a[i][level].equal(b[i][level])) << i;
  }
}

class GraphedSampling : public ::testing::Test {
 protected:
  // -> replays of the run.
  int64_t expect_same(const RunSetting& setting) {
    device_ = {};
    GraphMaker make = device_.maker();
    const Seen eager = run_of(*model_, setting, nullptr), graphed = run_of(*model_, setting, &make);
    expect_equal(graphed.steps, eager.steps);
    expect_equal(graphed.halves, eager.halves);
    EXPECT_TRUE(make) << "no graph has failed";
    return std::count_if(device_.calls.begin(), device_.calls.end(),
                         [](const std::string& call) { return call.rfind("replay", 0) == 0; });
  }

  std::shared_ptr<UNet> model_ = tiny_model(2);
  FakeDevice device_;
};

TEST_F(GraphedSampling, OfEverySamplerGivesTheSameStates) {
  for (const SamplerKind sampler : kSamplers) {
    for (const bool rescales : {false, true}) {
      SCOPED_TRACE(::testing::Message() << static_cast<int>(sampler) << " " << rescales);
      RunSetting setting;
      setting.sampler = sampler;
      setting.guidance.scale = 3;
      setting.guidance.rescale = rescales ? 0.5 : 0;
      const int64_t calls = sampler == SamplerKind::kHeun ? 2 * setting.count - 1 : setting.count;
      EXPECT_EQ(expect_same(setting), calls - 1);
      EXPECT_EQ(device_.graphs, 1);
    }
  }
}

TEST_F(GraphedSampling, WithoutGuidanceAndInAnInterval) {
  RunSetting setting;
  EXPECT_EQ(expect_same(setting), setting.count - 1);
  setting.guidance.scale = 3;
  setting.guidance.start = 0.25;
  setting.guidance.end = 0.75;
  for (const SamplerKind sampler : {SamplerKind::kDdim, SamplerKind::kUniPc}) {
    setting.sampler = sampler;
    EXPECT_EQ(expect_same(setting), setting.count - 2);
    EXPECT_EQ(device_.graphs, 2);
  }
}

// Where the model's output is x_0 and nothing bounds it, a state may be the output itself.
TEST_F(GraphedSampling, OfX0WithoutThreshold) {
  for (const SamplerKind sampler : kSamplers) {
    RunSetting setting;
    setting.sampler = sampler;
    setting.predicts = PredictionType::kX0;
    setting.threshold = ThresholdType::kNone;
    EXPECT_GT(expect_same(setting), 0);
  }
}

TEST_F(GraphedSampling, KeepsHalvesThatStay) {
  RunSetting setting;
  setting.guidance.scale = 3;
  setting.keeps_halves = true;
  EXPECT_GT(expect_same(setting), 0);
}

TEST_F(GraphedSampling, GoesOnWithTheSameStatesWhenItFails) {
  RunSetting setting;
  setting.guidance.scale = 3;
  const Seen eager = run_of(*model_, setting, nullptr);
  for (const char* where : {"warm_up", "record", "replay"}) {
    device_ = {};
    device_.throws_at = where;
    GraphMaker make = device_.maker();
    expect_equal(run_of(*model_, setting, &make).steps, eager.steps);
    EXPECT_FALSE(make);
  }
}

}  // namespace
}  // namespace mdm
