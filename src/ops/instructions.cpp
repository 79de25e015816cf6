#include "ops/instructions.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string_view>

namespace mdm::ops {
namespace {

Instructions from_environment() {
  const Instructions best = best_instructions();
  const char* const name = std::getenv("MDM_INSTRUCTIONS");
  if (name == nullptr) return best;
  const std::string_view text = name;
  if (text == "scalar") return Instructions::kScalar;
  return text == "avx2" ? std::min(best, Instructions::kAvx2) : best;
}

std::atomic<Instructions>& chosen() {
  static std::atomic<Instructions> which{from_environment()};
  return which;
}

}  // namespace

Instructions best_instructions() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("x86-64-v4")) return Instructions::kAvx512;
  if (__builtin_cpu_supports("x86-64-v3")) return Instructions::kAvx2;
#endif
  return Instructions::kScalar;
}

Instructions instructions() { return chosen().load(std::memory_order_relaxed); }

void use_instructions(Instructions which) { chosen() = std::min(which, best_instructions()); }

}  // namespace mdm::ops
