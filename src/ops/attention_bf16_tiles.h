// The inner loops of attention_bf16_cpu.h, forward and backward: products of bfloat16 pairs, in registers.
//
// Two layouts of a head's rows (keys, values, queries or gradients), both of 32-bit pairs:
//
//   by channels (rows / 16, width / 2, 16): an instruction multiplies a pair of a query's channels with 16 rows' pairs
//
//   by rows (rows / 2, width): an instruction multiplies a pair of rows' factors with 16 of the rows' channels
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "ops/head_view.h"

#define MDM_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace mdm::ops::bf16_tiles {

constexpr int64_t kLane = 16;
constexpr int64_t kScoreRows = 6;  // queries whose scores are made at a time: 6 x 4 sums are in registers
constexpr float kNever = -std::numeric_limits<float>::infinity();

inline int64_t padded_to_lane(int64_t count) { return (count + kLane - 1) / kLane * kLane; }

// 0 for each key that counts, kNever for one that a mask hides or that only fills up a vector.
class KeyBias {
 public:
  KeyBias(const HeadShape& a, int64_t padded)
      : padded_(padded),
        all_count_(a.mask == nullptr && padded == a.keys),
        bias_(static_cast<size_t>(a.batch * padded), kNever) {
    for (int64_t b = 0; b < a.batch; ++b) {
      for (int64_t j = 0; j < a.keys; ++j) {
        if (a.mask == nullptr || a.mask[b * a.keys + j]) bias_[static_cast<size_t>(b * padded + j)] = 0;
      }
    }
  }
  const float* of(int64_t picture) const { return bias_.data() + picture * padded_; }
  bool all_count() const { return all_count_; }
  bool any(int64_t picture) const {
    return std::find(of(picture), of(picture) + padded_, 0.0F) != of(picture) + padded_;
  }

 private:
  int64_t padded_;
  bool all_count_;
  std::vector<float> bias_;
};

// rows[i * stride], i < count, each `width` long; rows from there up to `padded` are 0.
MDM_AVX512_BF16 inline void pack_by_channels(const uint16_t* rows, int64_t stride, int64_t count, int64_t padded,
                                             int64_t width, uint32_t* out) {
  for (int64_t i = 0; i < padded; ++i) {
    uint32_t* to = out + i / kLane * (width / 2) * kLane + i % kLane;
    for (int64_t c = 0; c < width / 2; ++c) {
      uint32_t pair = 0;
      if (i < count) std::memcpy(&pair, rows + i * stride + 2 * c, sizeof pair);
      to[c * kLane] = pair;
    }
  }
}

MDM_AVX512_BF16 inline void pack_by_rows(const uint16_t* rows, int64_t stride, int64_t count, int64_t padded,
                                         int64_t width, uint32_t* out) {
  for (int64_t i = 0; i < padded / 2; ++i) {
    const uint16_t* even = rows + 2 * i * stride;
    const bool has_even = 2 * i < count, has_odd = 2 * i + 1 < count;
    for (int64_t c = 0; c < width; ++c) {
      out[i * width + c] = (has_even ? uint32_t{even[c]} : 0U) | (has_odd ? uint32_t{even[stride + c]} << 16 : 0U);
    }
  }
}

MDM_AVX512_BF16 inline __m512bh pairs(__m512i v) { return reinterpret_cast<__m512bh&>(v); }
MDM_AVX512_BF16 inline __m256i rounded(__m512 v) {
  const __m256bh bits = _mm512_cvtneps_pbh(v);
  return reinterpret_cast<const __m256i&>(bits);
}

constexpr float kLog2E = 1.44269504F;

// 2^v for v <= 0 to 5e-5, a hundredth of what bfloat16 rounds; a NaN stays one.
MDM_AVX512_BF16 inline __m512 power_of_two(__m512 v) {
  const __m512 n = _mm512_roundscale_ps(v, 8);
  const __m512 f = _mm512_sub_ps(v, n);
  __m512 p = _mm512_set1_ps(9.6181291e-3F);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1F));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0F));
  return _mm512_scalef_ps(p, n);
}

// Products of kScoreRows rows with kVectors * 16 others, packed by channels, to out + row * stride.
template <int kVectors>
MDM_AVX512_BF16 void score_tile(const uint16_t* const* rows, const uint32_t* others, int64_t half_width, float* out,
                                int64_t stride) {
  __m512 sums[kScoreRows][kVectors];
  // Left to itself GCC 12 clears the sums in memory and copies them twice when they are done.
#pragma GCC unroll 8
  for (int i = 0; i < kScoreRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) sums[i][j] = _mm512_setzero_ps();
  }
  for (int64_t c = 0; c < half_width; ++c) {
    __m512bh other[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) other[j] = pairs(_mm512_loadu_si512(others + (j * half_width + c) * kLane));
#pragma GCC unroll 8
    for (int i = 0; i < kScoreRows; ++i) {
      uint32_t pair;
      __builtin_memcpy(&pair, rows[i] + 2 * c, sizeof pair);
      const __m512bh factor = pairs(_mm512_set1_epi32(static_cast<int>(pair)));
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], factor, other[j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kScoreRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) _mm512_storeu_ps(out + i * stride + j * kLane, sums[i][j]);
  }
}

// The same for `count` rows, a multiple of kScoreRows, and `padded` others; out (count, padded). All rows meet a tile
// of others while it is in the first cache.
inline void scores_of(const uint16_t* const* rows, int64_t count, const uint32_t* others, int64_t padded, int64_t width,
                      float* out) {
  const int64_t half = width / 2;
  for (int64_t j = 0; j < padded; j += 4 * kLane) {
    const uint32_t* from = others + j * half;
    for (int64_t row = 0; row < count; row += kScoreRows) {
      float* to = out + row * padded + j;
      switch (std::min<int64_t>(4, (padded - j) / kLane)) {
        case 1: score_tile<1>(rows + row, from, half, to, padded); break;
        case 2: score_tile<2>(rows + row, from, half, to, padded); break;
        case 3: score_tile<3>(rows + row, from, half, to, padded); break;
        default: score_tile<4>(rows + row, from, half, to, padded);
      }
    }
  }
}

// Pairs of factors: the pair p of row i is at numbers[i * row_stride + p * pair_stride].
struct Factors {
  const uint32_t* numbers;
  int64_t row_stride, pair_stride, pairs;
};

// out[i] (+)= scale[i] * sum over p of factors (i, p) times values, packed by rows, for kRows rows of kVectors * 16
// channels. `scale` nullptr: 1.
template <int kVectors, int kRows>
MDM_AVX512_BF16 void sum_tile(const Factors& factors, const uint32_t* values, const float* scale, bool add,
                              float* out) {
  constexpr int64_t kWidth = kVectors * kLane;
  __m512 sums[kRows][kVectors];
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) sums[i][c] = _mm512_setzero_ps();
  }
  for (int64_t p = 0; p < factors.pairs; ++p) {
    __m512bh value[kVectors];
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) value[c] = pairs(_mm512_loadu_si512(values + p * kWidth + c * kLane));
#pragma GCC unroll 12
    for (int i = 0; i < kRows; ++i) {
      const uint32_t pair = factors.numbers[i * factors.row_stride + p * factors.pair_stride];
      const __m512bh factor = pairs(_mm512_set1_epi32(static_cast<int>(pair)));
#pragma GCC unroll 8
      for (int c = 0; c < kVectors; ++c) sums[i][c] = _mm512_dpbf16_ps(sums[i][c], factor, value[c]);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) {
    const __m512 by = _mm512_set1_ps(scale != nullptr ? scale[i] : 1.0F);
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) {
      float* to = out + i * kWidth + c * kLane;
      _mm512_storeu_ps(to, _mm512_fmadd_ps(sums[i][c], by, add ? _mm512_loadu_ps(to) : _mm512_setzero_ps()));
    }
  }
}

// As many rows at a time as there are registers for their sums; `rows` is a multiple of kStep.
template <int kVectors, int kStep>
void sum_rows(Factors factors, int64_t rows, const uint32_t* values, const float* scale, bool add, float* out) {
  const uint32_t* const first = factors.numbers;
  for (int64_t i = 0; i < rows; i += kStep) {
    factors.numbers = first + i * factors.row_stride;
    sum_tile<kVectors, kStep>(factors, values, scale != nullptr ? scale + i : nullptr, add, out + i * kVectors * kLane);
  }
}

// work(std::integral_constant<int, width / 16>) for a width of 16 to 128.
template <typename Work>
void with_vectors_of(int64_t width, const Work& work) {
  switch (width / kLane) {
    case 1: return work(std::integral_constant<int, 1>());
    case 2: return work(std::integral_constant<int, 2>());
    case 3: return work(std::integral_constant<int, 3>());
    case 4: return work(std::integral_constant<int, 4>());
    case 5: return work(std::integral_constant<int, 5>());
    case 6: return work(std::integral_constant<int, 6>());
    case 7: return work(std::integral_constant<int, 7>());
    default: return work(std::integral_constant<int, 8>());
  }
}

// Rows at a time: divisors of 12 (queries) and of 16 (keys) whose sums, and a row of values, fit 32 registers.
constexpr int query_rows(int vectors) { return vectors <= 2 ? 12 : vectors <= 4 ? 6 : vectors <= 6 ? 4 : 3; }
constexpr int key_rows(int vectors) { return vectors <= 2 ? 8 : vectors <= 6 ? 4 : 2; }

// For a multiple of 12 rows of queries.
inline void sum_over_keys(const Factors& factors, int64_t rows, int64_t width, const uint32_t* values,
                          const float* scale, bool add, float* out) {
  with_vectors_of(width, [&](auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    sum_rows<kVectors, query_rows(kVectors)>(factors, rows, values, scale, add, out);
  });
}

// For a multiple of 16 rows of keys.
inline void sum_over_queries(const Factors& factors, int64_t rows, int64_t width, const uint32_t* values, float* out) {
  with_vectors_of(width, [&](auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    sum_rows<kVectors, key_rows(kVectors)>(factors, rows, values, nullptr, true, out);
  });
}

MDM_AVX512_BF16 inline void round_to(const float* from, uint16_t* to, int64_t count) {
  for (int64_t c = 0; c < count; c += kLane) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + c), rounded(_mm512_loadu_ps(from + c)));
  }
}

}  // namespace mdm::ops::bf16_tiles
