// The judge accepts what a scene looks like, also a little blurred, noisy and moved, and nothing else.
#include "mdm/demo/judge.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "mdm/core/error.h"
#include "mdm/core/random.h"

namespace mdm {
namespace {

constexpr uint64_t kScenes = 2000;  // one of four at 64 pixels, the others at 32

// Numbers for what is done to a scene.
class Numbers {
 public:
  explicit Numbers(uint64_t index) {
    address_.sample = index, address_.seed = 77, address_.stream = RandomStream::kCrop;
  }
  int below(size_t bound) { return static_cast<int>(random_below(address_, next_++, bound)); }
  double between(double low, double high) { return low + (high - low) * below(1 << 24) / (1 << 24); }
  std::vector<float> normal(size_t count) {
    std::vector<float> values(count);
    RandomAddress address = address_;
    address.layer = 1;
    random_normal(address, 0, values.data(), count);
    return values;
  }

 private:
  RandomAddress address_;
  uint64_t next_ = 0;
};

int side_of(uint64_t index) { return index % 4 == 3 ? 64 : 32; }

// Moved by less than a pixel (bilinear, which also blurs), blurred a little, with noise of 6 steps.
Image worn(const Image& image, Numbers& numbers) {
  const double dx = numbers.between(-0.5, 0.5), dy = numbers.between(-0.5, 0.5);
  const double blur = numbers.between(0, 0.12);  // weight of each neighbour in a row of three
  const auto noise = numbers.normal(image.pixels.size());
  // Both are weights of five neighbours along each axis: first along the rows, then along the columns.
  const auto weights_of = [&](double shift) {
    const double left = std::max(0.0, -shift), right = std::max(0.0, shift), middle = 1 - left - right;
    const double keep = 1 - 2 * blur;
    return std::array<double, 5>{blur * left, keep * left + blur * middle, keep * middle + blur * (left + right),
                                 keep * right + blur * middle, blur * right};
  };
  const auto across = weights_of(dx), down = weights_of(dy);
  const int side = image.width;
  const auto inside = [side](int at) { return std::clamp(at, 0, side - 1); };
  std::vector<double> rows(image.pixels.size());
  Image out(side, side, 3);
  for (int i = 0; i < side * side * 3; ++i) {
    const int y = i / (3 * side), x = i / 3 % side, c = i % 3;
    for (int k = -2; k <= 2; ++k)
      rows[static_cast<size_t>(i)] += across[static_cast<size_t>(k + 2)] * image.row(y)[3 * inside(x + k) + c];
  }
  for (int i = 0; i < side * side * 3; ++i) {
    const int y = i / (3 * side), rest = i % (3 * side);
    double sum = 6.0 * noise[static_cast<size_t>(i)];
    for (int k = -2; k <= 2; ++k)
      sum += down[static_cast<size_t>(k + 2)] * rows[static_cast<size_t>(inside(y + k) * 3 * side + rest)];
    out.pixels[static_cast<size_t>(i)] = static_cast<uint8_t>(std::lround(std::clamp(sum, 0.0, 255.0)));
  }
  return out;
}

std::string described(const SceneVerdict& verdict) {
  std::string text = verdict.failure();
  for (const FoundObject& object : verdict.analysis.objects) {
    text += concat("; ", color_name(object.color), " (", object.color_difference, ") ", shape_name(object.shape),
                   " at ", object.x, ",", object.y, " iou");
    for (const double iou : object.iou) text += concat(" ", iou);
  }
  return text + concat("; extra ", verdict.analysis.extra_area);
}

// The share of worn renders of `change`d scenes that are right by the scene's own caption. Scenes for which `change`
// returns false are not counted.
struct Rate {
  size_t judged = 0, right = 0;
  double share() const { return static_cast<double>(right) / static_cast<double>(judged); }
};
Rate rate_of(const char* what, const std::function<bool(Scene&, Numbers&)>& change, bool show_right = false) {
  Rate rate;
  std::array<Rate, 2> sides;
  size_t shown = 0;
  for (uint64_t i = 0; rate.judged < kScenes; ++i) {
    const Scene scene = make_scene(11, i);
    Scene changed = scene;
    Numbers numbers(i);
    if (!change(changed, numbers)) continue;
    const SceneVerdict verdict = judge_scene(worn(render_scene(changed, side_of(i)), numbers), scene.text);
    for (Rate* each : {&rate, &sides[side_of(i) / 64]}) {
      ++each->judged;
      each->right += verdict.right() ? 1 : 0;
    }
    if (verdict.right() == show_right && shown++ < 5) {
      std::printf("  scene %llu, %s: %s\n", static_cast<unsigned long long>(i), caption_of(scene.text).c_str(),
                  described(verdict).c_str());
    }
  }
  std::printf("%s: %zu of %zu right (%.2f %%); 32 pixels %.2f %%, 64 pixels %.2f %%\n", what, rate.right, rate.judged,
              100 * rate.share(), 100 * sides[0].share(), 100 * sides[1].share());
  return rate;
}

TEST(Judge, AcceptsTrueScenes) {
  EXPECT_GE(rate_of("true scenes", [](Scene&, Numbers&) { return true; }).share(), 0.99);
}

TEST(Judge, AcceptsEveryCleanScene) {
  for (uint64_t i = 0; i < 400; ++i) {
    const Scene scene = make_scene(12, i, static_cast<SceneSplit>(i % 3));
    const SceneVerdict verdict = judge_scene(render_scene(scene, side_of(i / 3)), scene.text);
    ASSERT_TRUE(verdict.right()) << caption_of(scene.text) << ": " << described(verdict);
    for (size_t k = 0; k < scene.placements.size(); ++k) {
      const FoundObject& found = verdict.analysis.objects[verdict.match[k]];
      EXPECT_NEAR(found.x, scene.placements[k].x, 0.02);
      EXPECT_NEAR(found.y, scene.placements[k].y, 0.02);
      EXPECT_NEAR(found.radius, scene.placements[k].radius, 0.02);
      EXPECT_LT(found.color_difference, 12);
      EXPECT_GT(found.iou[static_cast<size_t>(scene.text.objects[k].shape)], 0.85);
    }
  }
}

TEST(Judge, RejectsAnotherColor) {
  const auto rate = rate_of(
      "one other color",
      [](Scene& scene, Numbers& numbers) {
        const auto i = static_cast<size_t>(numbers.below(scene.placements.size()));
        const int old = static_cast<int>(scene.text.objects[i].color);
        const auto rgb = color_rgb(static_cast<ShapeColor>((old + 1 + numbers.below(kShapeColors - 1)) % kShapeColors));
        for (size_t c = 0; c < 3; ++c) scene.placements[i].rgb[c] = rgb[c] + numbers.between(-6, 6);
        return true;
      },
      true);
  EXPECT_LE(rate.share(), 0.01);
}

TEST(Judge, RejectsAnotherShape) {
  const auto rate = rate_of(
      "one other shape",
      [](Scene& scene, Numbers& numbers) {
        auto& object = scene.text.objects[static_cast<size_t>(numbers.below(scene.text.objects.size()))];
        object.shape = static_cast<Shape>((static_cast<int>(object.shape) + 1 + numbers.below(kShapes - 1)) % kShapes);
        return true;
      },
      true);
  EXPECT_LE(rate.share(), 0.01);
}

TEST(Judge, RejectsAnotherRelation) {
  const auto rate = rate_of(
      "another relation",
      [](Scene& scene, Numbers& numbers) {
        if (scene.text.objects.size() < 2) return false;
        SceneText text = scene.text;
        text.relation = static_cast<Relation>(1 + (static_cast<int>(text.relation) + numbers.below(3)) % 4);
        scene = place_scene(text, 13, static_cast<uint64_t>(numbers.below(1 << 20)));
        return true;
      },
      true);
  EXPECT_LE(rate.share(), 0.01);
}

TEST(Judge, RejectsAMissingObject) {
  const auto rate = rate_of(
      "one object missing",
      [](Scene& scene, Numbers& numbers) {
        const auto i = numbers.below(scene.placements.size());
        scene.text.objects.erase(scene.text.objects.begin() + i);
        scene.placements.erase(scene.placements.begin() + i);
        return true;
      },
      true);
  EXPECT_LE(rate.share(), 0.01);
}

TEST(Judge, RejectsAnotherObjectMore) {
  const auto rate = rate_of(
      "one object more",
      [](Scene& scene, Numbers& numbers) {
        for (int tries = 0; tries < 100; ++tries) {
          Placement place;
          place.radius = numbers.between(0.09, 0.14);
          place.x = numbers.between(place.radius, 1 - place.radius);
          place.y = numbers.between(place.radius, 1 - place.radius);
          const bool free = std::all_of(scene.placements.begin(), scene.placements.end(), [&](const Placement& other) {
            return std::hypot(place.x - other.x, place.y - other.y) > 1.05 * (place.radius + other.radius);
          });
          if (!free) continue;
          const ObjectKind kind = ObjectKind::from_number(numbers.below(kObjectKinds));
          const auto rgb = color_rgb(kind.color);
          for (size_t c = 0; c < 3; ++c) place.rgb[c] = rgb[c];
          scene.text.objects.push_back(kind);
          scene.placements.push_back(place);
          return true;
        }
        return false;
      },
      true);
  EXPECT_LE(rate.share(), 0.01);
}

TEST(Judge, RejectsSwappedColors) {
  const auto rate = rate_of(
      "colors swapped",
      [](Scene& scene, Numbers&) {
        if (scene.text.objects.size() < 2 || scene.text.objects[0].color == scene.text.objects[1].color) return false;
        if (scene.text.objects[0].shape == scene.text.objects[1].shape) return false;
        std::swap(scene.placements[0].rgb, scene.placements[1].rgb);
        return true;
      },
      true);
  EXPECT_LE(rate.share(), 0.01);
}

TEST(Judge, SaysWhichPartFailed) {
  const SceneText text = parse_caption("a red circle left of a blue square");
  const auto verdict_of = [&](const char* caption) {
    return judge_scene(render_scene(place_scene(parse_caption(caption), 1, 2), 32), text);
  };
  EXPECT_STREQ(verdict_of("a red circle left of a blue square").failure(), "");
  EXPECT_STREQ(verdict_of("a blue square right of a red circle").failure(), "");
  EXPECT_STREQ(verdict_of("a red circle right of a blue square").failure(), "relation");
  EXPECT_STREQ(verdict_of("a red circle left of a blue star").failure(), "shape");
  EXPECT_STREQ(verdict_of("a red circle left of a green square").failure(), "color");
  EXPECT_STREQ(verdict_of("a red circle").failure(), "count");
  EXPECT_STREQ(judge_scene(Image(32, 32, 3, 0), text).failure(), "background");
  Image noisy = render_scene(place_scene(text, 1, 2), 32);
  for (int x = 0; x < 32; x += 4) noisy.row(31)[3 * x] = noisy.row(31)[3 * x + 2] = 0;  // green specks along the edge
  EXPECT_STREQ(judge_scene(noisy, text).failure(), "extra");
}

TEST(Judge, RefusesWhatIsNoSquarePicture) {
  const SceneText text = parse_caption("a red circle");
  EXPECT_THROW(judge_scene(Image(32, 31, 3), text), Error);
  EXPECT_THROW(judge_scene(Image(8, 8, 3), text), Error);
  EXPECT_STREQ(judge_scene(Image(16, 16, 1, 240), text).failure(), "count");
  EXPECT_STREQ(judge_scene(Image(16, 16, 4, 128), text).failure(), "count")
      << "half transparent gray over white is light gray";
}

TEST(Judge, NeverFailsOnNoise) {
  for (uint64_t i = 0; i < 30; ++i) {
    Image image(32, 32, 3);
    const auto noise = Numbers(i).normal(image.pixels.size());
    const double strength = 8 * static_cast<double>(i + 1);
    for (size_t k = 0; k < noise.size(); ++k) {
      image.pixels[k] = static_cast<uint8_t>(std::clamp(230 + strength * noise[k], 0.0, 255.0));
    }
    EXPECT_FALSE(judge_scene(image, parse_caption("a red circle")).right());
  }
}

}  // namespace
}  // namespace mdm
