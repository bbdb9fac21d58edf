// What the tests of the methods beside SAGE share: a source with examples held out, every way to configure them, and
// the factors as plain numbers for oracles that are written the slow way.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "selection/quota.h"
#include "selection_cases.h"

namespace sage::testing {

/// Of 220 examples each fifth is held out.
struct MethodCase {
  explicit MethodCase(std::int64_t examples = 220, std::int64_t classes = 4, std::int64_t features = 6,
                      std::uint64_t seed = 5)
      : source(examples, classes, features, 0.2, seed) {
    for (std::int64_t id = 0; id < examples; ++id) {
      const std::int64_t label = source.labels[static_cast<std::size_t>(id)];
      (id % 5 == 0 ? validation_ids : ids).push_back(id);
      (id % 5 == 0 ? validation_labels : labels).push_back(label);
      if (id % 5 != 0) forgotten.push_back(id % 7 == 0 ? kNeverLearned : id % 4);
    }
    config = small_config();
  }

  SelectionRequest request(Communicator& communicator) {
    return {.config = config,
            .seed = 1,
            .round = 2,
            .ids = ids,
            .labels = labels,
            .class_count = source.class_count(),
            .source = &source,
            .communicator = communicator,
            .validation_ids = validation_ids,
            .validation_labels = validation_labels,
            .forgotten = forgotten};
  }
  SelectionResult select(Communicator& communicator) { return select_examples(request(communicator)); }

  ClassifierSource source;
  SelectionConfig config;
  std::vector<std::int64_t> ids, labels, validation_ids, validation_labels, forgotten;
};

using Vector = std::vector<double>;

inline double dot(const Vector& a, const Vector& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
inline double distance(const Vector& a, const Vector& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}
inline double norm(const Vector& a) { return std::sqrt(dot(a, a)); }
inline double cosine(const Vector& a, const Vector& b) { return dot(a, b) / (norm(a) * norm(b)); }

/// h, p, r and g of examples, one after the other.
struct PlainFactors {
  std::vector<Vector> h, p, r, g;
  PlainFactors(ClassifierSource& source, const std::vector<std::int64_t>& ids) {
    const ExampleFactors factors = source.factors(ids);
    const auto rows_of = [&](const at::Tensor& matrix) {
      std::vector<Vector> rows;
      for (std::int64_t i = 0; i < matrix.size(0); ++i) {
        rows.emplace_back();
        for (std::int64_t j = 0; j < matrix.size(1); ++j) rows.back().push_back(matrix[i][j].item<double>());
      }
      return rows;
    };
    h = rows_of(factors.features);
    p = rows_of(factors.probabilities);
    r = rows_of(factors.residuals);
    for (std::size_t i = 0; i < h.size(); ++i) g.push_back(gradient(r[i], h[i]));
  }
  static Vector gradient(const Vector& residual, const Vector& features) {
    Vector result = residual;
    for (const double value : residual) {
      for (const double feature : features) result.push_back(value * feature);
    }
    return result;
  }
};

/// Every method in each of its forms.
inline constexpr Variant kMethodVariants[] = {
    {"least_confidence", [](SelectionConfig& c) { c.method = "uncertainty"; }},
    {"entropy",
     [](SelectionConfig& c) {
       c.method = "uncertainty";
       c.uncertainty.score = "entropy";
     }},
    {"margin",
     [](SelectionConfig& c) {
       c.method = "uncertainty";
       c.uncertainty.score = "margin";
     }},
    {"k_center", [](SelectionConfig& c) { c.method = "k_center"; }},
    {"herding", [](SelectionConfig& c) { c.method = "herding"; }},
    {"gradmatch", [](SelectionConfig& c) { c.method = "gradmatch"; }},
    {"gradmatch, no ridge",
     [](SelectionConfig& c) {
       c.method = "gradmatch";
       c.gradmatch.lambda = 0.0;
       c.gradmatch.tolerance = 0.0;
     }},
    {"gradmatch of mini-batches",
     [](SelectionConfig& c) {
       c.method = "gradmatch";
       c.gradmatch.batch = 5;
     }},
    {"craig", [](SelectionConfig& c) { c.method = "craig"; }},
    {"craig of gradients",
     [](SelectionConfig& c) {
       c.method = "craig";
       c.craig.features = "gradient";
     }},
    {"glister", [](SelectionConfig& c) { c.method = "glister"; }},
    {"el2n", [](SelectionConfig& c) { c.method = "el2n"; }},
    {"grand", [](SelectionConfig& c) { c.method = "grand"; }},
    {"forgetting", [](SelectionConfig& c) { c.method = "forgetting"; }},
    {"facility location", [](SelectionConfig& c) { c.method = "submodular"; }},
    {"facility location of gradients",
     [](SelectionConfig& c) {
       c.method = "submodular";
       c.submodular.features = "gradient";
     }},
    {"graph cut",
     [](SelectionConfig& c) {
       c.method = "submodular";
       c.submodular.function = "graph_cut";
     }},
    {"graph cut of gradients",
     [](SelectionConfig& c) {
       c.method = "submodular";
       c.submodular.function = "graph_cut";
       c.submodular.features = "gradient";
     }},
    {"ccs", [](SelectionConfig& c) { c.method = "ccs"; }},
    {"ccs of forgetting",
     [](SelectionConfig& c) {
       c.method = "ccs";
       c.ccs.score = "forgetting";
     }},
};

using Positions = std::vector<std::size_t>;

/// Positions among the candidates that are chosen from together, with their budgets.
inline std::vector<std::pair<Positions, std::int64_t>> groups_of(const MethodCase& test) {
  const auto count = static_cast<std::int64_t>(test.ids.size());
  const std::int64_t total = subset_size(test.config.fraction, count);
  std::vector<std::pair<Positions, std::int64_t>> groups;
  if (!test.config.per_class) {
    groups.push_back({{}, total});
    for (std::size_t i = 0; i < test.ids.size(); ++i) groups[0].first.push_back(i);
    return groups;
  }
  const auto quota = class_quota(total, count_classes(test.labels, test.source.class_count()));
  for (std::size_t c = 0; c < quota.size(); ++c) {
    groups.push_back({{}, quota[c]});
    for (std::size_t i = 0; i < test.ids.size(); ++i) {
      if (test.labels[i] == static_cast<std::int64_t>(c)) groups[c].first.push_back(i);
    }
  }
  return groups;
}

/// Per class (true) and for all classes together.
class MethodTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    test_.config.per_class = GetParam();
    test_.config.fraction = 0.1;
  }
  SelectionResult select(const char* method) {
    test_.config.method = method;
    return test_.select(*one_);
  }
  MethodCase test_;
  std::unique_ptr<Communicator> one_ = make_single_communicator(at::kCPU);
};

}  // namespace sage::testing
