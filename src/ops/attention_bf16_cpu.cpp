// The forward pass: a block of 12 queries at a time, after keys and values of all heads were packed.
#include "ops/attention_bf16_cpu.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <memory>
#include <vector>

#if defined(__x86_64__)
#include "ops/attention_bf16_tiles.h"
#include "ops/instructions.h"
#endif

namespace mdm::ops {

int64_t bf16_attention_statistics(const HeadShape& a) { return a.batch * a.heads * a.queries; }

#if defined(__x86_64__)

namespace {

using namespace bf16_tiles;

constexpr int64_t kBlockRows = 12;
constexpr int64_t kMostKeys = 8192;  // scores of a block stay in the second cache, or near

// A row of scores to its softmax's numerators in bfloat16. Gives their sum's inverse; `log_sum`: of all e^score.
// kMasked: `bias` says which keys count.
template <bool kMasked>
MDM_AVX512_BF16 float numerators(const float* scores, const float* bias, int64_t padded, float scale, uint16_t* out,
                                 float* log_sum) {
  __m512 most = _mm512_set1_ps(kNever);
  for (int64_t j = 0; j < padded; j += kLane) {
    const __m512 s = _mm512_loadu_ps(scores + j);
    most = _mm512_max_ps(most, kMasked ? _mm512_add_ps(s, _mm512_loadu_ps(bias + j)) : s);
  }
  const float largest = _mm512_reduce_max_ps(most), step = scale * kLog2E;
  const __m512 factor = _mm512_set1_ps(step), start = _mm512_set1_ps(largest * step);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t j = 0; j < padded; j += kLane) {
    __m512 e = power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(scores + j), factor, start));
    if (kMasked) {
      e = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(_mm512_loadu_ps(bias + j), _mm512_setzero_ps(), _CMP_EQ_OQ), e);
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j), rounded(e));
    sum = _mm512_add_ps(sum, e);
  }
  const float all = _mm512_reduce_add_ps(sum);
  *log_sum = largest * scale + std::log(all);
  return 1.0F / all;
}

struct Buffers {
  std::vector<float> scores, out, inverse;
  std::vector<uint16_t> numbers;
  Buffers(int64_t padded, int64_t width)
      : scores(static_cast<size_t>(kBlockRows * padded)),
        out(static_cast<size_t>(kBlockRows * width)),
        inverse(static_cast<size_t>(kBlockRows)),
        numbers(static_cast<size_t>(kBlockRows * padded)) {}
};

MDM_AVX512_BF16 void add_rounded(const float* from, uint16_t* to, int64_t count) {
  for (int64_t c = 0; c < count; c += kLane) {
    auto* place = reinterpret_cast<__m256i*>(to + c);
    const __m512i before = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(place)), 16);
    _mm256_storeu_si256(place, rounded(_mm512_add_ps(_mm512_loadu_ps(from + c), _mm512_castsi512_ps(before))));
  }
}

}  // namespace

bool bf16_attention_suits(int64_t width, int64_t keys) {
  static const bool has_instructions = instructions() == Instructions::kAvx512 &&
                                       __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
                                       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                                       !__builtin_cpu_supports("amx-bf16");
  return has_instructions && width % kLane == 0 && width >= kLane && width <= 8 * kLane && keys >= 1 &&
         keys <= kMostKeys;
}

void bf16_attention(const HeadShape& a, HeadView<const uint16_t> q, HeadView<const uint16_t> k,
                    HeadView<const uint16_t> v, HeadView<uint16_t> out, bool add, float* statistics) {
  const int64_t heads = a.batch * a.heads, padded = padded_to_lane(a.keys), packed = padded * a.width / 2;
  const KeyBias bias(a, padded);
  const std::unique_ptr<uint32_t[]> numbers(new uint32_t[static_cast<size_t>(2 * heads * packed)]);
  at::parallel_for(0, heads, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      uint32_t* to = numbers.get() + 2 * i * packed;
      pack_by_channels(rows_of(k, i / a.heads, i % a.heads), k.row, a.keys, padded, a.width, to);
      pack_by_rows(rows_of(v, i / a.heads, i % a.heads), v.row, a.keys, padded, a.width, to + packed);
    }
  });
  const int64_t blocks = (a.queries + kBlockRows - 1) / kBlockRows;
  const float scale = 1.0F / std::sqrt(static_cast<float>(a.width));
  const auto row_of = bias.all_count() ? numerators<false> : numerators<true>;
  at::parallel_for(0, heads * blocks, 4, [&](int64_t first, int64_t last) {
    Buffers buffers(padded, a.width);
    for (int64_t i = first; i < last; ++i) {
      const int64_t head = i / blocks, start = i % blocks * kBlockRows;
      const int64_t count = std::min(kBlockRows, a.queries - start);
      uint16_t* to = rows_of(out, head / a.heads, head % a.heads) + start * out.row;
      if (!bias.any(head / a.heads)) {
        for (int64_t row = 0; row < (add ? 0 : count); ++row) std::fill_n(to + row * out.row, a.width, uint16_t{0});
        continue;
      }
      const uint16_t* queries[kBlockRows];
      for (int64_t row = 0; row < kBlockRows; ++row) {  // past the last query, that one again
        queries[row] = rows_of(q, head / a.heads, head % a.heads) + std::min(start + row, a.queries - 1) * q.row;
      }
      const uint32_t* keys = numbers.get() + 2 * head * packed;
      scores_of(queries, kBlockRows, keys, padded, a.width, buffers.scores.data());
      for (int64_t row = 0; row < kBlockRows; ++row) {
        float log_sum;
        buffers.inverse[static_cast<size_t>(row)] =
            row_of(buffers.scores.data() + row * padded, bias.of(head / a.heads), padded, scale,
                   buffers.numbers.data() + row * padded, &log_sum);
        if (row < count) statistics[head * a.queries + start + row] = log_sum;
      }
      const Factors factors{reinterpret_cast<const uint32_t*>(buffers.numbers.data()), padded / 2, 1, padded / 2};
      sum_over_keys(factors, kBlockRows, a.width, keys + packed, buffers.inverse.data(), false, buffers.out.data());
      for (int64_t row = 0; row < count; ++row) {
        (add ? add_rounded : round_to)(buffers.out.data() + row * a.width, to + row * out.row, a.width);
      }
    }
  });
}

#else

bool bf16_attention_suits(int64_t, int64_t) { return false; }
void bf16_attention(const HeadShape&, HeadView<const uint16_t>, HeadView<const uint16_t>, HeadView<const uint16_t>,
                    HeadView<uint16_t>, bool, float*) {}

#endif

}  // namespace mdm::ops
