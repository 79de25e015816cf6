// The shortest path through the lattice of vocabulary pieces over a byte string.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/byte_trie.h"

namespace mdm {

/// Ids of the pieces on the cheapest path; see MdmTokenizer for the rules. `costs`: by id; null: every
/// piece costs 1.
///
/// Equal paths: the reference runs Dijkstra's algorithm with a binary heap that compares distances
/// alone (mlx-data, core/Graph.cpp). A piece that starts nearer to the beginning wins; between equally
/// near ones the order inside the heap decides, which is reproduced for texts up to kExactTieBytes and
/// replaced by "the earlier one" beyond.
std::vector<int32_t> cheapest_path(const ByteTrie& trie, const std::vector<double>* costs, std::string_view bytes);

constexpr size_t kExactTieBytes = size_t{1} << 20;

}  // namespace mdm
