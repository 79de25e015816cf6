#include "demo/template_fit.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace mdm {
namespace {

// Distances to a shape's edge on a grid, and its moments: shape_distance() is too slow to be asked a million times.
class ShapeTable {
 public:
  explicit ShapeTable(Shape shape) : distances_(kSide * kSide) {
    double count = 0;
    for (size_t row = 0; row < kSide; ++row) {
      for (size_t column = 0; column < kSide; ++column) {
        const double x = coordinate(column), y = coordinate(row);
        const double distance = shape_distance(shape, x, y);
        distances_[row * kSide + column] = static_cast<float>(distance);
        // Of the cell around this point: how much lies inside.
        const double inside = std::clamp(0.5 - distance / kCell, 0.0, 1.0);
        count += inside;
        middle_x_ += inside * x;
        middle_y_ += inside * y;
      }
    }
    middle_x_ /= count;
    middle_y_ /= count;
    area_ = count * kCell * kCell;
  }

  double area() const { return area_; }
  double middle_x() const { return middle_x_; }
  double middle_y() const { return middle_y_; }

  // Between the grid's points; outside of the grid everything is far away.
  double distance(double x, double y) const {
    const double column = (x + kReach) / kCell, row = (y + kReach) / kCell;
    if (!(column >= 0 && row >= 0 && column < kSide - 1 && row < kSide - 1)) return kReach;
    const auto i = static_cast<size_t>(row), j = static_cast<size_t>(column);
    const double u = column - static_cast<double>(j), v = row - static_cast<double>(i);
    const float* upper = distances_.data() + i * kSide + j;
    const float* lower = upper + kSide;
    return (1 - v) * ((1 - u) * upper[0] + u * upper[1]) + v * ((1 - u) * lower[0] + u * lower[1]);
  }

 private:
  static constexpr size_t kSide = 161;
  static constexpr double kReach = 1.6;
  static constexpr double kCell = 2 * kReach / (kSide - 1);
  static double coordinate(size_t i) { return static_cast<double>(i) * kCell - kReach; }

  std::vector<float> distances_;
  double area_ = 0, middle_x_ = 0, middle_y_ = 0;
};

const ShapeTable& table_of(Shape shape) {
  static const std::vector<ShapeTable> tables = [] {
    std::vector<ShapeTable> all;
    for (int i = 0; i < kShapes; ++i) all.emplace_back(static_cast<Shape>(i));
    return all;
  }();
  return tables[static_cast<size_t>(shape)];
}

double table_iou(const CoverageWindow& window, const ShapeTable& table, const TemplateFit& at) {
  double least = 0, most = 0;
  const float* value = window.values.data();
  for (int row = 0; row < window.height; ++row) {
    const double y = (window.top + row + 0.5 - at.y) / at.radius;
    for (int column = 0; column < window.width; ++column, ++value) {
      const double x = (window.left + column + 0.5 - at.x) / at.radius;
      const double covered = std::clamp(0.5 - table.distance(x, y) * at.radius, 0.0, 1.0);
      least += std::min<double>(covered, *value);
      most += std::max<double>(covered, *value);
    }
  }
  return most > 0 ? least / most : 0;
}

}  // namespace

TemplateFit start_template(const CoverageWindow& window, Shape shape) {
  const ShapeTable& table = table_of(shape);
  double area = 0, x = 0, y = 0;
  const float* value = window.values.data();
  for (int row = 0; row < window.height; ++row) {
    for (int column = 0; column < window.width; ++column, ++value) {
      area += *value;
      x += *value * (window.left + column + 0.5);
      y += *value * (window.top + row + 0.5);
    }
  }
  TemplateFit fit;
  if (area <= 0) return fit;
  fit.radius = std::max(1.0, std::sqrt(area / table.area()));
  fit.x = x / area - fit.radius * table.middle_x();
  fit.y = y / area - fit.radius * table.middle_y();
  fit.iou = table_iou(window, table, fit);
  return fit;
}

TemplateFit climb_template(const CoverageWindow& window, Shape shape, TemplateFit from) {
  const ShapeTable& table = table_of(shape);
  TemplateFit best = from;
  if (best.radius <= 0) return best;
  constexpr double kFirstStep = 1.0 / 2, kLastStep = 1.0 / 8;
  for (double step = kFirstStep; step >= kLastStep;) {
    const double before = best.iou;
    for (double TemplateFit::*place : {&TemplateFit::x, &TemplateFit::y, &TemplateFit::radius}) {
      for (const double sign : {-1.0, 1.0}) {
        TemplateFit next = best;
        next.*place += sign * step;
        if (next.radius < 1) continue;
        next.iou = table_iou(window, table, next);
        if (next.iou <= best.iou) continue;
        best = next;
        break;
      }
    }
    if (best.iou == before) step /= 2;
  }
  return best;
}

}  // namespace mdm
