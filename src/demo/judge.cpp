// Finds the objects of a picture and compares them with a caption.
#include "mdm/demo/judge.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "demo/template_fit.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using Color = std::array<double, 3>;

constexpr double kCore = 0.5;              // coverage from which a pixel belongs to an object
constexpr double kExtra = 0.4;             // coverage from which a pixel that no template explains counts
constexpr int kReach = 2;                  // pixels around an object's core in which its edge is looked for
constexpr double kExplained = 1.5;         // pixels around a template that it explains
constexpr double kBackgroundShare = 0.25;  // of the picture, at least
constexpr double kBestCovered = 0.3;       // share of an object's pixels that tell its colour
constexpr double kHopeless = 0.12;         // a template that starts this far below the best can't win

double dot(const Color& a, const Color& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
Color minus(const Color& a, const Color& b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }

Color middle_of(ShapeColor color) {
  const auto rgb = color_rgb(color);
  return {static_cast<double>(rgb[0]), static_cast<double>(rgb[1]), static_cast<double>(rgb[2])};
}

Color median(std::vector<Color> colors) {
  Color result = {};
  for (size_t c = 0; c < 3; ++c) {
    const auto half = colors.begin() + static_cast<ptrdiff_t>(colors.size() / 2);
    std::nth_element(colors.begin(), half, colors.end(), [c](const Color& a, const Color& b) { return a[c] < b[c]; });
    result[c] = (*half)[c];
  }
  return result;
}

// A patch of connected pixels of one class.
struct Region {
  std::vector<int> pixels;
  int left = 0, top = 0, right = 0, bottom = 0;  // inclusive
};

// One picture on its way to a SceneAnalysis.
class Analyser {
 public:
  Analyser(const Image& image, const JudgeRules& rules)
      : side_(image.width), rules_(rules), pixels_(static_cast<size_t>(side_) * static_cast<size_t>(side_)) {
    for (size_t i = 0; i < pixels_.size(); ++i) {
      for (size_t c = 0; c < 3; ++c) pixels_[i][c] = image.pixels[3 * i + c];
    }
  }

  SceneAnalysis run() {
    if (!find_background()) return analysis_;
    classify();
    find_regions();
    std::vector<TemplateFit> fits;
    for (size_t i = 0; i < regions_.size(); ++i) add_object(i, fits);
    measure_extra(fits);
    std::stable_sort(analysis_.objects.begin(), analysis_.objects.end(),
                     [](const FoundObject& a, const FoundObject& b) { return a.area > b.area; });
    return analysis_;
  }

 private:
  bool find_background() {
    constexpr double kLight = 185, kNeutral = 40;  // of 255; neutral: how far apart the channels are at most
    std::vector<Color> light;
    for (const Color& pixel : pixels_) {
      const auto [least, most] = std::minmax_element(pixel.begin(), pixel.end());
      if (*least > kLight && *most - *least < kNeutral) light.push_back(pixel);
    }
    if (static_cast<double>(light.size()) < kBackgroundShare * static_cast<double>(pixels_.size())) return false;
    analysis_.background = true;
    analysis_.background_rgb = median(std::move(light));
    return true;
  }

  // Each pixel's nearest line from the background to one of the colours, and how far along that it is.
  void classify() {
    class_.assign(pixels_.size(), 0);
    covered_.assign(pixels_.size(), 0);
    std::array<Color, kShapeColors> ways;
    for (int k = 0; k < kShapeColors; ++k) {
      ways[static_cast<size_t>(k)] = minus(middle_of(static_cast<ShapeColor>(k)), analysis_.background_rgb);
    }
    for (size_t i = 0; i < pixels_.size(); ++i) {
      const Color away = minus(pixels_[i], analysis_.background_rgb);
      constexpr double kNear = 40;  // less than kExtra of the way to the nearest colour
      if (dot(away, away) < kNear * kNear) continue;
      double least = 1e30;
      for (size_t k = 0; k < ways.size(); ++k) {
        const double share = std::clamp(dot(away, ways[k]) / dot(ways[k], ways[k]), 0.0, 1.2);
        const Color rest = minus(away, {share * ways[k][0], share * ways[k][1], share * ways[k][2]});
        const double residual = dot(rest, rest);
        if (residual >= least) continue;
        least = residual;
        class_[i] = static_cast<int>(k);
        covered_[i] = share;
      }
      // What lies on none of the lines is foreground all the same (gray, brown, pink, ...).
      constexpr double kFarOff = 60;
      if (least > kFarOff * kFarOff) covered_[i] = std::max(covered_[i], kCore);
    }
  }

  void find_regions() {
    owner_.assign(pixels_.size(), -1);
    const double least = rules_.min_object_area * static_cast<double>(pixels_.size());
    for (int start = 0; start < static_cast<int>(pixels_.size()); ++start) {
      if (owner_[static_cast<size_t>(start)] != -1 || covered_[static_cast<size_t>(start)] < kCore) continue;
      Region region = grow(start);
      if (static_cast<double>(region.pixels.size()) >= least) {
        regions_.push_back(std::move(region));
      } else {
        for (const int pixel : region.pixels) owner_[static_cast<size_t>(pixel)] = kSpeck;
      }
    }
  }

  Region grow(int start) {
    const int number = static_cast<int>(regions_.size());
    Region region{{start}, start % side_, start / side_, start % side_, start / side_};
    owner_[static_cast<size_t>(start)] = number;
    for (size_t i = 0; i < region.pixels.size(); ++i) {
      const int column = region.pixels[i] % side_, row = region.pixels[i] / side_;
      region.left = std::min(region.left, column);
      region.right = std::max(region.right, column);
      region.top = std::min(region.top, row);
      region.bottom = std::max(region.bottom, row);
      for (int y = std::max(0, row - 1); y <= std::min(side_ - 1, row + 1); ++y) {
        for (int x = std::max(0, column - 1); x <= std::min(side_ - 1, column + 1); ++x) {
          const auto at = static_cast<size_t>(y * side_ + x);
          if (owner_[at] != -1 || covered_[at] < kCore || class_[at] != class_[static_cast<size_t>(start)]) continue;
          owner_[at] = number;
          region.pixels.push_back(static_cast<int>(at));
        }
      }
    }
    return region;
  }

  // The median of the best covered pixels.
  Color color_of(const Region& region) const {
    std::vector<int> order = region.pixels;
    const auto count = std::max<size_t>(4, static_cast<size_t>(kBestCovered * static_cast<double>(order.size())));
    const size_t kept = std::min(order.size(), count);
    std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(kept), order.end(), [&](int a, int b) {
      return covered_[static_cast<size_t>(a)] > covered_[static_cast<size_t>(b)];
    });
    std::vector<Color> colors;
    for (size_t i = 0; i < kept; ++i) colors.push_back(pixels_[static_cast<size_t>(order[i])]);
    return median(std::move(colors));
  }

  bool near(int column, int row, int number) const {
    for (int y = std::max(0, row - kReach); y <= std::min(side_ - 1, row + kReach); ++y) {
      for (int x = std::max(0, column - kReach); x <= std::min(side_ - 1, column + kReach); ++x) {
        if (owner_[static_cast<size_t>(y * side_ + x)] == number) return true;
      }
    }
    return false;
  }

  // Coverages of an object by its own colour, around its core.
  CoverageWindow window_of(int number, const Color& color) const {
    const Region& region = regions_[static_cast<size_t>(number)];
    CoverageWindow window;
    window.left = region.left - kReach - 1;
    window.top = region.top - kReach - 1;
    window.width = region.right - region.left + 3 + 2 * kReach;
    window.height = region.bottom - region.top + 3 + 2 * kReach;
    const Color way = minus(color, analysis_.background_rgb);
    for (int row = window.top; row < window.top + window.height; ++row) {
      for (int column = window.left; column < window.left + window.width; ++column) {
        float value = 0;
        if (row >= 0 && column >= 0 && row < side_ && column < side_) {
          const auto at = static_cast<size_t>(row * side_ + column);
          if (owner_[at] == number || (owner_[at] < 0 && near(column, row, number))) {
            const Color away = minus(pixels_[at], analysis_.background_rgb);
            value = static_cast<float>(std::clamp(dot(away, way) / dot(way, way), 0.0, 1.0));
          }
        }
        window.values.push_back(value);
      }
    }
    return window;
  }

  void add_object(size_t number, std::vector<TemplateFit>& fits) {
    FoundObject object;
    object.rgb = color_of(regions_[number]);
    object.area = static_cast<double>(regions_[number].pixels.size()) / static_cast<double>(pixels_.size());
    object.color_difference = 1e30;
    for (int k = 0; k < kShapeColors; ++k) {
      const auto color = static_cast<ShapeColor>(k);
      const double difference = color_difference(object.rgb, middle_of(color));
      if (difference >= object.color_difference) continue;
      object.color_difference = difference;
      object.color = color;
    }
    const CoverageWindow window = window_of(static_cast<int>(number), object.rgb);
    std::array<TemplateFit, kShapes> starts;
    double promising = 0;
    for (int s = 0; s < kShapes; ++s) {
      starts[static_cast<size_t>(s)] = start_template(window, static_cast<Shape>(s));
      promising = std::max(promising, starts[static_cast<size_t>(s)].iou);
    }
    TemplateFit best;
    for (int s = 0; s < kShapes; ++s) {
      TemplateFit fit = starts[static_cast<size_t>(s)];
      if (fit.iou >= promising - kHopeless) fit = climb_template(window, static_cast<Shape>(s), fit);
      object.iou[static_cast<size_t>(s)] = fit.iou;
      if (fit.iou <= best.iou) continue;
      best = fit;
      object.shape = static_cast<Shape>(s);
    }
    object.x = best.x / side_;
    object.y = best.y / side_;
    object.radius = best.radius / side_;
    fits.push_back(best);
    analysis_.objects.push_back(object);
  }

  void measure_extra(const std::vector<TemplateFit>& fits) {
    size_t extra = 0;
    for (size_t at = 0; at < pixels_.size(); ++at) {
      if (covered_[at] < kExtra) continue;
      const double x = static_cast<double>(at % static_cast<size_t>(side_)) + 0.5;
      const double y = static_cast<double>(at / static_cast<size_t>(side_)) + 0.5;
      bool explained = false;
      for (size_t i = 0; i < fits.size() && !explained; ++i) {
        const TemplateFit& fit = fits[i];
        if (fit.radius <= 0) continue;
        const double distance =
            shape_distance(analysis_.objects[i].shape, (x - fit.x) / fit.radius, (y - fit.y) / fit.radius) * fit.radius;
        explained = distance < kExplained;
      }
      extra += explained ? 0 : 1;
    }
    analysis_.extra_area = static_cast<double>(extra) / static_cast<double>(pixels_.size());
  }

  static constexpr int kSpeck = -2;  // in owner_: of a patch too small for an object; -1: of none

  int side_;
  JudgeRules rules_;
  std::vector<Color> pixels_;
  std::vector<int> class_;
  std::vector<double> covered_;
  std::vector<int> owner_;
  std::vector<Region> regions_;
  SceneAnalysis analysis_;
};

bool color_fits(const FoundObject& found, ObjectKind kind, const JudgeRules& rules) {
  return found.color == kind.color && found.color_difference <= rules.max_color_difference;
}

bool shape_fits(const FoundObject& found, ObjectKind kind, const JudgeRules& rules) {
  return found.shape == kind.shape && found.iou[static_cast<size_t>(kind.shape)] >= rules.min_iou;
}

bool relation_fits(const FoundObject& first, const FoundObject& second, Relation relation, const JudgeRules& rules) {
  const double right = first.x - second.x, down = first.y - second.y;
  const auto clear = [&](double along, double across) {
    return along >= rules.min_separation && along > std::abs(across);
  };
  switch (relation) {
    case Relation::kNone: return true;
    case Relation::kLeftOf: return clear(-right, down);
    case Relation::kRightOf: return clear(right, down);
    case Relation::kAbove: return clear(-down, right);
    case Relation::kBelow: return clear(down, right);
  }
  return false;
}

// The verdict if named object i is found object match[i].
void judge_match(SceneVerdict& verdict, const SceneText& text, const JudgeRules& rules) {
  const auto& found = verdict.analysis.objects;
  verdict.colors = verdict.shapes = verdict.relation = true;
  for (size_t i = 0; i < text.objects.size(); ++i) {
    verdict.colors = verdict.colors && color_fits(found[verdict.match[i]], text.objects[i], rules);
    verdict.shapes = verdict.shapes && shape_fits(found[verdict.match[i]], text.objects[i], rules);
  }
  if (text.objects.size() > 1) {
    verdict.relation = relation_fits(found[verdict.match[0]], found[verdict.match[1]], text.relation, rules);
  }
}

int parts_right(const SceneVerdict& verdict, const SceneText& text, const JudgeRules& rules) {
  int parts = verdict.relation ? 1 : 0;
  for (size_t i = 0; i < text.objects.size(); ++i) {
    const FoundObject& found = verdict.analysis.objects[verdict.match[i]];
    parts += 2 * (color_fits(found, text.objects[i], rules) ? 1 : 0);
    parts += 2 * (shape_fits(found, text.objects[i], rules) ? 1 : 0);
  }
  return parts;
}

}  // namespace

SceneAnalysis analyse_scene(const Image& image, const JudgeRules& rules) {
  check_image(image, "the picture to judge");
  if (image.width != image.height || image.width < 16) {
    fail<Error>("the picture to judge has ", image.width, "x", image.height, " pixels; it must be square, 16 or more");
  }
  return Analyser(to_rgb(image, AlphaRule::kOnWhite), rules).run();
}

SceneVerdict judge_scene(const Image& image, const SceneText& text, const JudgeRules& rules) {
  SceneVerdict verdict;
  verdict.analysis = analyse_scene(image, rules);
  verdict.background = verdict.analysis.background;
  if (!verdict.background) return verdict;
  verdict.clean = verdict.analysis.extra_area <= rules.max_extra_area;
  verdict.count = verdict.analysis.objects.size() == text.objects.size();
  if (!verdict.count) return verdict;
  verdict.match = {0};
  if (text.objects.size() > 1) verdict.match.push_back(1);
  judge_match(verdict, text, rules);
  if (text.objects.size() > 1) {
    SceneVerdict other = verdict;
    std::swap(other.match[0], other.match[1]);
    judge_match(other, text, rules);
    if (parts_right(other, text, rules) > parts_right(verdict, text, rules)) verdict = std::move(other);
  }
  return verdict;
}

const char* SceneVerdict::failure() const {
  if (!background) return "background";
  if (!count) return "count";
  if (!colors) return "color";
  if (!shapes) return "shape";
  if (!relation) return "relation";
  if (!clean) return "extra";
  return "";
}

}  // namespace mdm
