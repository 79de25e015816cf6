// A picture does not depend on what it is batched with: four prompts of different lengths at once are four
// runs of one, within rounding.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <ostream>

#include "mdm/core/error.h"
#include "pipeline/support.h"
#include "support/pictures.h"

namespace mdm {
namespace {

using pipeline_test::Kind;
using pipeline_test::request;
using test_support::largest_difference;
using test_support::psnr;

// Prompts and negative prompts of different lengths; the longest comes last and the first has none.
std::vector<PictureRequest> four_requests() {
  return {request("", 11), request("a cat", 12, "a small brown dog on the old stone, of bad quality"),
          request("the sun over the mountain in the morning", 13, "rain"),
          request("a painting of a red house by the sea, with boats, in the style of an old photo, high detail", 14)};
}

Pipeline pipeline_of(Kind kind, Precision precision, const std::string& pad = "pair") {
  return Pipeline::from_checkpoint(pipeline_test::checkpoint_of(kind), {},
                                   {{"precision", precision == Precision::kBf16 ? "bf16" : "fp32"}, {"pad", pad}});
}

struct Case {
  Kind kind;
  Precision precision;
  int most_difference;  // 256: not bounded
  double least_psnr;
};

void PrintTo(const Case& item, std::ostream* out) {
  *out << static_cast<int>(item.kind) + 1 << " level(s), " << (item.precision == Precision::kBf16 ? "bf16" : "fp32");
}

class Batches : public ::testing::TestWithParam<Case> {};

TEST_P(Batches, OfFourAreFourRunsOfOne) {
  const auto& [kind, precision, most_difference, least_psnr] = GetParam();
  SampleConfig settings = pipeline_test::quick_settings();
  settings.num_inference_steps = 8;
  const auto requests = four_requests();
  const auto together = pipeline_of(kind, precision).generate(requests, settings);
  ASSERT_EQ(together.size(), 4u);
  settings.batch_size = 1;
  double least = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto alone = pipeline_of(kind, precision).generate({requests[i]}, settings);
    ASSERT_EQ(alone.size(), 1u);
    EXPECT_LE(largest_difference(together[i].image, alone[0].image), most_difference) << "picture " << i;
    least = std::min(least, psnr(together[i].image, alone[0].image));
    EXPECT_GE(psnr(together[i].image, alone[0].image), least_psnr) << "picture " << i;
    ASSERT_EQ(together[i].inner.size(), alone[0].inner.size());
    for (size_t level = 0; level < alone[0].inner.size(); ++level) {
      EXPECT_LE(largest_difference(together[i].inner[level], alone[0].inner[level]), most_difference);
      EXPECT_GE(psnr(together[i].inner[level], alone[0].inner[level]), least_psnr);
    }
  }
  RecordProperty("least_psnr", concat(least));
}

INSTANTIATE_TEST_SUITE_P(Models, Batches,
                         ::testing::Values(Case{Kind::kFlat, Precision::kFp32, 2, 50},
                                           Case{Kind::kNested, Precision::kFp32, 2, 50},
                                           Case{Kind::kNested2, Precision::kFp32, 2, 50},
                                           Case{Kind::kFlat, Precision::kBf16, 256, 35},
                                           Case{Kind::kNested, Precision::kBf16, 256, 35}));

// The same bounds are broken where rows are padded to the batch's longest: the test above can fail.
TEST(BatchPadding, ChangesPicturesWhereItBelongsToTheBatch) {
  const SampleConfig settings = pipeline_test::quick_settings();
  const auto requests = four_requests();
  const auto together = pipeline_of(Kind::kFlat, Precision::kFp32, "batch").generate(requests, settings);
  const auto alone = pipeline_of(Kind::kFlat, Precision::kFp32, "batch").generate({requests[1]}, settings);
  EXPECT_LT(psnr(together[1].image, alone[0].image), 50);
}

TEST(BatchOrder, DoesNotMatter) {
  const SampleConfig settings = pipeline_test::quick_settings();
  auto requests = four_requests();
  Pipeline pipeline = pipeline_of(Kind::kNested, Precision::kFp32);
  const auto one_way = pipeline.generate(requests, settings);
  std::reverse(requests.begin(), requests.end());
  const auto other_way = pipeline.generate(requests, settings);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_LE(largest_difference(one_way[i].image, other_way[3 - i].image), 2);
    EXPECT_GE(psnr(one_way[i].image, other_way[3 - i].image), 50);
  }
}

}  // namespace
}  // namespace mdm
