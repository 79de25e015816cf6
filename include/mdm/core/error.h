// The errors that libmdm throws, and the one way to make their texts.
// The library never ends the process: every fault of input or environment becomes one of these.
#pragma once

#include <algorithm>
#include <cstddef>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace mdm {

/// Base of all errors of the library; thrown itself when a run fails (disk full, device lost).
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A setting, flag or config file is wrong. Apps exit with 2.
class ConfigError : public Error {
 public:
  using Error::Error;
};

/// A data file (image, prompt list, vocabulary, tar) can't be used. Apps exit with 3.
class DataError : public Error {
 public:
  using Error::Error;
};

/// A file of weights can't be read or doesn't fit the model. Apps exit with 3.
class CheckpointError : public Error {
 public:
  using Error::Error;
};

/// Processes that work together disagree, or one is gone. Apps exit with 1.
class DistributedError : public Error {
 public:
  using Error::Error;
};

/// The arguments written one after the other, as `operator<<` prints them.
template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

/// Throws ErrorType with the concatenated parts as its text.
template <typename ErrorType = Error, typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw ErrorType(concat(parts...));
}

/// `text` made safe for a terminal or a log: control characters, and bytes that are not UTF-8, as \xNN;
/// cut after `max_bytes` with "..." (names and captions come from files that anyone may have written).
std::string printable(std::string_view text, size_t max_bytes = 200);

/// The candidate with the smallest edit distance to `name`, or "" when none is near enough to be what
/// was meant (more than a third of the longer name's letters differ).
template <typename Names>
std::string_view nearest_name(std::string_view name, const Names& candidates);

/// Edit distance (insert, delete, replace cost 1), ignoring ASCII case; '-' equals '_'.
size_t edit_distance(std::string_view a, std::string_view b);

template <typename Names>
std::string_view nearest_name(std::string_view name, const Names& candidates) {
  std::string_view best;
  size_t best_distance = 0;
  for (const auto& candidate : candidates) {
    const std::string_view other(candidate);
    const size_t distance = edit_distance(name, other);
    if (distance * 3 <= std::max(name.size(), other.size()) && (best.empty() || distance < best_distance)) {
      best = other;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace mdm
