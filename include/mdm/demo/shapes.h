// Scenes of coloured shapes with captions: what they say, how they are drawn from a seed, which are held out of
// training, and how they look. demo/judge.h judges pictures of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mdm/media/image.h"

namespace mdm {

enum class ShapeColor { kRed, kOrange, kYellow, kGreen, kCyan, kBlue, kPurple, kBlack };
constexpr int kShapeColors = 8;

enum class Shape { kCircle, kSquare, kTriangle, kStar, kCross, kHeart, kRing };
constexpr int kShapes = 7;

/// Where the first object is, seen from the second.
enum class Relation { kNone, kLeftOf, kRightOf, kAbove, kBelow };

const char* shape_name(Shape shape);
const char* color_name(ShapeColor color);
/// "left of", "above", ...; "" for kNone.
const char* relation_name(Relation relation);
/// The middle of what a colour looks like, sRGB. Any two are at least 40 apart in CIELAB (CIE 1976), and each
/// is at least 60 from white.
std::array<uint8_t, 3> color_rgb(ShapeColor color);

struct ObjectKind {
  ShapeColor color = ShapeColor::kRed;
  Shape shape = Shape::kCircle;

  /// In [0, kObjectKinds).
  int number() const { return static_cast<int>(color) * kShapes + static_cast<int>(shape); }
  static ObjectKind from_number(int number);
  bool operator==(const ObjectKind& other) const { return color == other.color && shape == other.shape; }
};
constexpr int kObjectKinds = kShapeColors * kShapes;

/// What a caption says: one object, or two different ones and their relation.
struct SceneText {
  std::vector<ObjectKind> objects;
  Relation relation = Relation::kNone;

  bool operator==(const SceneText& other) const { return objects == other.objects && relation == other.relation; }
};

/// "a red circle", "an orange star left of a blue ring".
std::string caption_of(const SceneText& text);
/// The scene of such a caption; DataError that names the word that doesn't fit, and the nearest one that would.
SceneText parse_caption(std::string_view caption);

/// Which part of the scenes a scene belongs to: a function of what the caption says alone.
enum class SceneSplit {
  kSeen,                 ///< in the training set
  kHeldOutPairs,         ///< holds a colour and shape that training never shows together: is_held_out()
  kHeldOutCombinations,  ///< two objects that training shows, but never in one picture
};
constexpr int kSceneSplits = 3;
/// "seen", "held-out-pairs", "held-out-combinations".
const char* split_name(SceneSplit split);
/// ConfigError for another name.
SceneSplit parse_split(std::string_view name);

/// Each colour c is held out with one shape: number (3 c + 1) mod kShapes; 8 of the 56 kinds.
bool is_held_out(ObjectKind kind);
/// A pair of two different kinds a < b (by number, whatever their order in the caption and their relation) that
/// are not held out themselves is a held-out combination when random_below(seed 2310, sample 64 a + b, stream
/// kScene) of 8 is 0: about an eighth of the 1,128 pairs.
SceneSplit split_of(const SceneText& text);

/// How many captions there are of one and of two objects, and pairs of kinds without order and relation.
struct SplitCounts {
  size_t single_captions = 0, two_object_captions = 0, unordered_pairs = 0;
};
SplitCounts count_split(SceneSplit split);

/// An object's place: all lengths as shares of the picture's side, from its upper left corner.
struct Placement {
  double x = 0, y = 0;             ///< the middle
  double radius = 0;               ///< half the side of the box around a shape of unit size
  std::array<double, 3> rgb = {};  ///< [0, 255]; near color_rgb()
};

struct Scene {
  SceneText text;
  std::vector<Placement> placements;  ///< one an object
  double background = 255;            ///< gray level, light: 228 to 255
};

/// How often scenes are of a kind; shares in [0, 1].
struct SceneShares {
  double two_objects = 0.7;  ///< scenes with two objects (of kHeldOutCombinations all have two)
  /// Of the scenes with two objects those whose caption begins with the left or the upper one. At 0.5 neither the
  /// order of the objects nor the relation alone tells where an object is, only both together, and a model may
  /// learn for an hour without finding that out; at 1 the order alone tells, which is a beginning.
  double left_or_upper_first = 0.5;
};

/// Scene `index` of the endless sequence of a split. Kinds are drawn evenly and drawn again until the scene belongs
/// to the split. The same (seed, index, split, shares) is the same scene everywhere.
Scene make_scene(uint64_t seed, uint64_t index, SceneSplit split = SceneSplit::kSeen, const SceneShares& shares = {});

/// A scene of that text with places drawn from (seed, index): objects never touch, and the relation is clear:
/// along its axis the middles are farther apart than across.
Scene place_scene(const SceneText& text, uint64_t seed, uint64_t index);

/// The picture, RGB, side x side: each pixel is the mean of 89 points. Error unless side is 8 to 4096.
Image render_scene(const Scene& scene, int side);

/// The signed distance from a point to the edge of a shape of unit size with the middle (0, 0), y downwards;
/// negative inside. All shapes lie within [-1.05, 1.05].
double shape_distance(Shape shape, double x, double y);

}  // namespace mdm
