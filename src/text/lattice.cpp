#include "text/lattice.h"

#include <algorithm>
#include <limits>
#include <queue>

#include "text/vocabulary.h"

namespace mdm {
namespace {

// A piece that has begun and not ended.
struct Hypothesis {
  uint32_t state;   // node of the trie
  uint32_t start;   // node of the lattice
  double distance;  // from the beginning of the text to `start`
};

// Moves all hypotheses over one byte and drops those that can't.
void advance_all(std::vector<Hypothesis>& live, const ByteTrie& trie, uint8_t byte) {
  size_t kept = 0;
  for (const auto& hypothesis : live) {
    const uint32_t next = trie.child(hypothesis.state, byte);
    if (next != ByteTrie::kNone) live[kept++] = {next, hypothesis.start, hypothesis.distance};
  }
  live.resize(kept);
}

// Finds the path while the bytes go by, in the memory of about a word.
class ForwardSearch {
 public:
  ForwardSearch(const ByteTrie& trie, const std::vector<double>* costs) : trie_(trie), costs_(costs) {}

  std::vector<int32_t> run(std::string_view bytes) {
    for (const char c : bytes) {
      advance_all(live_, trie_, static_cast<uint8_t>(c));
      if (live_.empty()) {  // unknown: back to the last node, without what came since
        live_.push_back({ByteTrie::kRoot, last_, last_distance_});
        continue;
      }
      // One hypothesis, from the last node: every path goes through that node, so the ids before it are
      // final and need not be kept as a lattice.
      if (live_.size() == 1 && live_[0].start == last_ && last_ != 0) {
        flush();
        live_[0].start = 0;
      }
      complete();
    }
    flush();
    return std::move(ids_);
  }

  /// Whether somewhere two pieces were equal in all that this search looks at.
  bool tied() const { return tied_; }

 private:
  // One a byte in the worst case, so small: limits of vocabulary.h make both numbers fit.
  struct Node {
    uint32_t back : 12;  // how many nodes before this one the piece began
    uint32_t id : 20;    // of the piece that led here
  };
  static_assert(kMaxPieceBytes < 1U << 12 && kMaxPieces + 100 < 1U << 20);

  // Makes a node if a piece ends here.
  void complete() {
    int32_t best_id = -1;
    double best_distance = 0, best_start = 0;
    uint32_t best_previous = 0;
    for (const auto& hypothesis : live_) {
      const int32_t id = trie_.id(hypothesis.state);
      if (id < 0) continue;
      const double distance = hypothesis.distance + (costs_ != nullptr ? (*costs_)[static_cast<size_t>(id)] : 1.0);
      const bool equal = best_id >= 0 && distance == best_distance;
      tied_ = tied_ || (equal && hypothesis.distance == best_start);
      if (best_id >= 0 && !(distance < best_distance) && !(equal && hypothesis.distance < best_start)) continue;
      best_id = id;
      best_distance = distance;
      best_start = hypothesis.distance;
      best_previous = hypothesis.start;
    }
    if (best_id < 0) return;
    last_ = static_cast<uint32_t>(nodes_.size());
    nodes_.push_back({(last_ - best_previous) & 0xFFF, static_cast<uint32_t>(best_id) & 0xFFFFF});
    last_distance_ = best_distance;
    live_.push_back({ByteTrie::kRoot, last_, last_distance_});
  }

  // Appends the ids on the way to the last node, which becomes the first.
  void flush() {
    const auto from = static_cast<std::ptrdiff_t>(ids_.size());
    for (uint32_t node = last_; node != 0; node -= nodes_[node].back)
      ids_.push_back(static_cast<int32_t>(nodes_[node].id));
    std::reverse(ids_.begin() + from, ids_.end());
    nodes_.resize(1);
    last_ = 0;
  }

  const ByteTrie& trie_;
  const std::vector<double>* costs_;
  std::vector<Hypothesis> live_ = {{ByteTrie::kRoot, 0, 0.0}};  // by ascending start
  std::vector<Node> nodes_ = {{0, 0}};                          // since what is final
  uint32_t last_ = 0;
  double last_distance_ = 0;
  bool tied_ = false;
  std::vector<int32_t> ids_;
};

// The whole lattice, and Dijkstra's algorithm over it in the reference's order.
class WholeLattice {
 public:
  WholeLattice(const ByteTrie& trie, std::string_view bytes) {
    std::vector<Hypothesis> live = {{ByteTrie::kRoot, 0, 0.0}};
    for (const char c : bytes) {
      advance_all(live, trie, static_cast<uint8_t>(c));
      if (live.empty()) {
        live.push_back({ByteTrie::kRoot, last_node(), 0.0});
        continue;
      }
      const size_t before = edges_.size();
      for (const auto& hypothesis : live) {
        const int32_t id = trie.id(hypothesis.state);
        if (id >= 0) edges_.push_back({hypothesis.start, id});
      }
      if (edges_.size() == before) continue;
      edges_end_.push_back(static_cast<uint32_t>(edges_.size()));
      live.push_back({ByteTrie::kRoot, last_node(), 0.0});
    }
  }

  std::vector<int32_t> cheapest(const std::vector<double>* costs) const {
    const auto [first_out, out] = outgoing();
    std::vector<double> distance(edges_end_.size(), std::numeric_limits<double>::max());
    std::vector<uint32_t> arrival(edges_end_.size());  // the edge by which a node is reached
    struct Entry {
      double distance;
      uint32_t node;
    };
    const auto farther = [](const Entry& a, const Entry& b) { return a.distance > b.distance; };
    std::priority_queue<Entry, std::vector<Entry>, decltype(farther)> queue(farther);
    distance[0] = 0;
    queue.push({0.0, 0});
    while (!queue.empty()) {
      const uint32_t node = queue.top().node;
      queue.pop();
      for (uint32_t i = first_out[node]; i < first_out[node + 1]; ++i) {
        const auto [target, edge] = out[i];
        const double cost = costs != nullptr ? (*costs)[static_cast<size_t>(edges_[edge].id)] : 1.0;
        if (!(distance[target] > distance[node] + cost)) continue;
        distance[target] = distance[node] + cost;
        arrival[target] = edge;
        queue.push({distance[target], target});
      }
    }
    std::vector<int32_t> ids;
    for (uint32_t node = last_node(); node != 0; node = edges_[arrival[node]].from)
      ids.push_back(edges_[arrival[node]].id);
    std::reverse(ids.begin(), ids.end());
    return ids;
  }

 private:
  struct Edge {
    uint32_t from;
    int32_t id;
  };
  struct Out {
    uint32_t target, edge;
  };

  uint32_t last_node() const { return static_cast<uint32_t>(edges_end_.size() - 1); }
  uint32_t edges_begin(uint32_t node) const { return node == 0 ? 0 : edges_end_[node - 1]; }

  // Outgoing edges of each node, in the order in which a breadth-first walk back from the last node meets
  // them: the order in which the reference's search takes them.
  std::pair<std::vector<uint32_t>, std::vector<Out>> outgoing() const {
    std::vector<uint32_t> walk = {last_node()}, next, order;
    std::vector<uint8_t> seen(edges_end_.size());
    while (!walk.empty()) {
      next.clear();
      for (const uint32_t node : walk) {
        if (seen[node] != 0) continue;
        seen[node] = 1;
        order.push_back(node);
        for (uint32_t e = edges_begin(node); e < edges_end_[node]; ++e) {
          if (seen[edges_[e].from] == 0) next.push_back(edges_[e].from);
        }
      }
      walk.swap(next);
    }
    std::vector<uint32_t> first(edges_end_.size() + 1);
    for (const uint32_t node : order) {
      for (uint32_t e = edges_begin(node); e < edges_end_[node]; ++e) ++first[edges_[e].from + 1];
    }
    for (size_t i = 1; i < first.size(); ++i) first[i] += first[i - 1];
    std::vector<uint32_t> at(first.begin(), first.end() - 1);
    std::vector<Out> out(first.back());
    for (const uint32_t node : order) {
      for (uint32_t e = edges_begin(node); e < edges_end_[node]; ++e) out[at[edges_[e].from]++] = {node, e};
    }
    return {std::move(first), std::move(out)};
  }

  std::vector<Edge> edges_;                // by target, then by ascending start
  std::vector<uint32_t> edges_end_ = {0};  // where the edges into a node end; node 0 has none
};

}  // namespace

std::vector<int32_t> cheapest_path(const ByteTrie& trie, const std::vector<double>* costs, std::string_view bytes) {
  ForwardSearch search(trie, costs);
  auto ids = search.run(bytes);
  if (search.tied() && bytes.size() <= kExactTieBytes) return WholeLattice(trie, bytes).cheapest(costs);
  return ids;
}

}  // namespace mdm
