// Says whether a picture shows what its caption says: colours, shapes, relation, and nothing else.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "mdm/demo/shapes.h"
#include "mdm/media/image.h"

namespace mdm {

/// How strict the judge is. The defaults are those of all reported numbers.
struct JudgeRules {
  double max_color_difference = 25;  ///< CIELAB (CIE 1976) between an object's colour and the named one's middle
  double min_iou = 0.7;              ///< of the object and the best-aligned template of the named shape
  double min_object_area = 0.008;    ///< share of the picture from which a patch is an object
  double max_extra_area = 0.006;     ///< share of the picture that may be neither background nor an object's
  double min_separation = 0.10;      ///< of the middles along the relation's axis, as a share of the side
};

/// A patch of one colour that stands out of the background.
struct FoundObject {
  double x = 0, y = 0, radius = 0;      ///< of the best template, as shares of the side (see Placement)
  std::array<double, 3> rgb = {};       ///< its colour, [0, 255]
  ShapeColor color = ShapeColor::kRed;  ///< nearest in CIELAB
  double color_difference = 0;          ///< to that one's middle
  Shape shape = Shape::kCircle;         ///< the one whose template fits best
  std::array<double, kShapes> iou =
      {};  ///< with each shape's template, best aligned; at least 0.1 below the best: aligned by area and middle
  double area = 0;  ///< share of the picture
};

struct SceneAnalysis {
  bool background = false;  ///< enough of the picture is light and neutral; nothing else is filled in otherwise
  std::array<double, 3> background_rgb = {};
  std::vector<FoundObject> objects;  ///< largest first
  double extra_area = 0;             ///< share of the picture that is neither background nor explained by a template
};

/// `image`: at least 16 x 16, any channels (alpha over white), square; Error otherwise.
///
/// The background is the median of the light neutral pixels. Every other pixel is a mixture of it and one of the
/// eight colours: the nearest such line in RGB gives its class and its coverage. Connected pixels of a class with
/// coverage of at least a half are an object; its colour is the median of its best covered pixels. Coverages are
/// then measured anew with that colour, and each shape's template is moved and scaled to the largest IoU
/// sum(min) / sum(max) of coverages.
SceneAnalysis analyse_scene(const Image& image, const JudgeRules& rules = {});

/// What of a caption a picture shows. A part that can't be told because an earlier one failed counts as failed.
struct SceneVerdict {
  bool background = false;
  bool count = false;     ///< as many objects as named
  bool colors = false;    ///< of all objects
  bool shapes = false;    ///< of all objects
  bool relation = false;  ///< true for one object
  bool clean = false;     ///< nothing extra
  SceneAnalysis analysis;
  std::vector<size_t> match;  ///< which of analysis.objects each named object is; empty without `count`

  bool right() const { return background && count && colors && shapes && relation && clean; }
  /// The first part that failed: "background", "count", "color", "shape", "relation" or "extra"; "" when right.
  const char* failure() const;
};

SceneVerdict judge_scene(const Image& image, const SceneText& text, const JudgeRules& rules = {});

/// CIELAB (D65) of an sRGB colour with components in [0, 255].
std::array<double, 3> lab_of(const std::array<double, 3>& rgb);
/// Euclidean distance of two colours in CIELAB (CIE 1976).
double color_difference(const std::array<double, 3>& rgb_a, const std::array<double, 3>& rgb_b);

}  // namespace mdm
