// Which of a node's GPUs each of its ranks takes. Pure: no CUDA, no MPI.
#pragma once
#include <array>
#include <vector>

namespace sage {

/// A GPU's own number: the same in every process, whatever CUDA_VISIBLE_DEVICES says.
using DeviceUuid = std::array<unsigned char, 16>;

struct DeviceChoice {
  std::vector<int> of_rank;  ///< by local rank: number of the device among those that the rank sees
  int devices = 0;           ///< different ones on the node
  bool shared = false;       ///< some device has several ranks
};

/// visible[r]: what local rank r sees (at least one, else InternalError). Whoever sees least chooses first, each the
/// least used one it sees: with equal lists local rank r takes device r, with one device each (Slurm's --gpus-per-task)
/// everybody takes number 0.
DeviceChoice choose_devices(const std::vector<std::vector<DeviceUuid>>& visible);

}  // namespace sage
