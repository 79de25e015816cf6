// Distances are those of torch-fidelity and torchmetrics from the same features; small and equal sets give what is
// said.
#include "mdm/evaluation/statistics.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "evaluation/golden.h"
#include "evaluation/npz.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/evaluation/feature_sets.h"

namespace mdm {
namespace {

using testing::expected;
using testing::feature_set;
using testing::relative_error;

FeatureStatistics statistics_of(const at::Tensor& features) {
  MomentSum sum(features.size(1));
  for (int64_t i = 0; i < features.size(0); ++i) sum.add(features.narrow(0, i, 1));
  return sum.statistics();
}

double golden_distance(const std::string& name) { return expected()["distances"][name].get<double>(); }

struct Pair {
  int64_t count, width;
  at::Tensor a() const { return feature_set("a", count, width); }
  at::Tensor b() const { return feature_set("b", count, width) * 1.1 + 0.02; }
  std::string key(const std::string& metric) const {
    return metric + " " + std::to_string(count) + "x" + std::to_string(width);
  }
};
const Pair kPairs[] = {{300, 64}, {300, 192}, {40, 64}};

TEST(FrechetDistance, IsThatOfTorchFidelityAndTorchmetrics) {
  for (const Pair& pair : kPairs) {
    const double found = frechet_distance(statistics_of(pair.a()), statistics_of(pair.b()));
    // Without full rank the others' eigenvalues of a matrix without symmetry are inexact themselves (see the next
    // test).
    const double tolerance = pair.count > pair.width ? 1e-6 : 1e-4;
    for (const char* metric : {"fid", "torchmetrics fid"}) {
      const double wanted = golden_distance(pair.key(metric));
      EXPECT_NEAR(found / wanted, 1, tolerance) << pair.key(metric);
    }
  }
}

// tr (C1 C2)^(1/2) is the sum of the singular values of X1 X2^T / (n - 1) for centred rows X: exact whatever the rank.
TEST(FrechetDistance, IsExactWithoutFullRank) {
  for (const Pair& pair : kPairs) {
    const at::Tensor x = pair.a() - pair.a().mean(0), y = pair.b() - pair.b().mean(0);
    const auto n = static_cast<double>(pair.count - 1);
    const double traces = (x.square().sum() + y.square().sum()).item<double>() / n;
    const double common = at::linalg_svdvals(x.matmul(y.t())).sum().item<double>() / n;
    const double means = (pair.a().mean(0) - pair.b().mean(0)).square().sum().item<double>();
    const double found = frechet_distance(statistics_of(pair.a()), statistics_of(pair.b()));
    EXPECT_NEAR(found / (means + traces - 2 * common), 1, 1e-9) << pair.key("fid");
  }
}

TEST(FrechetDistance, OfASetWithItselfIsNothing) {
  for (const int64_t count : {2, 3, 10, 300}) {
    const FeatureStatistics one = statistics_of(feature_set("a", count, 64));
    EXPECT_LT(frechet_distance(one, one), 1e-6) << count;
    const FeatureStatistics reversed = statistics_of(feature_set("a", count, 64).flip(0));
    EXPECT_LT(frechet_distance(one, reversed), 1e-6) << count;
  }
}

TEST(FrechetDistance, IsTheFormulaOfCommutingCovariances) {
  FeatureStatistics a, b;
  a.mean = at::zeros({3}, at::kDouble);
  b.mean = at::ones({3}, at::kDouble);
  a.covariance = at::eye(3, at::kDouble) * 4;
  b.covariance = at::eye(3, at::kDouble) * 9;
  EXPECT_NEAR(frechet_distance(a, b), 3 + 3 * (4 + 9 - 2 * 6), 1e-12);
  b.covariance = at::zeros({3, 3}, at::kDouble);
  EXPECT_NEAR(frechet_distance(a, b), 3 + 12, 1e-12);
}

TEST(FrechetDistance, RefusesWhatCannotBeCompared) {
  const FeatureStatistics a = statistics_of(feature_set("a", 10, 64)), b = statistics_of(feature_set("a", 10, 32));
  EXPECT_THROW(frechet_distance(a, b), DataError);
  FeatureStatistics broken = a;
  broken.covariance = a.covariance / 0;
  EXPECT_THROW(frechet_distance(a, broken), DataError);
}

TEST(MomentSum, IsExactForOneTwoAndThreePictures) {
  const at::Tensor rows = feature_set("a", 3, 5);
  MomentSum sum(5);
  EXPECT_THROW(sum.mean(), DataError);
  sum.add(rows.narrow(0, 0, 1));
  EXPECT_LT(relative_error(sum.mean(), rows[0]), 1e-15);
  EXPECT_THROW(sum.statistics(), DataError);
  sum.add(rows.narrow(0, 1, 1));
  const at::Tensor half = (rows[0] - rows[1]) / 2;
  const FeatureStatistics two = sum.statistics();
  EXPECT_EQ(two.count, 2);
  EXPECT_LT(relative_error(two.mean, (rows[0] + rows[1]) / 2), 1e-15);
  EXPECT_LT(relative_error(two.covariance, half.outer(half) * 2), 1e-12);
  sum.add(rows.narrow(0, 2, 1));
  const at::Tensor centred = rows - rows.mean(0);
  EXPECT_LT(relative_error(sum.statistics().covariance, centred.t().matmul(centred) / 2), 1e-12);
}

TEST(MomentSum, RefusesOtherWidthsAndWhatIsNotFinite) {
  MomentSum sum(5);
  EXPECT_THROW(sum.add(at::zeros({1, 4})), Error);
  EXPECT_THROW(sum.add(at::zeros({1, 5}) / 0), DataError);
}

TEST(SmallSets, AreWarnedOf) {
  EXPECT_NE(small_set_warning(100, 2048).find("without full rank"), std::string::npos);
  EXPECT_NE(small_set_warning(2048, 2048).find("without full rank"), std::string::npos);
  EXPECT_NE(small_set_warning(3000, 2048).find("few"), std::string::npos);
  EXPECT_EQ(small_set_warning(10000, 2048), "");
  EXPECT_EQ(small_set_warning(0, 2048), "");
}

TEST(KernelDistance, IsThatOfTorchFidelity) {
  for (const Pair& pair : kPairs) {
    const KernelDistance kid = kernel_distance(pair.a(), pair.b(), 100, 1000, 0);
    EXPECT_EQ(kid.subsets, 1);
    EXPECT_EQ(kid.subset_size, pair.count);
    EXPECT_NEAR(kid.mean / golden_distance(pair.key("kid")), 1, 1e-6) << pair.key("kid");
  }
}

TEST(KernelDistance, DrawsSubsetsByTheSeed) {
  const at::Tensor a = feature_set("a", 300, 64), b = feature_set("b", 300, 64) + 0.05;
  const KernelDistance whole = kernel_distance(a, b, 1, 300, 0), first = kernel_distance(a, b, 50, 100, 1);
  EXPECT_EQ(first.subsets, 50);
  EXPECT_GT(first.deviation, 0);
  EXPECT_NEAR(first.mean / whole.mean, 1, 0.3);
  EXPECT_EQ(first.mean, kernel_distance(a, b, 50, 100, 1).mean);
  EXPECT_NE(first.mean, kernel_distance(a, b, 50, 100, 2).mean);
  EXPECT_THROW(kernel_distance(a.narrow(0, 0, 1), b, 1, 100, 0), DataError);
  EXPECT_THROW(kernel_distance(a, feature_set("b", 300, 32), 1, 100, 0), DataError);
}

TEST(PrecisionRecall, IsThatOfTorchFidelity) {
  for (const Pair& pair : kPairs) {
    const PrecisionRecall both = precision_recall(pair.a(), pair.b(), 3);
    EXPECT_NEAR(both.precision, golden_distance(pair.key("precision")), 1e-6) << pair.key("precision");
    EXPECT_NEAR(both.recall, golden_distance(pair.key("recall")), 1e-6) << pair.key("recall");
  }
  const at::Tensor a = feature_set("a", 5, 8);
  EXPECT_EQ(precision_recall(a, a, 3).precision, 1);
  EXPECT_EQ(precision_recall(a, a + 100, 3).recall, 0);
  EXPECT_THROW(precision_recall(a.narrow(0, 0, 3), a, 3), DataError);
}

TEST(StatisticsFile, ReadsWhatNumpyWrites) {
  const auto& golden = expected()["statistics"];
  for (const char* name : {"pytorch_fid.npz", "edm.npz"}) {
    const NamedStatistics all = read_statistics(testing::golden_folder() / name);
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(all[0].first, "");
    const FeatureStatistics& one = all[0].second;
    EXPECT_EQ(one.count, 0);
    for (int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(one.mean[i].item<double>(), golden["mu"][static_cast<size_t>(i)].get<double>());
      for (int64_t j = 0; j < 4; ++j) {
        const double wanted = golden["sigma"][static_cast<size_t>(i)][static_cast<size_t>(j)].get<double>();
        const double upper =
            std::string(name) == "edm.npz" && j > i ? 1 : 0;  // the file has another order, and no symmetry
        EXPECT_NEAR(one.covariance[i][j].item<double>(), wanted + upper, 1e-15) << name << i << j;
      }
    }
  }
}

TEST(StatisticsFile, ComesBackToTheBit) {
  const auto file = testing::scratch_folder() / "both.npz";
  const FeatureStatistics fid = statistics_of(feature_set("a", 20, 6)), dino = statistics_of(feature_set("b", 30, 3));
  write_statistics(file, {{"", fid}, {"fd_dinov2", dino}});
  for (const auto& [name, one] : read_statistics(file)) {
    const FeatureStatistics& wanted = name.empty() ? fid : dino;
    EXPECT_EQ(one.count, wanted.count);
    EXPECT_TRUE(one.mean.equal(wanted.mean));
    EXPECT_TRUE(one.covariance.equal(wanted.covariance));
  }
}

TEST(StatisticsFile, SaysWhatIsWrong) {
  const auto file = testing::scratch_folder() / "broken.npz";
  const auto problem = [&](const evaluation::NamedArrays& arrays) {
    evaluation::write_npz(file, arrays);
    try {
      read_statistics(file);
    } catch (const DataError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const at::Tensor row = at::zeros({3}, at::kDouble), matrix = at::zeros({3, 3}, at::kDouble);
  EXPECT_EQ(problem({{"mu", row}, {"sigma", matrix}}), "");
  EXPECT_NE(problem({{"features", row}}).find("holds no statistics"), std::string::npos);
  EXPECT_NE(problem({{"mu", row}}).find("no sigma"), std::string::npos);
  EXPECT_NE(problem({{"mu", row}, {"sigma", at::zeros({3, 2}, at::kDouble)}}).find("sigma not D rows"),
            std::string::npos);
  write_file(file, "PK no archive");
  EXPECT_THROW(read_statistics(file), DataError);
  EXPECT_THROW(read_statistics("/nowhere.npz"), DataError);
  // Every cut and many damaged bytes of a good file: an error or the right numbers, never anything else.
  const std::string good = read_text_file(testing::golden_folder() / "pytorch_fid.npz");
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x41);
    for (const std::string& bytes : {good.substr(0, i), bad}) {
      write_file(file, bytes);
      try {
        EXPECT_EQ(read_statistics(file).size(), 1U);
      } catch (const DataError&) {
      }
    }
  }
}

}  // namespace
}  // namespace mdm
