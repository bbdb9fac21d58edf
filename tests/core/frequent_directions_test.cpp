#include "core/frequent_directions.h"

#include <ATen/Parallel.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/diag.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/tril.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "core/linear_algebra.h"
#include "support/matrices.h"

namespace sage {
namespace {

using testing::decaying_matrix;
using testing::largest_eigenvalue;
using testing::normal_matrix;
using testing::promised_error;
using testing::second_moment;
using testing::smallest_eigenvalue;

FrequentDirectionsOptions options(std::int64_t dimension, std::int64_t size, at::ScalarType type = at::kFloat) {
  FrequentDirectionsOptions result;
  result.dimension = dimension;
  result.size = size;
  result.type = type;
  return result;
}

FrequentDirections sketch_of(const at::Tensor& rows, FrequentDirectionsOptions with) {
  FrequentDirections sketch(with);
  sketch.update(rows.to(with.type));
  return sketch;
}

/// All promises of the method, for a sketch of `rows`. `slack` is relative to the largest eigenvalue of A^T A.
void expect_promises(const SketchState& state, const at::Tensor& rows, double slack) {
  const at::Tensor truth = second_moment(rows), missing = truth - second_moment(state.rows);
  const double tolerance = slack * largest_eigenvalue(truth);
  EXPECT_GE(smallest_eigenvalue(missing), -tolerance) << "||Sx|| may not exceed ||Ax||";
  const double error = std::max(largest_eigenvalue(missing), -smallest_eigenvalue(missing));
  EXPECT_LE(error, promised_error(rows, state.rule.size) + tolerance);
  EXPECT_LE(error, state.error_bound + tolerance) << "the certificate is an upper bound";
  const double squared_norm = rows.to(at::kDouble).square().sum().item<double>();
  EXPECT_NEAR(state.squared_norm, squared_norm, 1e-6 * squared_norm);
  const double lost = squared_norm - second_moment(state.rows).trace().item<double>();
  const auto ell = static_cast<double>(state.smallest_size > 0 ? state.smallest_size : state.rule.size);
  EXPECT_LE(state.error_bound, lost / ell + tolerance);
  EXPECT_LE(state.row_count(), state.rule.lossless() ? state.rule.dimension : state.rule.size - 1);
  EXPECT_EQ(state.rows_seen, rows.size(0));
}

struct Case {
  std::int64_t rows, columns, size;
  double decay, noise, buffer;
};

class Promises : public ::testing::TestWithParam<Case> {};

TEST_P(Promises, HoldInBothTypes) {
  const Case c = GetParam();
  const at::Tensor rows =
      decaying_matrix(c.rows, c.columns, std::min(c.rows, c.columns), c.decay, c.noise, 5).to(at::kFloat);
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    FrequentDirectionsOptions with = options(c.columns, c.size, type);
    with.buffer = c.buffer;
    const FrequentDirections sketch = sketch_of(rows, with);
    expect_promises(sketch.state(), rows, type == at::kFloat ? 2e-6 : 1e-12);
    EXPECT_EQ(sketch.error_bound(), sketch.state().error_bound);
    EXPECT_EQ(sketch.largest_eigenvalue(), sketch.state().largest_eigenvalue());
  }
}

INSTANTIATE_TEST_SUITE_P(FrequentDirections, Promises,
                         ::testing::Values(Case{500, 60, 8, 0.9, 0.1, 2}, Case{500, 60, 8, 0.9, 0.1, 4},
                                           Case{300, 40, 2, 1.0, 0.0, 2}, Case{257, 100, 16, 0.7, 0.01, 2.5},
                                           Case{1000, 30, 20, 0.95, 1.0, 2}, Case{10, 200, 16, 0.9, 0.1, 2},
                                           Case{33, 200, 16, 0.5, 0.0, 2}, Case{400, 128, 64, 0.9, 0.05, 3},
                                           Case{1, 5, 3, 1.0, 0.0, 2}));

TEST(FrequentDirections, AlphaTakesFromTheLowestDirectionsAlone) {
  // By hand: eigenvalues 10, 8, 5, 4, 2, 1 and size 4, so that delta is 4.
  const at::Tensor gram = at::diag(at::tensor({10.0, 8.0, 5.0, 4.0, 2.0, 1.0}, at::kDouble));
  const auto kept = [&](double alpha) {
    const ShrinkDecision decision = decompose(gram, {4, 100, 0.0, 0, alpha}, at::kDouble, 0.0, 30.0);
    EXPECT_EQ(decision.charge, 4.0);
    EXPECT_EQ(decision.eigenvalues.size(0), 3);
    const at::Tensor turned = at::mm(at::mm(decision.rotation, gram), decision.rotation.t());
    EXPECT_LE((turned - at::diag(decision.eigenvalues)).abs().max().item<double>(), 1e-12) << "S S^T is what is said";
    return decision.eigenvalues;
  };
  EXPECT_TRUE(at::allclose(kept(1.0), at::tensor({6.0, 4.0, 1.0}, at::kDouble)));
  EXPECT_TRUE(at::allclose(kept(0.75), at::tensor({10.0, 4.0, 1.0}, at::kDouble)));
  EXPECT_TRUE(at::allclose(kept(0.51), at::tensor({10.0, 4.0, 1.0}, at::kDouble))) << "ceil(2.04) = 3";
  EXPECT_TRUE(at::allclose(kept(0.5), at::tensor({10.0, 8.0, 1.0}, at::kDouble)));
  EXPECT_TRUE(at::allclose(kept(0.001), at::tensor({10.0, 8.0, 5.0}, at::kDouble)));
}

TEST(FrequentDirections, AlphaKeepsItsPromises) {
  const at::Tensor rows = decaying_matrix(700, 60, 60, 0.85, 0.1, 5).to(at::kFloat);
  const at::Tensor truth = second_moment(rows);
  const double tolerance = 2e-6 * largest_eigenvalue(truth);
  double plain_error = 0.0;
  for (const double alpha : {1.0, 0.5, 0.2}) {
    SCOPED_TRACE(alpha);
    FrequentDirectionsOptions with = options(60, 20);
    with.alpha = alpha;
    FrequentDirections sketch(with);
    for (std::int64_t part = 0; part < 7; ++part) {  // merged, and read back on the way
      sketch.merge(FrequentDirections::deserialize(sketch_of(rows.narrow(0, part * 100, 100), with).serialize()));
    }
    const SketchState state = sketch.state();
    EXPECT_EQ(state.rule.alpha, alpha);
    const std::int64_t shrunk = state.rule.shrunk_directions();
    const at::Tensor missing = truth - second_moment(state.rows);
    const double error = largest_eigenvalue(missing);
    EXPECT_GE(smallest_eigenvalue(missing), -tolerance);
    EXPECT_LE(error, state.error_bound + tolerance) << "the certificate is an upper bound";
    EXPECT_LE(state.error_bound, promised_error(rows, shrunk) + tolerance);
    const double lost = truth.trace().item<double>() - second_moment(state.rows).trace().item<double>();
    EXPECT_LE(state.error_bound * static_cast<double>(shrunk), lost + tolerance * 60);
    if (alpha == 1.0) {
      plain_error = error;
    } else {
      EXPECT_LT(error, plain_error) << "where the spectrum falls quickly, sparing the highest directions is better";
    }
  }
  for (const double alpha : {0.0, -0.1, 1.1}) {
    FrequentDirectionsOptions with = options(60, 20);
    with.alpha = alpha;
    EXPECT_THROW(FrequentDirections{with}, ConfigError);
  }
}

TEST(FrequentDirections, IsExactAtLowRank) {
  const at::Tensor rows = decaying_matrix(400, 80, 7, 0.8, 0.0, 3).to(at::kFloat);
  const SketchState state = sketch_of(rows, options(80, 8)).state();
  const at::Tensor truth = second_moment(rows);
  const double largest = largest_eigenvalue(truth);
  EXPECT_LE((truth - second_moment(state.rows)).abs().max().item<double>(), 2e-5 * largest);
  EXPECT_LE(state.error_bound, 2e-5 * largest);
  EXPECT_EQ(state.row_count(), 7);
}

TEST(FrequentDirections, LosesNothingWhereTheSizeReachesTheDimension) {
  for (const std::int64_t size : {12, 13, 30}) {
    const at::Tensor rows = decaying_matrix(500, 12, 12, 0.9, 0.2, 8).to(at::kFloat);
    const SketchState state = sketch_of(rows, options(12, size)).state();
    const at::Tensor truth = second_moment(rows);
    EXPECT_EQ(state.error_bound, 0.0);
    EXPECT_LE((truth - second_moment(state.rows)).abs().max().item<double>(), 5e-6 * largest_eigenvalue(truth));
  }
}

TEST(FrequentDirections, KnownDiagonalDoesNotDrift) {
  const at::Tensor rows = decaying_matrix(6000, 50, 50, 0.93, 0.1, 11).to(at::kFloat);
  FrequentDirections sketch = sketch_of(rows, options(50, 16));
  EXPECT_GT(sketch.shrink_count(), 300);
  const SketchState state = sketch.state();
  const at::Tensor s = state.rows.to(at::kDouble);
  const at::Tensor gram = at::mm(s, s.t());
  const double largest = state.largest_eigenvalue();
  for (std::int64_t i = 0; i < gram.size(0); ++i) {
    for (std::int64_t j = 0; j < gram.size(1); ++j) {
      const double known = i == j ? state.eigenvalues[i].item<double>() : 0.0;
      EXPECT_NEAR(gram[i][j].item<double>(), known, 2.5e-7 * largest) << i << ", " << j;
    }
  }
  expect_promises(state, rows, 1e-5);
}

TEST(FrequentDirections, OneRowAtATimeIsTheSame) {
  const at::Tensor rows = normal_matrix(150, 23, 4).to(at::kFloat);
  FrequentDirections one(options(23, 6)), all(options(23, 6));
  all.update(rows);
  for (std::int64_t i = 0; i < rows.size(0); ++i) one.update(rows.narrow(0, i, 1));
  EXPECT_TRUE(at::equal(one.matrix(), all.matrix()));
  EXPECT_EQ(one.error_bound(), all.error_bound());
  EXPECT_EQ(one.shrink_count(), all.shrink_count());
}

TEST(FrequentDirections, ZeroAndEqualRows) {
  FrequentDirections sketch(options(9, 4));
  EXPECT_TRUE(sketch.empty());
  EXPECT_EQ(sketch.matrix().size(0), 0);
  sketch.update(at::zeros({50, 9}));
  EXPECT_FALSE(sketch.empty());
  EXPECT_EQ(sketch.rows_seen(), 50);
  EXPECT_EQ(sketch.matrix().size(0), 0);
  EXPECT_EQ(sketch.error_bound(), 0.0);

  const at::Tensor row = normal_matrix(1, 9, 2).to(at::kFloat);
  const at::Tensor rows = row.expand({64, 9});
  sketch.update(rows);
  const SketchState state = sketch.state();
  EXPECT_EQ(state.row_count(), 1);
  EXPECT_LE((second_moment(rows) - second_moment(state.rows)).abs().max().item<double>(),
            1e-5 * state.largest_eigenvalue());
}

TEST(FrequentDirections, ReadingDoesNotDisturbTheStream) {
  const at::Tensor rows = normal_matrix(100, 15, 6).to(at::kFloat);
  FrequentDirections read(options(15, 5)), unread(options(15, 5));
  for (std::int64_t i = 0; i < 100; i += 10) {
    read.update(rows.narrow(0, i, 10));
    EXPECT_GT(read.matrix().size(0), 0);
    unread.update(rows.narrow(0, i, 10));
  }
  EXPECT_TRUE(at::equal(read.matrix(), unread.matrix()));
}

TEST(FrequentDirections, ClaimAndCommit) {
  const at::Tensor rows = normal_matrix(60, 15, 6).to(at::kFloat);
  FrequentDirections sketch(options(15, 5)), oracle(options(15, 5));
  for (std::int64_t done = 0; done < 60;) {
    const at::Tensor free = sketch.claim(4);
    EXPECT_LE(free.size(0), 4);
    const std::int64_t count = std::min(free.size(0), 60 - done);
    free.narrow(0, 0, count).copy_(rows.narrow(0, done, count));
    sketch.commit(count, row_squared_norms(free.narrow(0, 0, count)));
    done += count;
  }
  oracle.update(rows);
  EXPECT_TRUE(at::equal(sketch.matrix(), oracle.matrix()));
  EXPECT_EQ(sketch.squared_norm(), oracle.squared_norm());
  // With rows asked for together, room is made for them, up to what a shrink is sure to free: 10 - 5 + 1.
  FrequentDirections whole(options(15, 5));
  whole.claim(7).copy_(rows.narrow(0, 0, 7));
  whole.commit(7);
  EXPECT_EQ(whole.claim(6, 6).size(0), 6);
  EXPECT_EQ(whole.claim(100, 100).size(0), 10 - 4);
  EXPECT_THROW(whole.commit(7), InternalError);
}

TEST(FrequentDirections, NamesTheRowThatIsNotFinite) {
  FrequentDirections sketch(options(4, 3));
  sketch.update(normal_matrix(20, 4, 1).to(at::kFloat));
  const at::Tensor before = sketch.matrix();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    at::Tensor rows = normal_matrix(1, 4, 2).to(at::kFloat);
    rows[0][1] = bad;
    try {
      sketch.update(rows);
      FAIL() << "accepted a row that is not finite";
    } catch (const TrainingError& error) {
      EXPECT_NE(std::string(error.what()).find("row 20"), std::string::npos) << error.what();
    }
  }
  EXPECT_EQ(sketch.rows_seen(), 20);
  EXPECT_TRUE(at::equal(sketch.matrix(), before));
}

TEST(FrequentDirections, RefusesWhatItCannotDo) {
  EXPECT_THROW(FrequentDirections(options(4, 1)), ConfigError);
  EXPECT_THROW(FrequentDirections(options(0, 4)), ConfigError);
  FrequentDirectionsOptions narrow = options(4, 4);
  narrow.buffer = 1.5;
  EXPECT_THROW(FrequentDirections{narrow}, ConfigError);
  FrequentDirections a(options(4, 3)), b(options(5, 3));
  EXPECT_THROW(a.update(at::zeros({2, 5})), InternalError);
  a.update(normal_matrix(2, 4, 1).to(at::kFloat));
  EXPECT_THROW(a.merge(b), InternalError);
}

TEST(FrequentDirections, MergesAsIfItHadSeenBoth) {
  const at::Tensor rows = decaying_matrix(600, 64, 64, 0.9, 0.2, 9).to(at::kFloat);
  for (const std::int64_t parts : {2, 3, 7}) {
    FrequentDirections merged(options(64, 12));
    const std::int64_t step = 600 / parts;
    for (std::int64_t p = 0; p < parts; ++p) {
      const std::int64_t first = p * step, count = p + 1 == parts ? 600 - first : step;
      merged.merge(sketch_of(rows.narrow(0, first, count), options(64, 12)));
    }
    expect_promises(merged.state(), rows, 5e-6);
  }
}

TEST(FrequentDirections, MergeOfManyIsNearTheFlatMerge) {
  // The flat merge stacks all sketches and shrinks once: both keep the promise, so they differ by no more than the sum
  // of their certificates.
  const at::Tensor rows = decaying_matrix(800, 48, 48, 0.85, 0.1, 21).to(at::kFloat);
  FrequentDirections tree(options(48, 10));
  std::vector<at::Tensor> stacked;
  double flat_bound = 0.0, squared_norm = 0.0;
  for (std::int64_t p = 0; p < 8; ++p) {
    FrequentDirections part = sketch_of(rows.narrow(0, p * 100, 100), options(48, 10));
    tree.merge(part);
    stacked.push_back(part.matrix());
    flat_bound += part.error_bound();
    squared_norm += part.squared_norm();
  }
  const at::Tensor all = at::cat(stacked);
  const ShrinkDecision decision =
      decompose(cross_gram(all, all), {10, 48, 0.0, 0}, at::kFloat, flat_bound, squared_norm);
  flat_bound += decision.charge;
  const at::Tensor flat = rotate_rows(decision.rotation, std::array{all});
  const double difference =
      at::linalg_eigvalsh(second_moment(flat) - second_moment(tree.matrix())).abs().max().item<double>();
  EXPECT_LE(difference, flat_bound + tree.error_bound());
  EXPECT_GT(difference, 0.0);
  const double error = largest_eigenvalue(second_moment(rows) - second_moment(flat));
  EXPECT_LE(error, promised_error(rows, 10) * (1 + 1e-5));
}

TEST(FrequentDirections, MergingWithNothingChangesNothing) {
  const at::Tensor rows = normal_matrix(70, 20, 3).to(at::kFloat);
  FrequentDirections left(options(20, 6)), right = sketch_of(rows, options(20, 6)),
                                           plain = sketch_of(rows, options(20, 6));
  left.merge(right);
  right.merge(FrequentDirections(options(20, 6)));
  EXPECT_TRUE(at::equal(left.matrix(), plain.matrix()));
  EXPECT_TRUE(at::equal(right.matrix(), plain.matrix()));
  EXPECT_EQ(left.error_bound(), plain.error_bound());
  // The stream goes on after a merge.
  left.update(rows);
  expect_promises(left.state(), at::cat({rows, rows}), 5e-6);
}

TEST(FrequentDirections, DifferentSizesMergeToTheLarger) {
  const at::Tensor rows = decaying_matrix(200, 40, 40, 0.9, 0.1, 31).to(at::kFloat);
  FrequentDirections small = sketch_of(rows.narrow(0, 0, 100), options(40, 6));
  const FrequentDirections large = sketch_of(rows.narrow(0, 100, 100), options(40, 20));
  small.merge(large);
  EXPECT_EQ(small.size(), 20);
  const SketchState state = small.state();
  EXPECT_EQ(state.smallest_size, 6);
  const double error = largest_eigenvalue(second_moment(rows) - second_moment(state.rows));
  EXPECT_LE(error, state.error_bound * (1 + 1e-5));
  small.update(rows);
  EXPECT_EQ(small.rows_seen(), 400);
}

TEST(FrequentDirections, AutoSizeGrowsUntilTheErrorIsSmall) {
  const at::Tensor rows = normal_matrix(1200, 100, 17).to(at::kFloat);  // flat spectrum: hard
  FrequentDirectionsOptions with = options(100, 4);
  with.epsilon = 0.02;
  with.max_size = 64;
  FrequentDirections growing = sketch_of(rows, with);
  const SketchState state = growing.state();
  EXPECT_GT(state.rule.size, 4);
  EXPECT_LE(state.rule.size, 64);
  EXPECT_LE(state.error_bound, 0.02 * state.squared_norm);
  expect_promises(state, rows, 5e-6);
  // Low rank never needs to grow.
  EXPECT_EQ(sketch_of(decaying_matrix(500, 100, 3, 0.9, 0.0, 2), with).size(), 4);
  // The cap holds even where the error does not.
  with.max_size = 8;
  EXPECT_EQ(sketch_of(rows, with).state().rule.size, 8);
  // After reset() a sketch is as new.
  growing.reset();
  growing.update(rows);
  EXPECT_TRUE(at::equal(growing.matrix(), state.rows));
}

TEST(FrequentDirections, ReadsBackWhatItWrote) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor rows = normal_matrix(90, 12, 3).to(type);
    FrequentDirections sketch = sketch_of(rows.narrow(0, 0, 41), options(12, 5, type));
    FrequentDirections copy = FrequentDirections::deserialize(sketch.serialize());
    EXPECT_EQ(copy.serialize(), sketch.serialize());
    EXPECT_EQ(copy.to_string(), sketch.to_string());
    sketch.update(rows.narrow(0, 41, 49));  // and goes on alike
    copy.update(rows.narrow(0, 41, 49));
    EXPECT_TRUE(at::equal(copy.matrix(), sketch.matrix()));
    EXPECT_EQ(copy.error_bound(), sketch.error_bound());
    EXPECT_EQ(copy.squared_norm(), sketch.squared_norm());
  }
  FrequentDirectionsOptions with = options(30, 4);
  with.epsilon = 0.001;
  with.max_size = 16;
  const FrequentDirections grown = sketch_of(normal_matrix(100, 30, 4), with);
  EXPECT_EQ(FrequentDirections::deserialize(grown.serialize()).size(), grown.size());
  EXPECT_GT(grown.size(), 4);
}

TEST(FrequentDirections, NoDamageGoesUnnoticed) {
  const std::string whole = sketch_of(normal_matrix(7, 3, 3), options(3, 2)).serialize();
  for (std::size_t byte = 0; byte < whole.size(); ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = whole;
      damaged[byte] = static_cast<char>(damaged[byte] ^ (1 << bit));
      EXPECT_THROW(FrequentDirections::deserialize(damaged), CheckpointError) << "byte " << byte << ", bit " << bit;
    }
  }
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_THROW(FrequentDirections::deserialize(whole.substr(0, length)), CheckpointError);
  }
  EXPECT_THROW(FrequentDirections::deserialize(whole + "x"), CheckpointError);
}

TEST(LinearAlgebra, AgreesWithFloat64) {
  const at::Tensor a = normal_matrix(5, 70001, 1), b = normal_matrix(3, 70001, 2), turn = normal_matrix(4, 8, 3);
  const at::Tensor gram = at::mm(a, b.t());
  EXPECT_LE((cross_gram(a.to(at::kFloat), b.to(at::kFloat)) - gram).abs().max().item<double>(), 2e-3);
  EXPECT_LE((cross_gram(a.to(at::kFloat), b.to(at::kFloat), true) - gram).abs().max().item<double>(), 1e-4);
  EXPECT_LE((row_squared_norms(a) - a.square().sum(1)).abs().max().item<double>(), 1e-7);
  const at::Tensor turned = at::mm(turn, at::cat({a, b}));
  EXPECT_LE((rotate_rows(turn, std::array{a, b}) - turned).abs().max().item<double>(), 1e-12);
  at::Tensor wide = at::zeros({4, 70101}, at::kDouble);  // into columns of a wider matrix, the others untouched
  rotate_rows(turn, std::array{a, b}, wide.narrow(1, 50, 70001));
  EXPECT_LE((wide.narrow(1, 50, 70001) - turned).abs().max().item<double>(), 1e-12);
  EXPECT_EQ(wide.narrow(1, 0, 50).abs().max().item<double>() + wide.narrow(1, 70051, 50).abs().max().item<double>(), 0);
  // No column at all: what a rank may hold of a sketch that is spread over ranks.
  EXPECT_TRUE(at::equal(cross_gram(a.narrow(1, 0, 0), b.narrow(1, 0, 0)), at::zeros({5, 3}, at::kDouble)));
  EXPECT_EQ(rotate_rows(turn, std::array{a.narrow(1, 0, 0), b.narrow(1, 0, 0)}).sizes(), at::IntArrayRef({4, 0}));
  at::Tensor buffer = at::cat({a, b, a});
  rotate_rows_in_place(turn, buffer);
  EXPECT_LE((buffer.narrow(0, 0, 4) - turned).abs().max().item<double>(), 1e-12);
  EXPECT_TRUE(at::equal(buffer.narrow(0, 4, 1), a.narrow(0, 4, 1)));
}

TEST(LinearAlgebra, LowerGramIsTheLowerTriangle) {
  for (const std::int64_t n : {1, 7, 300, 520}) {  // in one product and in several
    const at::Tensor rows = normal_matrix(n, 61, 4);
    const at::Tensor whole = at::tril(at::mm(rows, rows.t()));
    for (const std::int64_t first : {std::int64_t{0}, n / 3, n}) {
      const at::Tensor lower = lower_gram(rows, first);
      ASSERT_EQ(lower.sizes(), at::IntArrayRef({n - first, n}));
      if (first == n) continue;
      const at::Tensor truth = whole.narrow(0, first, n - first);
      EXPECT_LE((at::tril(lower, first) - truth).abs().max().item<double>(), 1e-12) << n << " rows from " << first;
    }
  }
}

TEST(LinearAlgebra, CopiesRowsAndTheirNorms) {
  const at::Tensor rows = normal_matrix(4, 20003, 5);
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    at::Tensor room = at::zeros({4, 20050}, type), to = room.narrow(1, 3, 20003);  // rows apart from each other
    const at::Tensor norms = copy_rows(rows, to);                                  // converts for float32
    EXPECT_TRUE(at::equal(to, rows.to(type)));
    EXPECT_LE((norms - to.to(at::kDouble).square().sum(1)).abs().max().item<double>(), 1e-9);
    at::Tensor again = at::zeros({4, 20003}, type);
    EXPECT_TRUE(at::equal(copy_rows(to, again), norms));
    EXPECT_TRUE(at::equal(again, to));
    EXPECT_EQ(room.narrow(1, 0, 3).abs().max().item<double>() + room.narrow(1, 20006, 44).abs().max().item<double>(),
              0);
  }
  // Squares that float32 does not hold are no reason to call a row infinite; values that are not finite show.
  at::Tensor large = at::full({3, 9}, 1e30f);
  large[1][8] = std::numeric_limits<float>::infinity();
  large[2][0] = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor norms = row_squared_norms(large);
  EXPECT_NEAR(norms[0].item<double>(), 9e60, 1e54);
  EXPECT_FALSE(std::isfinite(norms[1].item<double>()));
  EXPECT_FALSE(std::isfinite(norms[2].item<double>()));
}

TEST(LinearAlgebra, IsTheSameWithAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  const at::Tensor rows = normal_matrix(140, 9001, 6).to(at::kFloat), turn = normal_matrix(70, 140, 7);
  std::vector<at::Tensor> grams, turned;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    grams.push_back(lower_gram(rows, 60));
    turned.push_back(rotate_rows(turn, std::array{rows}));
    at::Tensor in_place = rows.clone();
    rotate_rows_in_place(turn, in_place);
    EXPECT_TRUE(at::equal(in_place.narrow(0, 0, 70), turned[0])) << threads << " threads";
    EXPECT_TRUE(at::equal(grams.back(), grams[0])) << threads << " threads";
    EXPECT_TRUE(at::equal(turned.back(), turned[0])) << threads << " threads";
  }
  at::set_num_threads(before);
}

}  // namespace
}  // namespace sage
