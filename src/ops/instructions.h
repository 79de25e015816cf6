// One source for three instruction sets: a kernel's loop is written once, compiled for each, and the best that the CPU
// has is taken. MDM_INSTRUCTIONS=scalar|avx2|avx512 in the environment takes less (for tests): nothing in this room
// uses more then.
#pragma once

namespace mdm::ops {

enum class Instructions { kScalar, kAvx2, kAvx512 };  // x86-64, its levels v3 and v4

Instructions best_instructions();  // of this CPU
Instructions instructions();       // what the CPU has, or less: the same for the whole run

// For the lambda and all that it calls: only what is inlined is compiled for the instruction set.
#define MDM_INLINED __attribute__((always_inline))

namespace detail {

#if defined(__x86_64__)
template <typename Work>
__attribute__((target("arch=x86-64-v4"), noinline)) void in_avx512(const Work& work) {
  work();
}
template <typename Work>
__attribute__((target("arch=x86-64-v3"), noinline)) void in_avx2(const Work& work) {
  work();
}
#endif

}  // namespace detail

// with_vectors([&]() MDM_INLINED { ... });
template <typename Work>
inline void with_vectors(const Work& work) {
#if defined(__x86_64__)
  switch (instructions()) {
    case Instructions::kAvx512: return detail::in_avx512(work);
    case Instructions::kAvx2: return detail::in_avx2(work);
    case Instructions::kScalar: break;
  }
#endif
  work();
}

}  // namespace mdm::ops
