// The arithmetic between x_0, eps, v and x_t, and thresholds.
#include "mdm/diffusion/prediction.h"

#include <cmath>

#include "test_model.h"

namespace mdm {
namespace {

using testing::largest_difference;
using testing::random_tensor;

struct Sample {
  at::Tensor x_0 = random_tensor({3, 2, 4, 4}, 1, at::kDouble), eps = random_tensor({3, 2, 4, 4}, 2, at::kDouble);
  at::Tensor gamma = at::tensor({0.99, 0.5, 0.01}, at::kDouble).view({3, 1, 1, 1});
  at::Tensor x_t = add_noise(x_0, eps, gamma);
};

TEST(Prediction, EveryTypeGoesBackToX0) {
  const Sample s;
  for (PredictionType type : testing::kPredictionTypes) {
    const at::Tensor target = prediction_target(type, s.x_0, s.eps, s.gamma);
    EXPECT_LT(largest_difference(convert_prediction(target, type, PredictionType::kX0, s.x_t, s.gamma), s.x_0), 1e-12);
  }
}

TEST(Prediction, EveryTypeBecomesEveryOther) {
  const Sample s;
  for (PredictionType from : testing::kPredictionTypes) {
    for (PredictionType to : testing::kPredictionTypes) {
      const at::Tensor target = prediction_target(from, s.x_0, s.eps, s.gamma);
      EXPECT_LT(largest_difference(convert_prediction(target, from, to, s.x_t, s.gamma),
                                   prediction_target(to, s.x_0, s.eps, s.gamma)),
                1e-12);
    }
  }
}

TEST(Prediction, DirectConversionsEqualTheWayThroughX0) {  // also for predictions that are wrong
  const Sample s;
  const at::Tensor wrong = random_tensor({3, 2, 4, 4}, 9, at::kDouble);
  for (PredictionType from : testing::kPredictionTypes) {
    const at::Tensor x_0 = convert_prediction(wrong, from, PredictionType::kX0, s.x_t, s.gamma);
    for (PredictionType to : testing::kPredictionTypes) {
      EXPECT_LT(largest_difference(convert_prediction(wrong, from, to, s.x_t, s.gamma),
                                   convert_prediction(x_0, PredictionType::kX0, to, s.x_t, s.gamma)),
                1e-10);
    }
  }
}

TEST(Prediction, OneNumberEqualsATensorOfIt) {
  const Sample s;
  const at::Tensor gamma = at::full({3, 1, 1, 1}, 0.3, at::kDouble);
  EXPECT_LT(largest_difference(add_noise(s.x_0, s.eps, 0.3), add_noise(s.x_0, s.eps, gamma)), 1e-14);
  for (PredictionType from : testing::kPredictionTypes) {
    for (PredictionType to : testing::kPredictionTypes) {
      EXPECT_LT(largest_difference(convert_prediction(s.eps, from, to, s.x_t, 0.3),
                                   convert_prediction(s.eps, from, to, s.x_t, gamma)),
                1e-13);
    }
  }
}

TEST(Prediction, DdpmAndDdimBothMeanEps) {
  EXPECT_TRUE(same_prediction(PredictionType::kDdpm, PredictionType::kDdim));
  EXPECT_FALSE(same_prediction(PredictionType::kDdpm, PredictionType::kVPrediction));
  EXPECT_FALSE(same_prediction(PredictionType::kX0, PredictionType::kVPrediction));
}

TEST(Prediction, BoundKeepsSmallValuesAndHoldsLargeOnes) {
  const at::Tensor x = at::tensor({-100.0, -0.001, 0.0, 0.001, 100.0});
  EXPECT_TRUE(bound_prediction(x, 0).equal(x));
  const at::Tensor bound = bound_prediction(x, 2);
  EXPECT_NEAR(bound[0].item<double>(), -2, 1e-6);
  EXPECT_NEAR(bound[1].item<double>(), -0.001, 1e-6);
  EXPECT_NEAR(bound[4].item<double>(), 2, 1e-6);
}

TEST(Threshold, NoneAndClip) {
  const at::Tensor x = random_tensor({2, 3, 8, 8}) * 3;
  EXPECT_TRUE(threshold_x_0(x, ThresholdType::kNone, 4).equal(x));
  EXPECT_TRUE(threshold_x_0(x, ThresholdType::kClip).equal(x.clamp(-1, 1)));
  EXPECT_TRUE(threshold_x_0(x, ThresholdType::kClip, 4).equal(x.clamp(-.25, .25)));
}

TEST(Threshold, DynamicDividesByTheQuantile) {
  for (int64_t side : {5, 16, 33}) {
    const at::Tensor x = random_tensor({3, 3, side, side}, 11) * at::tensor({0.2, 1.0, 3.0}).view({3, 1, 1, 1});
    const at::Tensor flat = x.reshape({3, -1}).abs();
    for (const auto& [type, q, most] :
         {std::tuple(ThresholdType::kDynamic, 0.995, 100.0), std::tuple(ThresholdType::kDynamicIf, 0.95, 1.5)}) {
      const at::Tensor bound = at::quantile(flat, q, 1).clamp(1, most).view({3, 1, 1, 1});
      const at::Tensor expected = at::maximum(at::minimum(x, bound), -bound) / bound;
      EXPECT_LT(largest_difference(threshold_x_0(x, type), expected), 2e-6) << side;
      EXPECT_LT(largest_difference(threshold_x_0(x / 2, type, 2), expected / 2), 2e-6) << side;
      EXPECT_LE(threshold_x_0(x, type).abs().max().item<double>(), 1);
    }
  }
}

TEST(Threshold, DynamicLooksAtEachExampleAlone) {
  const at::Tensor x = random_tensor({4, 3, 9, 9}, 12) * 2;
  const at::Tensor all = threshold_x_0(x, ThresholdType::kDynamicIf);
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(threshold_x_0(x.narrow(0, i, 1), ThresholdType::kDynamicIf).equal(all.narrow(0, i, 1)));
  }
}

TEST(Threshold, DynamicTakesAnyLayoutAndType) {
  const at::Tensor x = random_tensor({2, 3, 8, 8}, 13) * 2;
  const at::Tensor expected = threshold_x_0(x, ThresholdType::kDynamicIf);
  const at::Tensor channels_last = x.contiguous(at::MemoryFormat::ChannelsLast);
  EXPECT_TRUE(threshold_x_0(channels_last, ThresholdType::kDynamicIf).equal(expected));
  const at::Tensor half = threshold_x_0(x.to(at::kBFloat16), ThresholdType::kDynamicIf);
  EXPECT_EQ(half.scalar_type(), at::kBFloat16);
  EXPECT_LT(largest_difference(half.to(at::kFloat), expected), 0.02);
}

TEST(Threshold, NotANumberSpoilsItsOwnExampleOnly) {
  at::Tensor x = random_tensor({2, 3, 8, 8}, 14);
  x[0][1][2][3] = NAN;
  const at::Tensor out = threshold_x_0(x, ThresholdType::kDynamic);
  EXPECT_TRUE(out[0].isnan().all().item<bool>());
  EXPECT_FALSE(out[1].isnan().any().item<bool>());
  x[0][1][2][3] = INFINITY;
  EXPECT_FALSE(threshold_x_0(x, ThresholdType::kDynamic)[1].isnan().any().item<bool>());
}

}  // namespace
}  // namespace mdm
