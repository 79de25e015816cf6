// Graphs of the forward pass: what is asked of the device, and that its outputs are the model's own, to the bit.
#include "mdm/models/graphed_forward.h"

#include <c10/core/GradMode.h>

#include "diffusion/test_model.h"
#include "support/fake_graph.h"

namespace mdm {
namespace {

using testing::FakeDevice;
using testing::random_tensor;
using testing::random_text;
using testing::tiny_model;
using Calls = std::vector<std::string>;
using Levels = std::vector<at::Tensor>;

constexpr int64_t kMany = 50;

struct Inputs {
  Levels x_t;
  at::Tensor times;
};

class GraphedForwardTest : public ::testing::Test {
 protected:
  // Those of one step; another `seed`, another step.
  static Inputs inputs(uint64_t seed, int64_t batch = 2) {
    const auto number = static_cast<int64_t>(seed);
    return {{random_tensor({batch, 3, 16, 16}, seed), random_tensor({batch, 3, 8, 8}, seed + 1)},
            at::full({batch}, 900 - 7 * number, at::kLong)};
  }
  Levels eager(const Inputs& in, const Conditioning& conditioning) const {
    return model_->forward(in.x_t, in.times, conditioning);
  }
  static bool equal(const Levels& a, const Levels& b) {
    bool same = a.size() == b.size();
    for (size_t i = 0; same && i < a.size(); ++i) same = a[i].equal(b[i]);
    return same;
  }
  // Steps [first, last): all outputs must be the model's.
  void expect_steps(GraphedForward& forward, uint64_t first, uint64_t last) const {
    for (uint64_t i = first; i < last; ++i) {
      const Inputs in = inputs(i);
      EXPECT_TRUE(equal(forward(in.x_t, in.times, conditioning_, {}), eager(in, conditioning_))) << i;
    }
  }

  const at::NoGradGuard no_grad_;
  std::shared_ptr<UNet> model_ = tiny_model(2);
  TextEmbedding text_ = random_text(2);
  Conditioning conditioning_ = model_->condition(&text_, {}, 2);
  FakeDevice device_;
  GraphMaker make_ = device_.maker();
};

TEST_F(GraphedForwardTest, WarmsUpAndRecordsOnceThenReplays) {
  GraphedForward forward(*model_, make_, kMany);
  expect_steps(forward, 0, 5);
  EXPECT_EQ(device_.calls, (Calls{"warm_up 0", "record 0", "replay 0", "replay 0", "replay 0", "replay 0"}));
  EXPECT_TRUE(make_);
}

TEST_F(GraphedForwardTest, OutputsAreTheCallersOwn) {
  GraphedForward forward(*model_, make_, kMany);
  std::vector<Levels> kept, expected;
  for (uint64_t i = 0; i < 4; ++i) {
    const Inputs in = inputs(i);
    kept.push_back(forward(in.x_t, in.times, conditioning_, {}));
    expected.push_back(eager(in, conditioning_));
  }
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(equal(kept[i], expected[i])) << i;
  kept[3][0].zero_();  // and what is done to them stays with them
  expect_steps(forward, 4, 5);
}

TEST_F(GraphedForwardTest, OtherShapesAndOtherConditioningHaveGraphsOfTheirOwn) {
  GraphedForward forward(*model_, make_, kMany);
  expect_steps(forward, 0, 3);
  const Conditioning one = conditioning_.rows(1, 1);
  for (uint64_t i = 3; i < 6; ++i) {
    const Inputs in = inputs(i, 1);
    EXPECT_TRUE(equal(forward(in.x_t, in.times, one, {}), eager(in, one)));
  }
  expect_steps(forward, 6, 8);
  EXPECT_EQ(device_.calls, (Calls{"warm_up 0", "record 0", "replay 0", "replay 0", "warm_up 1", "record 1", "replay 1",
                                  "replay 1", "replay 0", "replay 0"}));
  // Equal numbers elsewhere in memory are another conditioning; there are no more than two graphs.
  const Conditioning again = model_->condition(&text_, {}, 2);
  const Inputs in = inputs(9);
  EXPECT_TRUE(equal(forward(in.x_t, in.times, again, {}), eager(in, again)));
  EXPECT_EQ(device_.graphs, 2);
  expect_steps(forward, 10, 11);
  EXPECT_EQ(device_.calls.back(), "replay 0");
}

TEST_F(GraphedForwardTest, AnotherConditioningOfTheSameShapeIsNotTakenForTheFirst) {
  GraphedForward forward(*model_, make_, kMany);
  expect_steps(forward, 0, 3);
  const TextEmbedding other_text = random_text(2, 77);
  const Conditioning other = model_->condition(&other_text, {}, 2);
  for (uint64_t i = 3; i < 6; ++i) {
    const Inputs in = inputs(i);
    EXPECT_FALSE(equal(eager(in, other), eager(in, conditioning_)));  // else nothing is tested
    EXPECT_TRUE(equal(forward(in.x_t, in.times, other, {}), eager(in, other)));
  }
  EXPECT_EQ(device_.graphs, 2);
}

TEST_F(GraphedForwardTest, EveryFailureLeavesTheModelsOwnRun) {
  for (const char* where : {"warm_up", "record", "replay"}) {
    device_ = {};
    device_.throws_at = where;
    make_ = device_.maker();
    GraphedForward forward(*model_, make_, kMany);
    ::testing::internal::CaptureStderr();
    expect_steps(forward, 0, 5);
    const std::string log = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(device_.calls.back(), "free 0") << where;
    EXPECT_EQ(device_.graphs, 1) << "no second attempt";
    EXPECT_FALSE(make_);
    EXPECT_NE(log.find(std::string("no ") + where + " here"), std::string::npos) << log;
    EXPECT_EQ(log.find("list of calls"), std::string::npos) << log;
    EXPECT_EQ(log.find("without a CUDA graph"), log.rfind("without a CUDA graph")) << "one warning: " << log;
    GraphedForward next(*model_, make_, kMany);  // the next run
    expect_steps(next, 0, 3);
    EXPECT_EQ(device_.graphs, 1);
  }
}

TEST_F(GraphedForwardTest, AGraphThatDiffersIsNotUsed) {
  for (const bool frozen : {false, true}) {
    device_ = {};
    device_.frozen = frozen;
    device_.wrong_bit = !frozen;
    make_ = device_.maker();
    GraphedForward forward(*model_, make_, kMany);
    ::testing::internal::CaptureStderr();
    expect_steps(forward, 0, 5);
    EXPECT_NE(::testing::internal::GetCapturedStderr().find("differs"), std::string::npos);
    EXPECT_EQ(device_.calls, (Calls{"warm_up 0", "record 0", "replay 0", "free 0"})) << frozen;
    EXPECT_FALSE(make_);
  }
}

TEST_F(GraphedForwardTest, NotANumberIsNoDifference) {
  model_->parameters().front().fill_(NAN);
  GraphedForward forward(*model_, make_, kMany);
  for (uint64_t i = 0; i < 3; ++i) {
    const Inputs in = inputs(i);
    EXPECT_TRUE(forward(in.x_t, in.times, conditioning_, {})[0].isnan().all().item<bool>());
  }
  EXPECT_TRUE(make_);
}

struct Onlooker : Probe {
  int seen = 0;
  bool wants(const std::string&) override { return true; }
  void on_tensor(const std::string&, const at::Tensor&) override { ++seen; }
};

TEST_F(GraphedForwardTest, RunsAsAlwaysWhereAGraphWouldNotDo) {
  const Inputs in = inputs(1);
  const Levels expected = eager(in, conditioning_);
  {
    GraphedForward forward(*model_, make_, kMany);
    Onlooker probe;
    ForwardContext context;
    context.probe = &probe;
    for (int i = 0; i < 3; ++i) {
      probe.seen = 0;
      EXPECT_TRUE(equal(forward(in.x_t, in.times, conditioning_, context), expected));
      EXPECT_GT(probe.seen, 0);
    }
    model_->train();
    forward(in.x_t, in.times, conditioning_, {});
    model_->eval();
    const at::AutoGradMode with_gradients(true);
    EXPECT_TRUE(forward(in.x_t, in.times, conditioning_, {})[0].requires_grad());
  }
  GraphedForward few(*model_, make_, GraphedForward::kFewestCalls - 1);
  expect_steps(few, 0, 4);
  EXPECT_EQ(device_.graphs, 0);
  GraphedForward enough(*model_, make_, GraphedForward::kFewestCalls);
  expect_steps(enough, 0, 1);
  EXPECT_EQ(device_.graphs, 1);
}

TEST_F(GraphedForwardTest, ARunFreesItsGraphs) {
  {
    GraphedForward forward(*model_, make_, kMany);
    expect_steps(forward, 0, 2);
    EXPECT_EQ(device_.calls.back(), "replay 0");
  }
  EXPECT_EQ(device_.calls.back(), "free 0");
}

TEST_F(GraphedForwardTest, AModelsErrorIsStillOne) {
  GraphedForward forward(*model_, make_, kMany);
  const Inputs in = inputs(1);
  testing::expect_error<Error>([&] { forward({in.x_t[0]}, in.times, conditioning_, {}); }, "2 levels");
}

TEST_F(GraphedForwardTest, TheCpuHasNone) { EXPECT_FALSE(graph_maker(at::Device(at::kCPU))); }

}  // namespace
}  // namespace mdm
