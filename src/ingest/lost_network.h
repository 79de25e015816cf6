// When failures are the network's, and not the servers'.
#pragma once

#include <cstdint>
#include <deque>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ingest/picture.h"
#include "ingest/url_list.h"

namespace mdm::ingest {

/// Failures that a lost network would give too (no name, no connection, no answer in time) are held back until servers
/// answer again, whatever they say: then they were the servers' own. So many of them in a row, from several hosts or
/// from all that ever answered, mean that the network is lost, and their rows are not done.
class LostNetwork {
 public:
  using Suspect = std::pair<UrlRow, Failure>;

  /// `after`: how many; 0: never. `settled_by`: answers that a suspect waits for: as many as there are transfers at a
  /// time, since those that were on their way already prove nothing.
  explicit LostNetwork(int64_t after, int64_t settled_by = 1) : after_(after), settled_by_(settled_by) {}

  /// A server has answered: which suspects are the servers' fault by that.
  std::vector<Suspect> alive(const std::string& host);
  void suspect(UrlRow row, Failure failure, const std::string& host);
  /// How things stand with the suspects so far.
  enum class Verdict { kOpen, kLost, kHostsAreDead };
  Verdict verdict() const;
  std::vector<Suspect> take();
  size_t suspects() const { return suspects_.size(); }
  uint64_t answers() const { return answers_; }
  /// Of the last suspect; there must be one.
  const std::string& last_detail() const { return suspects_.back().suspect.second.detail; }

 private:
  bool another_is_alive() const;

  struct Held {
    Suspect suspect;
    uint64_t answers;  // when it came
  };

  int64_t after_, settled_by_;
  int64_t in_a_row_ = 0;  // suspects since the last answer
  uint64_t answers_ = 0;
  std::deque<Held> suspects_;
  std::set<std::string> suspect_hosts_;  // of those in a row, some
  std::set<std::string> alive_;          // some that answered in this run
};

}  // namespace mdm::ingest
