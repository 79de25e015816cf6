#include "mdm/evaluation/inception.h"

#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <map>
#include <string>
#include <vector>

#include "evaluation/network_weights.h"
#include "mdm/core/error.h"
#include "ops/onednn.h"

namespace mdm {
namespace evaluation {

constexpr double kNormEpsilon = 1e-3;

// A convolution with its batch normalisation folded in, and a ReLU behind.
struct Unit {
  at::Tensor weight, bias;
  std::vector<int64_t> stride, padding;
  bool packed = false;

  at::Tensor forward(const at::Tensor& x) const {
    if (packed) return ops::onednn::convolution(x, weight, bias, padding, stride, ops::onednn::After::kRelu);
    return at::conv2d(x, weight, bias, stride, padding).relu_();
  }
};

struct Kernel {
  int64_t height = 1, width = 1, stride = 1;
  bool padded = false;  // so that, without stride, the size stays
};
constexpr Kernel kOne{}, kThree{3, 3, 1, true}, kFive{5, 5, 1, true}, kAcross{1, 7, 1, true}, kDown{7, 1, 1, true},
    kHalving{3, 3, 2, false}, kShortAcross{1, 3, 1, true}, kShortDown{3, 1, 1, true};

// The parameters of a unit as they are in the file.
struct RawUnit {
  at::Tensor weight, scale, shift, mean, variance;
  Kernel kernel;
};

inline Unit folded(const RawUnit& raw) {
  const at::Tensor factor = raw.scale.to(at::kDouble) * at::rsqrt(raw.variance.to(at::kDouble) + kNormEpsilon);
  Unit unit;
  unit.weight = (raw.weight.to(at::kDouble) * factor.view({-1, 1, 1, 1})).to(at::kFloat);
  unit.bias = (raw.shift.to(at::kDouble) - raw.mean.to(at::kDouble) * factor).to(at::kFloat);
  unit.stride = {raw.kernel.stride, raw.kernel.stride};
  unit.padding = {raw.kernel.padded ? raw.kernel.height / 2 : 0, raw.kernel.padded ? raw.kernel.width / 2 : 0};
  return unit;
}

inline at::Tensor mean_pool(const at::Tensor& x) {  // of what lies inside the picture
  return at::avg_pool2d(x, {3, 3}, {1, 1}, {1, 1}, /*ceil_mode=*/false, /*count_include_pad=*/false);
}
inline at::Tensor max_pool(const at::Tensor& x, int64_t stride) {
  return at::max_pool2d(x, {3, 3}, {stride, stride}, {stride == 1 ? 1 : 0, stride == 1 ? 1 : 0});
}
inline at::Tensor mean_over_positions(const at::Tensor& x) { return x.mean({2, 3}); }

}  // namespace evaluation

using evaluation::folded;
using evaluation::kAcross;
using evaluation::kDown;
using evaluation::Kernel;
using evaluation::kFive;
using evaluation::kHalving;
using evaluation::kOne;
using evaluation::kShortAcross;
using evaluation::kShortDown;
using evaluation::kThree;
using evaluation::RawUnit;
using evaluation::Unit;

struct InceptionV3::Impl {
  std::map<std::string, Unit> units;

  at::Tensor run(const std::string& name, const at::Tensor& x) const { return units.at(name).forward(x); }
  // One unit after the other: "Mixed_5b.branch5x5_" with {"1", "2"}.
  at::Tensor chain(const std::string& start, const std::vector<const char*>& ends, at::Tensor x) const {
    for (const char* end : ends) x = run(start + end, x);
    return x;
  }

  at::Tensor mixed_a(const std::string& m, const at::Tensor& x) const {
    return at::cat({run(m + ".branch1x1", x), chain(m + ".branch5x5_", {"1", "2"}, x),
                    chain(m + ".branch3x3dbl_", {"1", "2", "3"}, x), run(m + ".branch_pool", evaluation::mean_pool(x))},
                   1);
  }
  at::Tensor mixed_b(const std::string& m, const at::Tensor& x) const {
    return at::cat(
        {run(m + ".branch3x3", x), chain(m + ".branch3x3dbl_", {"1", "2", "3"}, x), evaluation::max_pool(x, 2)}, 1);
  }
  at::Tensor mixed_c(const std::string& m, const at::Tensor& x) const {
    return at::cat(
        {run(m + ".branch1x1", x), chain(m + ".branch7x7_", {"1", "2", "3"}, x),
         chain(m + ".branch7x7dbl_", {"1", "2", "3", "4", "5"}, x), run(m + ".branch_pool", evaluation::mean_pool(x))},
        1);
  }
  at::Tensor mixed_d(const std::string& m, const at::Tensor& x) const {
    return at::cat({chain(m + ".branch3x3_", {"1", "2"}, x), chain(m + ".branch7x7x3_", {"1", "2", "3", "4"}, x),
                    evaluation::max_pool(x, 2)},
                   1);
  }
  // TensorFlow's graph takes a mean in the first of these and a maximum in the second.
  at::Tensor mixed_e(const std::string& m, const at::Tensor& x, bool mean) const {
    const at::Tensor three = run(m + ".branch3x3_1", x);
    const at::Tensor twice = chain(m + ".branch3x3dbl_", {"1", "2"}, x);
    return at::cat({run(m + ".branch1x1", x), run(m + ".branch3x3_2a", three), run(m + ".branch3x3_2b", three),
                    run(m + ".branch3x3dbl_3a", twice), run(m + ".branch3x3dbl_3b", twice),
                    run(m + ".branch_pool", mean ? evaluation::mean_pool(x) : evaluation::max_pool(x, 1))},
                   1);
  }
  at::Tensor forward(const at::Tensor& input, int64_t width) const;
};

at::Tensor InceptionV3::Impl::forward(const at::Tensor& input, int64_t width) const {
  at::Tensor x = input.contiguous(at::MemoryFormat::ChannelsLast);
  for (const char* name : {"Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"}) x = run(name, x);
  x = evaluation::max_pool(x, 2);
  if (width == 64) return evaluation::mean_over_positions(x);
  for (const char* name : {"Conv2d_3b_1x1", "Conv2d_4a_3x3"}) x = run(name, x);
  x = evaluation::max_pool(x, 2);
  if (width == 192) return evaluation::mean_over_positions(x);
  for (const char* name : {"Mixed_5b", "Mixed_5c", "Mixed_5d"}) x = mixed_a(name, x);
  x = mixed_b("Mixed_6a", x);
  for (const char* name : {"Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"}) x = mixed_c(name, x);
  if (width == 768) return evaluation::mean_over_positions(x);
  x = mixed_d("Mixed_7a", x);
  x = mixed_e("Mixed_7b", x, /*mean=*/true);
  x = mixed_e("Mixed_7c", x, /*mean=*/false);
  return evaluation::mean_over_positions(x);
}

namespace {

constexpr int64_t kClasses = 1008;

// Names and shapes of all units.
class UnitTable {
 public:
  explicit UnitTable(evaluation::NetworkWeights& weights) : weights_(weights) {
    stem();
    mixed_a("Mixed_5b", 192, 32);
    mixed_a("Mixed_5c", 256, 64);
    mixed_a("Mixed_5d", 288, 64);
    unit("Mixed_6a.branch3x3", 288, 384, kHalving);
    unit("Mixed_6a.branch3x3dbl_1", 288, 64, kOne);
    unit("Mixed_6a.branch3x3dbl_2", 64, 96, kThree);
    unit("Mixed_6a.branch3x3dbl_3", 96, 96, kHalving);
    mixed_c("Mixed_6b", 128);
    mixed_c("Mixed_6c", 160);
    mixed_c("Mixed_6d", 160);
    mixed_c("Mixed_6e", 192);
    unit("Mixed_7a.branch3x3_1", 768, 192, kOne);
    unit("Mixed_7a.branch3x3_2", 192, 320, kHalving);
    unit("Mixed_7a.branch7x7x3_1", 768, 192, kOne);
    unit("Mixed_7a.branch7x7x3_2", 192, 192, kAcross);
    unit("Mixed_7a.branch7x7x3_3", 192, 192, kDown);
    unit("Mixed_7a.branch7x7x3_4", 192, 192, kHalving);
    mixed_e("Mixed_7b", 1280);
    mixed_e("Mixed_7c", 2048);
  }
  const std::map<std::string, RawUnit>& units() const { return units_; }

 private:
  void unit(const std::string& name, int64_t in, int64_t out, const Kernel& kernel) {
    RawUnit raw;
    raw.kernel = kernel;
    raw.weight = weights_.add(name + ".conv.weight", {out, in, kernel.height, kernel.width});
    raw.scale = weights_.add(name + ".bn.weight", {out});
    raw.shift = weights_.add(name + ".bn.bias", {out});
    raw.mean = weights_.add(name + ".bn.running_mean", {out});
    raw.variance = weights_.add(name + ".bn.running_var", {out});
    units_[name] = raw;
  }
  void stem() {
    unit("Conv2d_1a_3x3", 3, 32, kHalving);
    unit("Conv2d_2a_3x3", 32, 32, {3, 3, 1, false});
    unit("Conv2d_2b_3x3", 32, 64, kThree);
    unit("Conv2d_3b_1x1", 64, 80, kOne);
    unit("Conv2d_4a_3x3", 80, 192, {3, 3, 1, false});
  }
  void mixed_a(const std::string& m, int64_t in, int64_t pooled) {
    unit(m + ".branch1x1", in, 64, kOne);
    unit(m + ".branch5x5_1", in, 48, kOne);
    unit(m + ".branch5x5_2", 48, 64, kFive);
    unit(m + ".branch3x3dbl_1", in, 64, kOne);
    unit(m + ".branch3x3dbl_2", 64, 96, kThree);
    unit(m + ".branch3x3dbl_3", 96, 96, kThree);
    unit(m + ".branch_pool", in, pooled, kOne);
  }
  void mixed_c(const std::string& m, int64_t inner) {
    unit(m + ".branch1x1", 768, 192, kOne);
    unit(m + ".branch7x7_1", 768, inner, kOne);
    unit(m + ".branch7x7_2", inner, inner, kAcross);
    unit(m + ".branch7x7_3", inner, 192, kDown);
    unit(m + ".branch7x7dbl_1", 768, inner, kOne);
    unit(m + ".branch7x7dbl_2", inner, inner, kDown);
    unit(m + ".branch7x7dbl_3", inner, inner, kAcross);
    unit(m + ".branch7x7dbl_4", inner, inner, kDown);
    unit(m + ".branch7x7dbl_5", inner, 192, kAcross);
    unit(m + ".branch_pool", 768, 192, kOne);
  }
  void mixed_e(const std::string& m, int64_t in) {
    unit(m + ".branch1x1", in, 320, kOne);
    unit(m + ".branch3x3_1", in, 384, kOne);
    unit(m + ".branch3x3_2a", 384, 384, kShortAcross);
    unit(m + ".branch3x3_2b", 384, 384, kShortDown);
    unit(m + ".branch3x3dbl_1", in, 448, kOne);
    unit(m + ".branch3x3dbl_2", 448, 384, kThree);
    unit(m + ".branch3x3dbl_3a", 384, 384, kShortAcross);
    unit(m + ".branch3x3dbl_3b", 384, 384, kShortDown);
    unit(m + ".branch_pool", in, 192, kOne);
  }

  evaluation::NetworkWeights& weights_;
  std::map<std::string, RawUnit> units_;
};

// Side of the pictures that come into a unit: its oneDNN layout is chosen for that.
int64_t side_at(const std::string& name) {
  if (name == "Conv2d_1a_3x3") return InceptionV3::kSide;
  if (name == "Conv2d_2a_3x3") return 149;
  if (name == "Conv2d_2b_3x3") return 147;
  if (name == "Conv2d_3b_1x1" || name == "Conv2d_4a_3x3") return 73;
  if (name.compare(0, 7, "Mixed_5") == 0 || name.compare(0, 8, "Mixed_6a") == 0) return 35;
  return name.compare(0, 7, "Mixed_6") == 0 || name.compare(0, 8, "Mixed_7a") == 0 ? 17 : 8;
}

}  // namespace

InceptionV3::InceptionV3(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
InceptionV3::InceptionV3(InceptionV3&&) noexcept = default;
InceptionV3& InceptionV3::operator=(InceptionV3&&) noexcept = default;
InceptionV3::~InceptionV3() = default;

InceptionV3 InceptionV3::load(const std::filesystem::path& path) {
  const c10::NoGradGuard no_grad;
  const TensorFile file = TensorFile::open(path);
  auto impl = std::make_unique<Impl>();
  evaluation::NetworkWeights weights;
  const UnitTable table(weights);
  weights.ignore(".num_batches_tracked");
  if (file.find("fc.weight") != nullptr) weights.add("fc.weight", {kClasses, 2048});
  if (file.find("fc.bias") != nullptr) weights.add("fc.bias", {kClasses});
  weights.load(file);
  for (const auto& [name, raw] : table.units()) {
    Unit unit = folded(raw);
    const int64_t side = side_at(name);
    unit.weight =
        ops::onednn::pack_convolution(unit.weight, unit.padding, unit.stride, {1, raw.weight.size(1), side, side});
    unit.packed = true;
    impl->units.emplace(name, std::move(unit));
  }
  return InceptionV3(std::move(impl));
}

bool InceptionV3::has_width(int64_t width) { return width == 64 || width == 192 || width == 768 || width == 2048; }

at::Tensor InceptionV3::forward(const at::Tensor& x, int64_t width) const {
  const c10::NoGradGuard no_grad;
  if (!has_width(width)) fail<Error>("Inception-v3 has features of 64, 192, 768 and 2048, not of ", width);
  return impl_->forward(x, width);
}

}  // namespace mdm
