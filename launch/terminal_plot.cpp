#include "launch/terminal_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

namespace sage {
namespace {

constexpr std::array<const char*, 4> colours = {"\x1b[34m", "\x1b[33m", "\x1b[32m", "\x1b[35m"};
constexpr const char* plain = "\x1b[0m";
constexpr int label_width = 9;

struct Span {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool is_empty() const { return low > high; }
  /// Never of no length, so that it can be divided by.
  void widen() {
    if (high > low) return;
    const double half = low == 0.0 ? 0.5 : 0.05 * std::abs(low);
    low -= half;
    high += half;
  }
  double part(double value) const { return (value - low) / (high - low); }
};

/// The dots of all curves; a cell remembers who drew there last.
class Canvas {
 public:
  Canvas(int columns, int rows)
      : columns_(columns), rows_(rows), dots_(static_cast<std::size_t>(columns * rows)), owners_(dots_.size(), 0) {}

  int width() const { return 2 * columns_; }
  int height() const { return 4 * rows_; }

  void dot(int x, int y, std::uint8_t owner) {
    if (x < 0 || y < 0 || x >= width() || y >= height()) return;
    // Bits of U+2800: the left column from above is 0, 1, 2, 6, the right one 3, 4, 5, 7.
    static constexpr std::array<std::array<std::uint8_t, 4>, 2> bits = {{{0, 1, 2, 6}, {3, 4, 5, 7}}};
    const auto cell = static_cast<std::size_t>(y / 4 * columns_ + x / 2);
    dots_[cell] = static_cast<std::uint8_t>(
        dots_[cell] | (1U << bits[static_cast<std::size_t>(x % 2)][static_cast<std::size_t>(y % 4)]));
    owners_[cell] = owner;
  }

  void line(double x0, double y0, double x1, double y1, std::uint8_t owner) {
    const int steps = std::max(1, static_cast<int>(std::ceil(std::max(std::abs(x1 - x0), std::abs(y1 - y0)))));
    for (int i = 0; i <= steps; ++i) {
      const double t = static_cast<double>(i) / steps;
      dot(static_cast<int>(std::lround(x0 + t * (x1 - x0))), static_cast<int>(std::lround(y0 + t * (y1 - y0))), owner);
    }
  }

  std::string row(int row, bool colour) const {
    std::string text;
    for (int column = 0; column < columns_; ++column) {
      const auto cell = static_cast<std::size_t>(row * columns_ + column);
      const unsigned code = dots_[cell];  // U+2800 + code, in UTF-8
      const std::string braille = {'\xE2', static_cast<char>(0xA0 | (code >> 6)),
                                   static_cast<char>(0x80 | (code & 63))};
      if (code == 0) {
        text += ' ';
      } else {
        text += colour ? colours[owners_[cell] % colours.size()] + braille + plain : braille;
      }
    }
    return text;
  }

 private:
  int columns_, rows_;
  std::vector<std::uint8_t> dots_, owners_;
};

std::string number(double value) {
  const double size = std::abs(value);
  if (size != 0.0 && (size < 1e-3 || size >= 1e5)) return fmt::format("{:.2g}", value);
  return fmt::format("{:.{}f}", value, size >= 100 ? 0 : size >= 10 ? 1 : 3);
}

}  // namespace

std::vector<std::string> plot_curves(const std::vector<Curve>& curves, int width, int height, bool colour) {
  Span xs, ys;
  for (const Curve& curve : curves) {
    for (std::size_t i = 0; i < curve.x.size(); ++i) {
      if (!std::isfinite(curve.x[i]) || !std::isfinite(curve.y[i])) continue;
      xs.add(curve.x[i]);
      ys.add(curve.y[i]);
    }
  }
  if (xs.is_empty() || width < label_width + 4 || height < 2) return {"(nothing to draw yet)"};
  const Span shown_x = xs, shown_y = ys;
  xs.widen();
  ys.widen();
  Canvas canvas(width - label_width, height);
  for (std::size_t c = 0; c < curves.size(); ++c) {
    const auto owner = static_cast<std::uint8_t>(c);
    bool has_last = false;
    double last_x = 0.0, last_y = 0.0;
    for (std::size_t i = 0; i < curves[c].x.size(); ++i) {
      if (!std::isfinite(curves[c].x[i]) || !std::isfinite(curves[c].y[i])) continue;
      const double x = xs.part(curves[c].x[i]) * (canvas.width() - 1);
      const double y = (1.0 - ys.part(curves[c].y[i])) * (canvas.height() - 1);
      canvas.line(has_last ? last_x : x, has_last ? last_y : y, x, y, owner);
      has_last = true;
      last_x = x;
      last_y = y;
    }
  }
  std::vector<std::string> lines;
  for (int row = 0; row < height; ++row) {
    const std::string at = row == 0 ? number(shown_y.high) : row == height - 1 ? number(shown_y.low) : "";
    lines.push_back(fmt::format("{:>{}} ", at, label_width - 1) + canvas.row(row, colour));
  }
  std::string names = fmt::format("{:>{}} {} to {}", "", label_width - 1, number(shown_x.low), number(shown_x.high));
  for (std::size_t c = 0; c < curves.size(); ++c) {
    if (curves[c].y.empty()) continue;
    const std::string name = fmt::format("{} {}", curves[c].name, number(curves[c].y.back()));
    names += "   " + (colour ? colours[c % colours.size()] + name + plain : name);
  }
  lines.push_back(names);
  return lines;
}

}  // namespace sage
