// How scenes of shapes look: the outlines, where objects stand, and the pixels.
#include <algorithm>
#include <cmath>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/core/random.h"
#include "mdm/demo/shapes.h"

namespace mdm {
namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr double kExtent = 1.05;      // shapes of unit size lie within this
constexpr double kRingHole = 0.5;     // radius of the hole
constexpr double kSquareHalf = 0.88;  // about the area of the circle
constexpr int kSamples = 89;          // points a pixel; this and the next are Fibonacci numbers
constexpr int kStride = 55;

using Outline = std::vector<std::array<double, 2>>;

Outline star_outline() {
  constexpr int kTips = 5;
  constexpr double kInner = 0.45;
  Outline points;
  for (int i = 0; i < 2 * kTips; ++i) {
    const double radius = i % 2 == 0 ? kExtent : kExtent * kInner;
    const double angle = kPi * (static_cast<double>(i) / kTips - 0.5);  // the first tip points up
    points.push_back({radius * std::cos(angle), radius * std::sin(angle) + 0.05});
  }
  return points;
}

Outline heart_outline() {
  constexpr int kPoints = 64;
  Outline points;
  for (int i = 0; i < kPoints; ++i) {
    const double t = 2 * kPi * i / kPoints;
    const double x = 16 * std::pow(std::sin(t), 3);
    const double y = 13 * std::cos(t) - 5 * std::cos(2 * t) - 2 * std::cos(3 * t) - std::cos(4 * t);
    points.push_back({x / 16, -(y + 2.5) / 16});
  }
  return points;
}

Outline cross_outline() {
  constexpr double kArm = 0.34, kEnd = 1.0;
  return {{-kArm, -kEnd}, {kArm, -kEnd}, {kArm, -kArm}, {kEnd, -kArm}, {kEnd, kArm},   {kArm, kArm},
          {kArm, kEnd},   {-kArm, kEnd}, {-kArm, kArm}, {-kEnd, kArm}, {-kEnd, -kArm}, {-kArm, -kArm}};
}

const Outline& outline_of(Shape shape) {
  static const Outline star = star_outline(), heart = heart_outline(), cross = cross_outline();
  static const Outline triangle = {{0, -0.95}, {1, 0.85}, {-1, 0.85}};
  static const Outline square = {{-kSquareHalf, -kSquareHalf},
                                 {kSquareHalf, -kSquareHalf},
                                 {kSquareHalf, kSquareHalf},
                                 {-kSquareHalf, kSquareHalf}};
  switch (shape) {
    case Shape::kStar: return star;
    case Shape::kHeart: return heart;
    case Shape::kCross: return cross;
    case Shape::kTriangle: return triangle;
    default: return square;
  }
}

bool inside_outline(const Outline& outline, double x, double y) {
  bool inside = false;
  for (size_t i = 0, before = outline.size() - 1; i < outline.size(); before = i++) {
    const auto [ax, ay] = outline[before];
    const auto [bx, by] = outline[i];
    // A ray to the right crosses this side.
    if ((ay > y) != (by > y) && x - ax < (bx - ax) * (y - ay) / (by - ay)) inside = !inside;
  }
  return inside;
}

double outline_distance(const Outline& outline, double x, double y) {
  double nearest = 1e30;
  for (size_t i = 0, before = outline.size() - 1; i < outline.size(); before = i++) {
    const auto [ax, ay] = outline[before];
    const auto [bx, by] = outline[i];
    const double dx = bx - ax, dy = by - ay, px = x - ax, py = y - ay;
    const double along = std::clamp((px * dx + py * dy) / (dx * dx + dy * dy), 0.0, 1.0);
    const double off_x = px - along * dx, off_y = py - along * dy;
    nearest = std::min(nearest, off_x * off_x + off_y * off_y);
  }
  return inside_outline(outline, x, y) ? -std::sqrt(nearest) : std::sqrt(nearest);
}

double between(double low, double high, float share) { return low + (high - low) * static_cast<double>(share); }

enum Number { kBackground, kAlong, kFirst, kAcross, kSecond, kObjectNumbers };
enum ObjectNumber { kRadius, kRed, kGreen, kBlue, kPerObject };

constexpr double kMargin = 0.02, kGap = 0.05;
constexpr double kColorJitter = 6;

// Two middles (x, y): `distance` apart along the first coordinate, nearer across.
std::array<std::array<double, 2>, 2> two_places(const float* numbers, double first_radius, double second_radius) {
  const double a = first_radius * kExtent, b = second_radius * kExtent;
  const double distance = between(a + b + kGap, 1 - a - b - 2 * kMargin, numbers[kAlong]);
  const double along = between(kMargin + a, 1 - kMargin - b - distance, numbers[kFirst]);
  const double first_across = between(kMargin + a, 1 - kMargin - a, numbers[kAcross]);
  const double second_across =
      std::clamp(first_across + between(-distance / 2, distance / 2, numbers[kSecond]), kMargin + b, 1 - kMargin - b);
  return {{{along, first_across}, {along + distance, second_across}}};
}

bool inside_shape(Shape shape, double x, double y) {
  const double squared = x * x + y * y;
  if (shape == Shape::kCircle) return squared < 1;
  if (shape == Shape::kRing) return squared < 1 && squared > kRingHole * kRingHole;
  return inside_outline(outline_of(shape), x, y);
}

double coverage(Shape shape, const Placement& place, double side, int column, int row) {
  const double radius = place.radius * side;
  const double x = column - place.x * side, y = row - place.y * side;
  const double middle = shape_distance(shape, (x + 0.5) / radius, (y + 0.5) / radius) * radius;
  constexpr double kHalfDiagonal = 0.7072;
  if (std::abs(middle) > kHalfDiagonal) return middle < 0 ? 1 : 0;
  int inside = 0;
  for (int i = 0; i < kSamples; ++i) {
    // A Fibonacci lattice: edges of all directions meet points evenly.
    const double u = (i + 0.5) / kSamples, v = (i * kStride % kSamples + 0.5) / kSamples;
    inside += inside_shape(shape, (x + u) / radius, (y + v) / radius) ? 1 : 0;
  }
  return static_cast<double>(inside) / kSamples;
}

}  // namespace

double shape_distance(Shape shape, double x, double y) {
  if (shape == Shape::kCircle) return std::hypot(x, y) - 1;
  if (shape == Shape::kRing) return std::max(std::hypot(x, y) - 1, kRingHole - std::hypot(x, y));
  return outline_distance(outline_of(shape), x, y);
}

Scene place_scene(const SceneText& text, uint64_t seed, uint64_t index) {
  RandomAddress address;
  address.seed = seed;
  address.sample = index;
  address.step = 1;  // step 0 draws what the caption says
  address.stream = RandomStream::kScene;
  float numbers[kObjectNumbers + 2 * kPerObject];
  random_uniform(address, 0, numbers, std::size(numbers));

  Scene scene;
  scene.text = text;
  scene.background = between(228, 255, numbers[kBackground]);
  const bool two = text.objects.size() > 1;
  for (size_t i = 0; i < text.objects.size(); ++i) {
    const float* own = numbers + kObjectNumbers + i * kPerObject;
    Placement place;
    place.radius = two ? between(0.17, 0.21, own[kRadius]) : between(0.18, 0.30, own[kRadius]);
    const auto middle = color_rgb(text.objects[i].color);
    for (size_t c = 0; c < 3; ++c) place.rgb[c] = middle[c] + between(-kColorJitter, kColorJitter, own[kRed + c]);
    scene.placements.push_back(place);
  }
  auto& places = scene.placements;
  if (!two) {
    const double edge = kMargin + places[0].radius * kExtent;
    places[0].x = between(edge, 1 - edge, numbers[kFirst]);
    places[0].y = between(edge, 1 - edge, numbers[kAcross]);
    return scene;
  }
  const bool first_is_first = text.relation == Relation::kLeftOf || text.relation == Relation::kAbove;
  const bool upright = text.relation == Relation::kAbove || text.relation == Relation::kBelow;
  Placement& low = places[first_is_first ? 0 : 1];
  Placement& high = places[first_is_first ? 1 : 0];
  const auto middles = two_places(numbers, low.radius, high.radius);
  low.x = middles[0][upright ? 1 : 0];
  low.y = middles[0][upright ? 0 : 1];
  high.x = middles[1][upright ? 1 : 0];
  high.y = middles[1][upright ? 0 : 1];
  return scene;
}

Image render_scene(const Scene& scene, int side) {
  if (side < 8 || side > 4096) fail<Error>("render_scene: side ", side, " is not in 8..4096");
  std::vector<double> canvas(static_cast<size_t>(side) * static_cast<size_t>(side) * 3, scene.background);
  for (size_t i = 0; i < scene.placements.size(); ++i) {
    const Placement& place = scene.placements[i];
    const double reach = place.radius * kExtent * side + 1;
    const auto first = [&](double middle) { return std::max(0, static_cast<int>(std::floor(middle * side - reach))); };
    const auto last = [&](double middle) {
      return std::min(side - 1, static_cast<int>(std::ceil(middle * side + reach)));
    };
    for (int row = first(place.y); row <= last(place.y); ++row) {
      for (int column = first(place.x); column <= last(place.x); ++column) {
        const double share = coverage(scene.text.objects[i].shape, place, side, column, row);
        double* pixel =
            canvas.data() + (static_cast<size_t>(row) * static_cast<size_t>(side) + static_cast<size_t>(column)) * 3;
        for (size_t c = 0; c < 3; ++c) pixel[c] += share * (place.rgb[c] - pixel[c]);
      }
    }
  }
  Image image(side, side, 3);
  std::transform(canvas.begin(), canvas.end(), image.pixels.begin(),
                 [](double value) { return static_cast<uint8_t>(std::lround(std::clamp(value, 0.0, 255.0))); });
  return image;
}

}  // namespace mdm
