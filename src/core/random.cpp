// Random numbers on the CPU: the scalar definition of philox_math.h in loops that the compiler turns
// into vector code, once for each instruction set, chosen when the program runs.
#include "mdm/core/random.h"

#include <algorithm>

#include "core/random_paths.h"

namespace mdm {
namespace {

using detail::RandomPath;
using philox::Sequence;

enum class Kind { kBits, kUniform, kNormal };

// Numbers 4 * block ... 4 * (block + count) - 1; `block + count` must not pass a multiple of 2^32.
template <Kind kind, typename Number>
[[gnu::always_inline]] inline void fill_blocks(const Sequence& sequence, uint64_t block, Number* __restrict out,
                                               uint32_t count) {
  const Sequence copy = sequence;
  const auto low = static_cast<uint32_t>(block);
  const auto high = static_cast<uint32_t>(block >> 32);
  for (uint32_t i = 0; i < count; ++i) {
    const philox::Words words = philox::block_words(copy, low + i, high);
    Number* __restrict four = out + size_t{4} * i;
    if constexpr (kind == Kind::kBits) {
      four[0] = words.a;
      four[1] = words.b;
      four[2] = words.c;
      four[3] = words.d;
    } else {
      const philox::Floats values = kind == Kind::kUniform ? philox::uniforms(words) : philox::normals(words);
      four[0] = values.a;
      four[1] = values.b;
      four[2] = values.c;
      four[3] = values.d;
    }
  }
}

template <typename Number>
using Filler = void (*)(const Sequence& sequence, uint64_t block, Number* out, uint32_t count);

template <Kind kind, typename Number>
void fill_portable(const Sequence& sequence, uint64_t block, Number* out, uint32_t count) {
  fill_blocks<kind>(sequence, block, out, count);
}

#if defined(__x86_64__)
template <Kind kind, typename Number>
[[gnu::target("avx2")]] void fill_avx2(const Sequence& sequence, uint64_t block, Number* out, uint32_t count) {
  fill_blocks<kind>(sequence, block, out, count);
}

template <Kind kind, typename Number>
[[gnu::target("avx512f")]] void fill_avx512(const Sequence& sequence, uint64_t block, Number* out, uint32_t count) {
  fill_blocks<kind>(sequence, block, out, count);
}
#endif

template <Kind kind, typename Number>
Filler<Number> filler(RandomPath path) {
#if defined(__x86_64__)
  if (path == RandomPath::kAvx512) return fill_avx512<kind, Number>;
  if (path == RandomPath::kAvx2) return fill_avx2<kind, Number>;
#endif
  return fill_portable<kind, Number>;
}

RandomPath best_path() {
  static const RandomPath best = detail::random_path_available(RandomPath::kAvx512) ? RandomPath::kAvx512
                                 : detail::random_path_available(RandomPath::kAvx2) ? RandomPath::kAvx2
                                                                                    : RandomPath::kPortable;
  return best;
}

// Any range of numbers: a partial first block, whole blocks, a partial last block.
template <Kind kind, typename Number>
void fill(RandomPath path, const RandomAddress& address, uint64_t first, Number* out, size_t count) {
  const Filler<Number> whole = filler<kind, Number>(path);
  const Sequence sequence = detail::random_sequence(address);
  while (count > 0) {
    const uint64_t block = first / 4;
    const size_t skipped = first % 4;
    size_t done = 0;
    if (skipped != 0 || count < 4) {
      Number four[4];
      fill_portable<kind>(sequence, block, four, 1);
      done = std::min(count, 4 - skipped);
      std::copy_n(four + skipped, done, out);
    } else {
      const uint64_t before_carry = (uint64_t{1} << 32) - static_cast<uint32_t>(block);
      const auto blocks = static_cast<uint32_t>(std::min<uint64_t>({count / 4, before_carry, uint64_t{1} << 30}));
      whole(sequence, block, out, blocks);
      done = size_t{4} * blocks;
    }
    first += done;
    out += done;
    count -= done;
  }
}

}  // namespace

namespace detail {

bool random_path_available(RandomPath path) {
#if defined(__x86_64__)
  if (path == RandomPath::kAvx2) return __builtin_cpu_supports("avx2");
  if (path == RandomPath::kAvx512) return __builtin_cpu_supports("avx512f");
#endif
  return path == RandomPath::kPortable;
}

Sequence random_sequence(const RandomAddress& address) {
  return philox::sequence_at(address.seed, address.step, address.attempt, address.layer,
                             static_cast<uint32_t>(address.stream), address.sample);
}

void random_bits_on(RandomPath path, const RandomAddress& address, uint64_t first, uint32_t* out, size_t count) {
  fill<Kind::kBits>(path, address, first, out, count);
}

void random_uniform_on(RandomPath path, const RandomAddress& address, uint64_t first, float* out, size_t count) {
  fill<Kind::kUniform>(path, address, first, out, count);
}

void random_normal_on(RandomPath path, const RandomAddress& address, uint64_t first, float* out, size_t count) {
  fill<Kind::kNormal>(path, address, first, out, count);
}

}  // namespace detail

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  const philox::Words words = philox::philox({counter[0], counter[1], counter[2], counter[3]}, key[0], key[1]);
  return {words.a, words.b, words.c, words.d};
}

void random_bits(const RandomAddress& address, uint64_t first, uint32_t* out, size_t count) {
  detail::random_bits_on(best_path(), address, first, out, count);
}

void random_uniform(const RandomAddress& address, uint64_t first, float* out, size_t count) {
  detail::random_uniform_on(best_path(), address, first, out, count);
}

void random_normal(const RandomAddress& address, uint64_t first, float* out, size_t count) {
  detail::random_normal_on(best_path(), address, first, out, count);
}

uint64_t random_below(const RandomAddress& address, uint64_t index, uint64_t bound) {
  uint32_t words[2];
  random_bits(address, 2 * index, words, 2);
  __extension__ using Wide = unsigned __int128;
  const uint64_t bits = static_cast<uint64_t>(words[1]) << 32 | words[0];
  return static_cast<uint64_t>(static_cast<Wide>(bits) * bound >> 64);
}

}  // namespace mdm
