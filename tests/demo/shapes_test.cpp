// What scenes say, which are held out, and how they are drawn.
#include "mdm/demo/shapes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "mdm/core/error.h"
#include "mdm/demo/judge.h"

namespace mdm {
namespace {

constexpr Relation kAllRelations[] = {Relation::kLeftOf, Relation::kRightOf, Relation::kAbove, Relation::kBelow};

SceneText pair_of(int a, int b, Relation relation = Relation::kLeftOf) {
  return {{ObjectKind::from_number(a), ObjectKind::from_number(b)}, relation};
}

std::string parse_error(const std::string& caption) {
  try {
    parse_caption(caption);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST(Captions, SayWhatTheSceneIs) {
  EXPECT_EQ(caption_of({{{ShapeColor::kRed, Shape::kCircle}}, Relation::kNone}), "a red circle");
  EXPECT_EQ(caption_of({{{ShapeColor::kOrange, Shape::kStar}, {ShapeColor::kBlue, Shape::kRing}}, Relation::kLeftOf}),
            "an orange star left of a blue ring");
  EXPECT_EQ(caption_of({{{ShapeColor::kBlack, Shape::kHeart}, {ShapeColor::kCyan, Shape::kCross}}, Relation::kBelow}),
            "a black heart below a cyan cross");
}

TEST(Captions, AllReadBackToTheirScene) {
  std::set<std::string> captions;
  for (int a = 0; a < kObjectKinds; ++a) {
    const SceneText one = {{ObjectKind::from_number(a)}, Relation::kNone};
    EXPECT_EQ(parse_caption(caption_of(one)), one);
    captions.insert(caption_of(one));
    for (int b = 0; b < kObjectKinds; ++b) {
      if (a == b) continue;
      for (const Relation relation : kAllRelations) {
        const SceneText two = pair_of(a, b, relation);
        ASSERT_EQ(parse_caption(caption_of(two)), two) << caption_of(two);
        captions.insert(caption_of(two));
      }
    }
  }
  EXPECT_EQ(captions.size(), static_cast<size_t>(56 + 56 * 55 * 4));
}

TEST(Captions, ThatAreNoneAreRefusedWithTheNearestWord) {
  EXPECT_NE(parse_error("a red cirkle").find("circle"), std::string::npos);
  EXPECT_NE(parse_error("a rad circle").find("\"red\""), std::string::npos);
  EXPECT_NE(parse_error("a red circle left a blue ring").find("\"of\""), std::string::npos);
  EXPECT_NE(parse_error("").find("the end"), std::string::npos);
  EXPECT_NE(parse_error("a red circle left of"), "");
  EXPECT_NE(parse_error("a red circle left of a red circle").find("the same"), std::string::npos);
  EXPECT_NE(parse_error("a red circle above a blue ring below a green star"), "");
  EXPECT_NE(parse_error("a red \xFF\x01"), "");
  EXPECT_EQ(parse_error("A red  circle "), "");
}

TEST(Splits, DependOnThePairAloneAndPartitionAllScenes) {
  SplitCounts sum;
  for (int i = 0; i < kSceneSplits; ++i) {
    const SplitCounts counts = count_split(static_cast<SceneSplit>(i));
    std::printf("%s: %zu + %zu captions, %zu pairs\n", split_name(static_cast<SceneSplit>(i)), counts.single_captions,
                counts.two_object_captions, counts.unordered_pairs);
    sum.single_captions += counts.single_captions;
    sum.two_object_captions += counts.two_object_captions;
    sum.unordered_pairs += counts.unordered_pairs;
    EXPECT_EQ(parse_split(split_name(static_cast<SceneSplit>(i))), static_cast<SceneSplit>(i));
  }
  EXPECT_EQ(sum.single_captions, 56u);
  EXPECT_EQ(sum.unordered_pairs, 1540u);
  EXPECT_EQ(sum.two_object_captions, 12320u);
  EXPECT_EQ(count_split(SceneSplit::kHeldOutPairs).single_captions, 8u);
  EXPECT_EQ(count_split(SceneSplit::kHeldOutCombinations).single_captions, 0u);
  // 48 kinds are seen: 48 * 47 / 2 pairs, of which about an eighth is held out.
  const size_t held_out = count_split(SceneSplit::kHeldOutCombinations).unordered_pairs;
  EXPECT_EQ(count_split(SceneSplit::kSeen).unordered_pairs + held_out, 1128u);
  EXPECT_GT(held_out, 110u);
  EXPECT_LT(held_out, 172u);
  for (int a = 0; a < kObjectKinds; ++a) {
    for (int b = a + 1; b < kObjectKinds; ++b) {
      const SceneSplit split = split_of(pair_of(a, b));
      for (const Relation relation : kAllRelations) {
        ASSERT_EQ(split_of(pair_of(a, b, relation)), split);
        ASSERT_EQ(split_of(pair_of(b, a, relation)), split);
      }
    }
  }
  EXPECT_THROW(parse_split("train"), ConfigError);
}

TEST(Splits, ShowEveryColorEveryShapeAndEverySeenKindOften) {
  std::map<int, int> partners;
  std::map<ShapeColor, int> held_colors;
  for (int a = 0; a < kObjectKinds; ++a) {
    const ObjectKind kind = ObjectKind::from_number(a);
    if (is_held_out(kind)) ++held_colors[kind.color];
    for (int b = 0; b < kObjectKinds; ++b) {
      if (a != b && split_of(pair_of(a, b)) == SceneSplit::kSeen) ++partners[a];
    }
  }
  EXPECT_EQ(held_colors.size(), static_cast<size_t>(kShapeColors));  // one shape of each colour
  EXPECT_EQ(partners.size(), 48u);
  for (const auto& [kind, count] : partners) EXPECT_GE(count, 30) << kind;
}

TEST(Scenes, RelationsComeAsOftenAsTheirShareSays) {
  constexpr uint64_t kMany = 4000;
  for (const double share : {0.0, 0.5, 0.8, 1.0}) {
    std::array<size_t, 5> counts = {};
    for (uint64_t i = 0; i < kMany; ++i) {
      const Scene scene = make_scene(4, i, SceneSplit::kSeen, {1.0, share});
      ++counts[static_cast<size_t>(scene.text.relation)];
      ASSERT_EQ(scene.text.objects.size(), 2u);
    }
    const auto rate = [&](Relation relation) {
      return static_cast<double>(counts[static_cast<size_t>(relation)]) / kMany;
    };
    EXPECT_NEAR(rate(Relation::kLeftOf), share / 2, 0.03) << share;
    EXPECT_NEAR(rate(Relation::kAbove), share / 2, 0.03) << share;
    EXPECT_NEAR(rate(Relation::kRightOf), (1 - share) / 2, 0.03) << share;
    EXPECT_NEAR(rate(Relation::kBelow), (1 - share) / 2, 0.03) << share;
  }
}

TEST(Scenes, OfASplitBelongToIt) {
  std::set<int> seen;
  size_t two = 0;
  constexpr uint64_t kMany = 3000;
  for (uint64_t i = 0; i < kMany; ++i) {
    const Scene scene = make_scene(1, i);
    ASSERT_EQ(split_of(scene.text), SceneSplit::kSeen) << caption_of(scene.text);
    two += scene.text.objects.size() == 2 ? 1 : 0;
    for (const ObjectKind& kind : scene.text.objects) seen.insert(kind.number());
  }
  EXPECT_EQ(seen.size(), 48u);
  EXPECT_NEAR(static_cast<double>(two) / kMany, 0.7, 0.03);
  for (uint64_t i = 0; i < 200; ++i) {
    ASSERT_EQ(split_of(make_scene(1, i, SceneSplit::kHeldOutPairs).text), SceneSplit::kHeldOutPairs);
    const Scene combination = make_scene(1, i, SceneSplit::kHeldOutCombinations, {0});
    ASSERT_EQ(split_of(combination.text), SceneSplit::kHeldOutCombinations);
    ASSERT_EQ(combination.text.objects.size(), 2u);
  }
}

// The same everywhere and in every version: models and reports name scenes by seed and index.
TEST(Scenes, AreWhatTheyAlwaysWere) {
  EXPECT_EQ(caption_of(make_scene(1, 0).text), "a green triangle");
  EXPECT_EQ(caption_of(make_scene(1, 1).text), "an orange square");
  EXPECT_EQ(caption_of(make_scene(2, 123456789).text), "a red heart");
  const Scene scene = make_scene(1, 0);
  EXPECT_NEAR(scene.background, 254.422012, 1e-5);
  EXPECT_NEAR(scene.placements[0].x, 0.505513, 1e-5);
  EXPECT_NEAR(scene.placements[0].radius, 0.271235, 1e-5);
  EXPECT_EQ(render_scene(scene, 32).pixels, render_scene(make_scene(1, 0), 32).pixels);
  EXPECT_NE(render_scene(scene, 32).pixels, render_scene(make_scene(2, 0), 32).pixels);
}

TEST(Scenes, KeepObjectsApartInsideAndInTheirRelation) {
  for (uint64_t i = 0; i < 3000; ++i) {
    const Scene scene = make_scene(7, i);
    for (const Placement& place : scene.placements) {
      for (const double middle : {place.x, place.y}) {
        ASSERT_GT(middle - 1.05 * place.radius, 0.0) << i;
        ASSERT_LT(middle + 1.05 * place.radius, 1.0) << i;
      }
    }
    if (scene.placements.size() < 2) continue;
    const Placement &a = scene.placements[0], &b = scene.placements[1];
    const Relation relation = scene.text.relation;
    const bool upright = relation == Relation::kAbove || relation == Relation::kBelow;
    const double sign = relation == Relation::kLeftOf || relation == Relation::kAbove ? 1 : -1;
    const double along = sign * (upright ? b.y - a.y : b.x - a.x);
    const double across = std::abs(upright ? b.x - a.x : b.y - a.y);
    ASSERT_GT(along, 1.05 * (a.radius + b.radius) + 0.049) << i;
    ASSERT_LT(across, 0.6 * along) << i;
  }
}

TEST(Colors, AreFarApart) {
  for (int a = 0; a < kShapeColors; ++a) {
    const auto rgb = color_rgb(static_cast<ShapeColor>(a));
    const std::array<double, 3> first = {double(rgb[0]), double(rgb[1]), double(rgb[2])};
    for (const double gray : {228.0, 255.0}) EXPECT_GE(color_difference(first, {gray, gray, gray}), 40) << a;
    for (int b = 0; b < a; ++b) {
      const auto other = color_rgb(static_cast<ShapeColor>(b));
      EXPECT_GE(color_difference(first, {double(other[0]), double(other[1]), double(other[2])}), 40) << a << " " << b;
    }
  }
}

TEST(Colors, LabIsThatOfTheTextbook) {
  // Red, green and blue of sRGB under D65 (Lindbloom's calculator).
  const auto near = [](const std::array<double, 3>& rgb, const std::array<double, 3>& lab) {
    const auto got = lab_of(rgb);
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(got[i], lab[i], 0.02);
  };
  near({255, 0, 0}, {53.24, 80.09, 67.20});
  near({0, 255, 0}, {87.73, -86.18, 83.18});
  near({0, 0, 255}, {32.30, 79.19, -107.86});
  near({255, 255, 255}, {100, 0, 0});
}

TEST(Rendering, CoversTheAreaOfTheShape) {
  const double areas[kShapes] = {3.14159265, 4 * 0.88 * 0.88, 1.8, 0, 4 * 0.34 * (2 - 0.34), 0, 3.14159265 * 0.75};
  for (int s = 0; s < kShapes; ++s) {
    Scene scene;
    scene.text.objects = {{ShapeColor::kBlack, static_cast<Shape>(s)}};
    scene.placements = {{0.513, 0.487, 0.31, {0, 0, 0}}};
    double covered = 0;
    const Image image = render_scene(scene, 64);
    for (size_t i = 0; i < image.pixels.size(); i += 3) covered += 1 - image.pixels[i] / 255.0;
    const double radius = 0.31 * 64;
    // By points on a fine grid where the area has no simple formula.
    double area = areas[s];
    if (area == 0) {
      constexpr int kGrid = 300;
      for (int i = 0; i < kGrid * kGrid; ++i) {
        const double x = (i % kGrid + 0.5) / kGrid * 2.2 - 1.1, y = (i / kGrid + 0.5) / kGrid * 2.2 - 1.1;
        area += shape_distance(static_cast<Shape>(s), x, y) < 0 ? 2.2 * 2.2 / (kGrid * kGrid) : 0;
      }
    }
    EXPECT_NEAR(covered / (radius * radius), area, 0.01 * area) << shape_name(static_cast<Shape>(s));
  }
}

TEST(Rendering, IsTheSameSceneAtEverySide) {
  for (uint64_t i = 0; i < 20; ++i) {
    const Scene scene = make_scene(3, i);
    const Image small = render_scene(scene, 32), large = render_scene(scene, 64);
    int largest = 0;
    for (int y = 0; y < 32; ++y) {
      for (int x = 0; x < 96; ++x) {
        const int column = 6 * (x / 3) + x % 3;
        const int sum = large.row(2 * y)[column] + large.row(2 * y)[column + 3] + large.row(2 * y + 1)[column] +
                        large.row(2 * y + 1)[column + 3];
        largest = std::max(largest, std::abs(sum / 4 - small.row(y)[x]));
      }
    }
    EXPECT_LE(largest, 12) << i;
  }
  EXPECT_THROW(render_scene(make_scene(3, 0), 4), Error);
}

}  // namespace
}  // namespace mdm
