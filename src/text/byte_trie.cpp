#include "text/byte_trie.h"

#include <algorithm>
#include <numeric>

namespace mdm {

ByteTrie::ByteTrie(const std::vector<std::string_view>& pieces) {
  std::vector<int32_t> order(pieces.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return pieces[a] < pieces[b]; });

  // Level by level: each node stands for a range of sorted pieces that share its prefix.
  struct Range {
    uint32_t begin, end;
  };
  std::vector<Range> level = {{0, static_cast<uint32_t>(order.size())}}, next;
  labels_.push_back(0);
  ids_.push_back(-1);
  for (size_t depth = 0; !level.empty(); ++depth) {
    next.clear();
    const size_t first_of_level = labels_.size() - level.size();
    for (size_t k = 0; k < level.size(); ++k) {
      auto [begin, end] = level[k];
      if (begin < end && pieces[order[begin]].size() == depth) ids_[first_of_level + k] = order[begin++];
      first_child_.push_back(static_cast<uint32_t>(labels_.size()));
      while (begin < end) {
        const auto label = static_cast<uint8_t>(pieces[order[begin]][depth]);
        uint32_t stop = begin + 1;
        while (stop < end && static_cast<uint8_t>(pieces[order[stop]][depth]) == label) ++stop;
        labels_.push_back(label);
        ids_.push_back(-1);
        next.push_back({begin, stop});
        begin = stop;
      }
    }
    level.swap(next);
  }
  first_child_.push_back(static_cast<uint32_t>(labels_.size()));

  root_children_.fill(kNone);
  for (uint32_t node = first_child_[0]; node < first_child_[1]; ++node) root_children_[labels_[node]] = node;
}

int32_t ByteTrie::find(std::string_view piece) const {
  if (piece.empty() || ids_.empty()) return -1;
  uint32_t node = kRoot;
  for (const char c : piece) {
    node = child(node, static_cast<uint8_t>(c));
    if (node == kNone) return -1;
  }
  return ids_[node];
}

}  // namespace mdm
