#include "ingest/lost_network.h"

#include <algorithm>

namespace mdm::ingest {
namespace {

constexpr size_t kSeveralHosts = 4;
constexpr size_t kMostHosts = 64;  // remembered

}  // namespace

std::vector<LostNetwork::Suspect> LostNetwork::alive(const std::string& host) {
  ++answers_;
  if (alive_.size() < kMostHosts) alive_.insert(host);
  return take();
}

std::vector<LostNetwork::Suspect> LostNetwork::take() {
  suspect_hosts_.clear();
  return std::exchange(suspects_, {});
}

void LostNetwork::suspect(UrlRow row, Failure failure, const std::string& host) {
  suspects_.emplace_back(std::move(row), std::move(failure));
  if (suspect_hosts_.size() < kMostHosts) suspect_hosts_.insert(host);
}

bool LostNetwork::another_is_alive() const {
  return std::any_of(alive_.begin(), alive_.end(),
                     [this](const std::string& host) { return suspect_hosts_.count(host) == 0; });
}

LostNetwork::Verdict LostNetwork::verdict() const {
  if (after_ <= 0) return suspects_.empty() ? Verdict::kOpen : Verdict::kHostsAreDead;
  if (suspects_.size() < static_cast<size_t>(after_)) return Verdict::kOpen;
  const bool lost = suspect_hosts_.size() >= kSeveralHosts || !another_is_alive();
  return lost ? Verdict::kLost : Verdict::kHostsAreDead;
}

}  // namespace mdm::ingest
