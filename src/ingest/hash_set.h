// A set of 64-bit hashes: what of millions of URLs and pictures has been seen. 8 to 19 bytes an entry.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace mdm::ingest {

/// The first 64 bits of a SHA-256 in hexadecimal: what HashSet takes.
inline uint64_t hash_of(const std::string& sha256) { return std::strtoull(sha256.substr(0, 16).c_str(), nullptr, 16); }

class HashSet {
 public:
  /// Whether the hash is new.
  bool insert(uint64_t hash) {
    if ((count_ + 1) * 5 > slots_.size() * 4) grow();
    return put(hash == kEmpty ? 1 : hash);
  }
  bool contains(uint64_t hash) const {
    if (slots_.empty()) return false;
    if (hash == kEmpty) hash = 1;
    const uint64_t mask = slots_.size() - 1;
    for (uint64_t at = hash & mask; slots_[at] != kEmpty; at = (at + 1) & mask) {
      if (slots_[at] == hash) return true;
    }
    return false;
  }
  uint64_t size() const { return count_; }

 private:
  static constexpr uint64_t kEmpty = 0;

  // Hashes are uniform already: their low bits are the place.
  bool put(uint64_t hash) {
    const uint64_t mask = slots_.size() - 1;
    for (uint64_t at = hash & mask;; at = (at + 1) & mask) {
      if (slots_[at] == hash) return false;
      if (slots_[at] != kEmpty) continue;
      slots_[at] = hash;
      ++count_;
      return true;
    }
  }

  void grow() {
    const std::vector<uint64_t> old =
        std::exchange(slots_, std::vector<uint64_t>(slots_.empty() ? 1024 : slots_.size() * 2));
    count_ = 0;
    for (const uint64_t hash : old) {
      if (hash != kEmpty) put(hash);
    }
  }

  std::vector<uint64_t> slots_;
  uint64_t count_ = 0;
};

}  // namespace mdm::ingest
