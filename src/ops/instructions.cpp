#include "ops/instructions.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace mdm::ops {
namespace {

Instructions at_most(const char* name) {
  const std::string_view text = name != nullptr ? name : "";
  if (text == "scalar") return Instructions::kScalar;
  return text == "avx2" ? Instructions::kAvx2 : Instructions::kAvx512;
}

}  // namespace

Instructions best_instructions() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("x86-64-v4")) return Instructions::kAvx512;
  if (__builtin_cpu_supports("x86-64-v3")) return Instructions::kAvx2;
#endif
  return Instructions::kScalar;
}

Instructions instructions() {
  static const Instructions which = std::min(best_instructions(), at_most(std::getenv("MDM_INSTRUCTIONS")));
  return which;
}

}  // namespace mdm::ops
