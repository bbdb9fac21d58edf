// The methods that SAGE is compared with. Each: ALL ranks; exactly round(fraction x N) ids, the same on every rank and,
// up to rounding, at any number of ranks; per class (selection.per_class: class quotas as equal as can be) or among all
// at once; ties to the lower id. h, r and g = [r; r h^T] are the factors of ExampleFactors, a class's g those of its
// examples. README.md has their costs and limits on memory in one table.
#pragma once
#include "selection/selection.h"

namespace sage {

/// The least certain first, by selection.uncertainty.score: lowest largest probability, highest entropy, or smallest
/// difference of the two largest probabilities (margin). Settles, "Active Learning Literature Survey", 2009, sec. 3.1.
SelectionResult select_uncertainty(const SelectionRequest& request);

/// Farthest first by Euclidean distance of h, beginning with the one nearest to the mean: a 2-approximation of
/// k-center. Gonzalez 1985; Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
/// Approach", ICLR 2018. Keeps the running minimum of distances, nothing of budget x N.
SelectionResult select_k_center(const SelectionRequest& request);

/// Each next one brings the mean of h over the chosen nearest to the mean over the class. Welling, "Herding dynamical
/// weights to learn", ICML 2009; without replacement.
SelectionResult select_herding(const SelectionRequest& request);

/// Orthogonal matching pursuit: min over w >= 0 with at most k non-zeros of ||sum w_i g_i - sum of all g||^2 + lambda
/// ||w||^2, non-negative least squares at each step; stops where the squared residual is at most `tolerance` of the
/// squared target, or where nothing helps; a shortfall is filled at random with weight 1. Killamsetty et al.,
/// "GRAD-MATCH", ICML 2021, algorithm 2. With gradmatch.batch > 1 the atoms are random mini-batches (GRAD-MATCH-PB),
/// each the sum of its examples' gradients, and keep ceil(n / batch) x D float64 on every rank of the group. Weighted.
SelectionResult select_gradmatch(const SelectionRequest& request);

/// Facility location by max(D) - D for distances D of r (or g), weights = cluster sizes. Mirzasoleiman, Bilmes and
/// Leskovec, "Coresets for Data-efficient Training of Machine Learning Models", ICML 2020. Weighted.
SelectionResult select_craig(const SelectionRequest& request);

/// Facility location, or graph cut sum_{i, j in S} s_ij - lambda sum_{i, j in S} s_ij (i over all), greedily; s = (1 +
/// cosine of h or g) / 2. Iyer, Khargoankar, Bilmes and Asanani, "Submodular combinatorial information measures", 2021.
SelectionResult select_submodular(const SelectionRequest& request);

/// Greedy by <g_i, gradient of the loss on the examples held out>, that gradient taken where one step of length
/// `glister.step` along the mean gradient of those chosen so far would lead. Killamsetty et al., "GLISTER", AAAI 2021,
/// with the last layer's part of the step exact. Per class: the class's own held-out examples.
SelectionResult select_glister(const SelectionRequest& request);

/// The hardest first: ||p - onehot||, or the gradient's norm in the scope of selection.gradient. Paul, Ganguli and
/// Dziugaite, "Deep Learning on a Data Diet", NeurIPS 2021.
SelectionResult select_el2n(const SelectionRequest& request);
SelectionResult select_grand(const SelectionRequest& request);

/// The most often forgotten first (request.forgotten); never learned counts as more than any. Equals in random order
/// (RandomStream(seed, "forgetting", round)); without a history all are equal. Toneva et al., "An Empirical Study of
/// Example Forgetting during Deep Neural Network Learning", ICLR 2019.
SelectionResult select_forgetting(const SelectionRequest& request);

/// Coverage-centric: after dropping the hardest part, equal shares of the budget to each of `ccs.strata` bins of equal
/// width over the scores, drawn at random; what a bin cannot give goes to the others. Zheng, Liu, Lai and Prakash,
/// ICLR 2023, algorithm 1.
SelectionResult select_ccs(const SelectionRequest& request);

}  // namespace sage
