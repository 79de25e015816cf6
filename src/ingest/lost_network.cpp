#include "ingest/lost_network.h"

#include <algorithm>

namespace mdm::ingest {
namespace {

constexpr size_t kSeveralHosts = 4;
constexpr size_t kMostHosts = 64;  // remembered

}  // namespace

std::vector<LostNetwork::Suspect> LostNetwork::alive(const std::string& host) {
  ++answers_;
  in_a_row_ = 0;
  suspect_hosts_.clear();
  if (alive_.size() < kMostHosts) alive_.insert(host);
  std::vector<Suspect> settled;
  while (!suspects_.empty() && suspects_.front().answers + static_cast<uint64_t>(settled_by_) <= answers_) {
    settled.push_back(std::move(suspects_.front().suspect));
    suspects_.pop_front();
  }
  return settled;
}

std::vector<LostNetwork::Suspect> LostNetwork::take() {
  in_a_row_ = 0;
  suspect_hosts_.clear();
  std::vector<Suspect> all;
  for (Held& held : std::exchange(suspects_, {})) all.push_back(std::move(held.suspect));
  return all;
}

void LostNetwork::suspect(UrlRow row, Failure failure, const std::string& host) {
  suspects_.push_back({{std::move(row), std::move(failure)}, answers_});
  ++in_a_row_;
  if (suspect_hosts_.size() < kMostHosts) suspect_hosts_.insert(host);
}

bool LostNetwork::another_is_alive() const {
  return std::any_of(alive_.begin(), alive_.end(),
                     [this](const std::string& host) { return suspect_hosts_.count(host) == 0; });
}

LostNetwork::Verdict LostNetwork::verdict() const {
  if (after_ <= 0) return suspects_.empty() ? Verdict::kOpen : Verdict::kHostsAreDead;
  if (in_a_row_ < after_) return Verdict::kOpen;
  const bool lost = suspect_hosts_.size() >= kSeveralHosts || !another_is_alive();
  return lost ? Verdict::kLost : Verdict::kHostsAreDead;
}

}  // namespace mdm::ingest
