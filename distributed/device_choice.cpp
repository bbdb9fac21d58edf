#include "distributed/device_choice.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "core/error.h"

namespace sage {

DeviceChoice choose_devices(const std::vector<std::vector<DeviceUuid>>& visible) {
  DeviceChoice choice;
  choice.of_rank.assign(visible.size(), 0);
  std::map<DeviceUuid, int> users;
  for (const auto& list : visible) {
    for (const auto& uuid : list) users[uuid] = 0;
  }
  choice.devices = static_cast<int>(users.size());
  std::vector<std::size_t> order(visible.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return visible[a].size() < visible[b].size(); });
  for (const std::size_t rank : order) {
    const auto& mine = visible[rank];
    const auto best =
        std::min_element(mine.begin(), mine.end(), [&](const auto& a, const auto& b) { return users[a] < users[b]; });
    require(best != mine.end(), "choose_devices: a rank sees no device");
    choice.of_rank[rank] = static_cast<int>(best - mine.begin());
    if (users[*best]++ > 0) choice.shared = true;
  }
  return choice;
}

}  // namespace sage
