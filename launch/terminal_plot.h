// Curves in a terminal, in braille characters: two by four dots each.
#pragma once
#include <string>
#include <vector>

namespace sage {

struct Curve {
  std::string name;
  std::vector<double> x, y;  ///< equally long; points that are not finite are left out
};

/// `height` lines of at most `width` columns: the curves over one x axis, the range of y at the left, and below it a
/// line with the range of x and the names. Each curve has a colour of its own where `colour` says so (ANSI, safe for
/// the colour-blind). Says so where there is nothing to draw.
std::vector<std::string> plot_curves(const std::vector<Curve>& curves, int width, int height, bool colour);

}  // namespace sage
