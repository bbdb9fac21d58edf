#include "models/noise.h"

#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/random.h"

namespace sage {

Noise::Noise(double probability, std::int64_t width) : probability_(probability), width_(width) {
  require(probability >= 0.0 && probability < 1.0 && width >= 1, "noise drops with a probability in [0, 1)");
}

at::Tensor Noise::forward(const at::Tensor& input) {
  if (!is_training() || !factors_.defined()) return input;
  require(input.dim() >= 2 && input.size(0) == factors_.size(0), "noise has one row for each example");
  std::vector<std::int64_t> shape(static_cast<std::size_t>(input.dim()), 1);
  shape[0] = factors_.size(0);
  shape[1] = factors_.size(1);
  return input * factors_.reshape(shape).to(input.scalar_type());
}

void Noise::draw(std::uint64_t seed, const std::string& name, std::int64_t step, std::int64_t id,
                 float* factors) const {
  RandomStream stream(seed, "noise/" + name, static_cast<std::uint64_t>(id), static_cast<std::uint32_t>(step));
  const auto dropped = static_cast<RandomStream::result_type>(std::ldexp(probability_, 32));
  const auto kept = static_cast<float>(1.0 / (1.0 - probability_));
  for (std::int64_t i = 0; i < width(); ++i) factors[i] = stream() < dropped ? 0.0F : kept;
}

}  // namespace sage
