// SAGE: streaming agreement-driven gradient sketches (Jha and Ahmadi-Asl, arXiv 2510.02470).
#pragma once
#include "selection/choice.h"
#include "selection/selection.h"

namespace sage {

/// ALL ranks. Two passes over the gradients of the candidates, each rank over its own logical shards:
///   1. sketch: each shard into a sketch, the sketches of all ranks into one, S;
///   2. score: z_i = S g_i / ||S g_i||, consensus u_c of each class, agreement a_i = <z_i, u_(y_i)>.
/// Then `keep: top` takes the highest of each class, `keep: filter` cuts off the labels in doubt and draws from the
/// rest at random, `keep: coverage` so that what is drawn covers the rest (coverage.h). With several directions for
/// each class (selection.clusters) a_i is the cosine to the nearest, found by k-means over further walks (clusters.h).
/// With `scoring: gradient_norm` the score is ||g_i|| and nothing is sketched; with `sketch.method: random_projection`
/// S is random and pass 1 falls away.
///
/// Can be stopped and go on (SelectionRequest::stop_requested): pass 1 where it was, with the sketches of all logical
/// shards, finished or begun; pass 2 from its start, with the merged sketch. The answer is that of a selection that was
/// never stopped, bit for bit; on another number of ranks up to what that changes anyway (bit for bit as well for a
/// Frequent Directions sketch where the largest power of two up to the number of ranks has not grown). The weights of
/// the network must be those of before: this is not checked here.
SelectionResult select_sage(const SelectionRequest& request);

}  // namespace sage
