// Which steps sampling visits.
#include <algorithm>
#include <numeric>

#include "mdm/diffusion/schedule.h"
#include "test_model.h"

namespace mdm {
namespace {

using testing::expect_error;
using Steps = std::vector<int64_t>;

constexpr TimestepSpacing kAll[] = {TimestepSpacing::kReference, TimestepSpacing::kLeading, TimestepSpacing::kTrailing,
                                    TimestepSpacing::kLinspace};

TEST(Timesteps, FollowTheTableOfThePaper) {  // arXiv 2305.08891, table 2: T = 1000, S = 10
  EXPECT_EQ(make_timesteps(1000, 10, TimestepSpacing::kLeading),
            (Steps{901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0}));
  EXPECT_EQ(make_timesteps(1000, 10, TimestepSpacing::kTrailing),
            (Steps{1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0}));
  EXPECT_EQ(make_timesteps(1000, 10, TimestepSpacing::kLinspace),
            (Steps{1000, 889, 778, 667, 556, 445, 334, 223, 112, 1, 0}));
}

TEST(Timesteps, OfTheReferenceRoundHalfToEven) {
  EXPECT_EQ(make_timesteps(1000, 10, TimestepSpacing::kReference),
            (Steps{910, 819, 728, 637, 546, 455, 364, 273, 182, 91, 0}));
  EXPECT_EQ(make_timesteps(4, 1, TimestepSpacing::kReference), (Steps{2, 0}));  // 2.5
  EXPECT_EQ(make_timesteps(6, 1, TimestepSpacing::kReference), (Steps{4, 0}));  // 3.5
}

TEST(Timesteps, AllStepsAreAllSteps) {
  Steps all(21);
  std::iota(all.rbegin(), all.rend(), 0);
  for (auto spacing : kAll) EXPECT_EQ(make_timesteps(20, 20, spacing), all);
}

TEST(Timesteps, FallStrictlyWithinTheSchedule) {
  for (auto spacing : kAll) {
    for (int64_t n : {2, 7, 64, 1000}) {
      for (int64_t k = 1; k <= n; k = k < 12 ? k + 1 : k * 2) {
        const Steps steps = make_timesteps(n, k, spacing);
        ASSERT_EQ(steps.size(), static_cast<size_t>(k) + 1);
        EXPECT_LE(steps.front(), n);
        EXPECT_EQ(steps.back(), 0);
        EXPECT_TRUE(std::is_sorted(steps.rbegin(), steps.rend()));
        EXPECT_EQ(std::adjacent_find(steps.begin(), steps.end()), steps.end()) << n << " " << k;
      }
    }
  }
}

TEST(Timesteps, MoreThanTheScheduleHasAreClamped) {
  for (auto spacing : kAll) EXPECT_EQ(make_timesteps(10, 25, spacing), make_timesteps(10, 10, spacing));
  Compat compat;
  compat.unclamped_steps = true;
  const Steps repeated = make_timesteps(10, 25, TimestepSpacing::kReference, compat);
  EXPECT_EQ(repeated.size(), 26u);
  EXPECT_NE(std::adjacent_find(repeated.begin(), repeated.end()), repeated.end());
}

TEST(Timesteps, RefuseCountsBelowOne) {
  expect_error([] { make_timesteps(10, 0, TimestepSpacing::kTrailing); },
               "num_inference_steps is 0, allowed are numbers from 1 to 10");
  expect_error([] { make_timesteps(10, -3, TimestepSpacing::kReference); }, "num_inference_steps is -3");
}

TEST(Timesteps, FirstStepFromATime) {
  const Steps steps = {92, 46, 28, 9, 0};
  EXPECT_EQ(first_step_from(steps, 100), 0);
  EXPECT_EQ(first_step_from(steps, 46), 1);
  EXPECT_EQ(first_step_from(steps, 45), 2);
  expect_error([&] { first_step_from(steps, 8); }, "no step is left at or below t = 8; the lowest one is 9");
}

TEST(Timesteps, FirstStepForAStrength) {
  const Steps steps = make_timesteps(100, 10, TimestepSpacing::kTrailing);
  EXPECT_EQ(first_step_for_strength(steps, 1), 0);
  EXPECT_EQ(first_step_for_strength(steps, 0.8), 2);
  EXPECT_EQ(first_step_for_strength(steps, 0.001), 9);  // at least one step
  EXPECT_EQ(first_step_for_strength(steps, 0), 10);     // none
  expect_error([&] { first_step_for_strength(steps, 1.5); }, "strength is 1.5");
  expect_error([&] { first_step_for_strength(steps, NAN); }, "strength is nan");
}

}  // namespace
}  // namespace mdm
