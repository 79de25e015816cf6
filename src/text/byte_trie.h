// A set of byte strings with ids, walked byte by byte.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace mdm {

/// Nodes are numbered breadth first, so the children of a node are neighbours, sorted by their byte, and
/// one array of first children describes the tree: 9 bytes a node.
class ByteTrie {
 public:
  static constexpr uint32_t kRoot = 0;
  static constexpr uint32_t kNone = 0xFFFFFFFFu;

  ByteTrie() = default;
  /// `pieces[i]` gets id i. They must be non-empty and distinct; fewer than 2^31 bytes in all.
  explicit ByteTrie(const std::vector<std::string_view>& pieces);

  /// The node that `byte` leads to, or kNone.
  uint32_t child(uint32_t node, uint8_t byte) const {
    if (node == kRoot) return root_children_[byte];
    uint32_t low = first_child_[node], high = first_child_[node + 1];
    while (high - low > 8) {
      const uint32_t middle = low + (high - low) / 2;
      if (labels_[middle] > byte) {
        high = middle;
      } else {
        low = middle;
      }
    }
    for (; low < high; ++low) {
      if (labels_[low] == byte) return low;
    }
    return kNone;
  }
  /// The id of the string that ends at the node, -1 if none does.
  int32_t id(uint32_t node) const { return ids_[node]; }
  /// The id of `piece`, -1 if it is not in the set.
  int32_t find(std::string_view piece) const;

 private:
  std::array<uint32_t, 256> root_children_{};
  std::vector<uint32_t> first_child_;  // nodes + 1
  std::vector<uint8_t> labels_;
  std::vector<int32_t> ids_;
};

}  // namespace mdm
