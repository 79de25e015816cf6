// What is tried again, and when: shared by everything that makes requests.
#pragma once

#include <algorithm>

#include "net/transfer.h"

namespace mdm::net {

inline constexpr int kTooManyRequests = 429, kRequestTimeout = 408;
inline constexpr double kLongestWait = 60;  // seconds that a server's Retry-After may ask for

/// Whether a later try may succeed.
inline bool may_pass(const NetError& error) {
  const int status = error.status();
  switch (error.kind()) {
    case NetError::Kind::kHost:
    case NetError::Kind::kConnection:
    case NetError::Kind::kTimeout:
    case NetError::Kind::kChecksum: return true;
    case NetError::Kind::kStatus:
      return status == kTooManyRequests || status == kRequestTimeout ||
             (status >= 500 && status != 501 && status != 505);
    default: return false;
  }
}

/// Seconds before the next try: `pause` is ours, `asked` the server's Retry-After.
inline double wait_before_retry(double pause, double asked) {
  return std::clamp(asked, pause, std::max(pause, kLongestWait));
}

inline bool is_redirect(const Answer& answer) {
  return answer.status >= 300 && answer.status < 400 && answer.status != 304 && !answer.location.empty();
}

}  // namespace mdm::net
