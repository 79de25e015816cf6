// When failures are the network's, and not the servers'.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ingest/picture.h"
#include "ingest/url_list.h"

namespace mdm::ingest {

/// Failures that a lost network would give too (no name, no connection, no answer in time) are held back until some
/// server answers, whatever it says: then they were the servers' own. So many of them in a row, from several hosts or
/// from all that ever answered, mean that the network is lost, and their rows are not done.
class LostNetwork {
 public:
  using Suspect = std::pair<UrlRow, Failure>;

  /// `after`: how many; 0: never.
  explicit LostNetwork(int64_t after) : after_(after) {}

  /// A server has answered: the suspects were right.
  std::vector<Suspect> alive(const std::string& host);
  void suspect(UrlRow row, Failure failure, const std::string& host);
  /// How things stand with the suspects so far.
  enum class Verdict { kOpen, kLost, kHostsAreDead };
  Verdict verdict() const;
  std::vector<Suspect> take();
  size_t suspects() const { return suspects_.size(); }
  uint64_t answers() const { return answers_; }
  /// Of the last suspect; there must be one.
  const std::string& last_detail() const { return suspects_.back().second.detail; }

 private:
  bool another_is_alive() const;

  int64_t after_;
  uint64_t answers_ = 0;
  std::vector<Suspect> suspects_;
  std::set<std::string> suspect_hosts_;  // some of them
  std::set<std::string> alive_;          // some that answered in this run
};

}  // namespace mdm::ingest
