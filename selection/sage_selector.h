// SAGE: streaming agreement-driven gradient sketches (Jha and Ahmadi-Asl, arXiv 2510.02470).
#pragma once
#include "selection/selection.h"

namespace sage {

/// The score of an example whose projected gradient is zero or not finite: below every agreement and every norm, and
/// finite, so that any file format holds it.
constexpr float kLowestScore = -2.0f;

/// ALL ranks. Two passes over the gradients of the candidates, each rank over its own logical shards:
///   1. sketch: each shard into a sketch, the sketches of all ranks into one, S;
///   2. score: z_i = S g_i / ||S g_i||, consensus u_c of each class, agreement a_i = <z_i, u_(y_i)>.
/// Then `keep: top` takes the highest of each class, `keep: filter` cuts off the labels in doubt and draws from the
/// rest. With `scoring: gradient_norm` the score is ||g_i|| and nothing is sketched; with `sketch.method:
/// random_projection` S is random and pass 1 falls away.
SelectionResult select_sage(const SelectionRequest& request);

}  // namespace sage
