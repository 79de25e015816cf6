// Keys lie in blocks of 16: for each pair of channels 16 keys side by side, so that one instruction multiplies a pair
// of a query's channels with those of 16 keys. Values lie in pairs of keys likewise.
#include "ops/attention_bf16_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mdm::ops {

#if defined(__x86_64__)

namespace {

constexpr int64_t kLane = 16;
constexpr int64_t kBlockRows = 12;   // queries that are worked on together
constexpr int64_t kScoreRows = 6;    // of them, in registers while scores are made: 6 x 4 sums
constexpr int64_t kMostKeys = 8192;  // scores of a block stay in the second cache, or near
constexpr float kNever = -std::numeric_limits<float>::infinity();

#define MDM_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

int64_t padded_to_lane(int64_t count) { return (count + kLane - 1) / kLane * kLane; }

// What all queries of one head look at.
struct Keys {
  int64_t count, padded;
  const uint32_t* k;  // (padded / 16, width / 2, 16): pairs of channels
  const uint32_t* v;  // (padded / 2, width): pairs of keys
  const float* bias;  // (padded): 0, or kNever for keys that don't count
};

// rows[i * stride], i < count, each `width` long, to the two layouts; the rest up to `padded` is 0.
void pack_head(const uint16_t* key, int64_t key_stride, const uint16_t* value, int64_t value_stride, int64_t count,
               int64_t padded, int64_t width, uint32_t* k, uint32_t* v) {
  for (int64_t i = 0; i < padded; ++i) {
    uint32_t* to = k + i / kLane * (width / 2) * kLane + i % kLane;
    for (int64_t c = 0; c < width / 2; ++c) {
      uint32_t pair = 0;
      if (i < count) std::memcpy(&pair, key + i * key_stride + 2 * c, sizeof pair);
      to[c * kLane] = pair;
    }
  }
  for (int64_t i = 0; i < padded / 2; ++i) {
    const uint16_t* even = value + 2 * i * value_stride;
    const uint16_t* odd = even + value_stride;
    const bool has_even = 2 * i < count, has_odd = 2 * i + 1 < count;
    for (int64_t c = 0; c < width; ++c) {
      v[i * width + c] = (has_even ? uint32_t{even[c]} : 0U) | (has_odd ? uint32_t{odd[c]} << 16 : 0U);
    }
  }
}

MDM_AVX512_BF16 inline __m512bh pairs(__m512i v) { return reinterpret_cast<__m512bh&>(v); }

// e^v for v <= 0; a NaN stays one.
MDM_AVX512_BF16 inline __m512 exponential_avx512(__m512 v) {
  v = _mm512_max_ps(_mm512_set1_ps(-87.0F), v);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(v, _mm512_set1_ps(1.44269504F)), 8);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375F), v);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4F), r);
  __m512 p = _mm512_set1_ps(8.3334519073e-3F);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1F));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1F));
  p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0F)));
  return _mm512_scalef_ps(p, n);
}

// Scores of kScoreRows queries with kVectors blocks of keys, to scores + row * stride.
template <int kVectors>
MDM_AVX512_BF16 void score_tile(const uint16_t* const* queries, const uint32_t* k, int64_t half_width, float* scores,
                                int64_t stride) {
  __m512 sums[kScoreRows][kVectors];
  for (auto& row : sums) {
    for (__m512& sum : row) sum = _mm512_setzero_ps();
  }
  for (int64_t c = 0; c < half_width; ++c) {
    __m512bh keys[kVectors];
    for (int j = 0; j < kVectors; ++j) keys[j] = pairs(_mm512_loadu_si512(k + (j * half_width + c) * kLane));
    for (int i = 0; i < kScoreRows; ++i) {
      uint32_t pair;
      __builtin_memcpy(&pair, queries[i] + 2 * c, sizeof pair);
      const __m512bh query = pairs(_mm512_set1_epi32(static_cast<int>(pair)));
      for (int j = 0; j < kVectors; ++j) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], query, keys[j]);
    }
  }
  for (int i = 0; i < kScoreRows; ++i) {
    for (int j = 0; j < kVectors; ++j) _mm512_storeu_ps(scores + i * stride + j * kLane, sums[i][j]);
  }
}

// A row of scores to its softmax's numerators in bfloat16; gives 1 / their sum.
MDM_AVX512_BF16 float numerators(const float* scores, const float* bias, int64_t padded, float scale, uint16_t* out) {
  __m512 most = _mm512_set1_ps(kNever);
  for (int64_t j = 0; j < padded; j += kLane) {
    most = _mm512_max_ps(most, _mm512_add_ps(_mm512_loadu_ps(scores + j), _mm512_loadu_ps(bias + j)));
  }
  const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(most)), factor = _mm512_set1_ps(scale);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t j = 0; j < padded; j += kLane) {
    const __m512 b = _mm512_loadu_ps(bias + j);
    const __m512 s = _mm512_sub_ps(_mm512_loadu_ps(scores + j), largest);
    const __m512 e = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(b, _mm512_setzero_ps(), _CMP_EQ_OQ),
                                         exponential_avx512(_mm512_mul_ps(s, factor)));
    const __m256bh rounded = _mm512_cvtneps_pbh(e);
    const __m256i bits = reinterpret_cast<const __m256i&>(rounded);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j), bits);
    sum = _mm512_add_ps(sum, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)));
  }
  return 1.0F / _mm512_reduce_add_ps(sum);
}

// out[i] (+)= inverse[i] * sum of numerators times values, for kRows queries and heads of kVectors * 16 channels.
template <int kVectors, int kRows>
MDM_AVX512_BF16 void value_tile(const uint16_t* numbers, int64_t stride, const uint32_t* v, int64_t padded,
                                const float* inverse, bool add, float* out) {
  constexpr int64_t kWidth = kVectors * kLane;
  __m512 sums[kRows][kVectors];
  for (auto& row : sums) {
    for (__m512& sum : row) sum = _mm512_setzero_ps();
  }
  for (int64_t j = 0; j < padded / 2; ++j) {
    __m512bh values[kVectors];
    for (int c = 0; c < kVectors; ++c) values[c] = pairs(_mm512_loadu_si512(v + j * kWidth + c * kLane));
    for (int i = 0; i < kRows; ++i) {
      uint32_t pair;
      __builtin_memcpy(&pair, numbers + i * stride + 2 * j, sizeof pair);
      const __m512bh p = pairs(_mm512_set1_epi32(static_cast<int>(pair)));
      for (int c = 0; c < kVectors; ++c) sums[i][c] = _mm512_dpbf16_ps(sums[i][c], p, values[c]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    const __m512 factor = _mm512_set1_ps(inverse[i]);
    for (int c = 0; c < kVectors; ++c) {
      float* to = out + i * kWidth + c * kLane;
      const __m512 before = add ? _mm512_loadu_ps(to) : _mm512_setzero_ps();
      _mm512_storeu_ps(to, _mm512_fmadd_ps(sums[i][c], factor, before));
    }
  }
}

template <int kVectors>
void value_rows(const uint16_t* numbers, int64_t stride, const uint32_t* v, int64_t padded, const float* inverse,
                bool add, float* out) {
  // As many rows as there are registers for the sums.
  constexpr int kRows = kVectors <= 2 ? 12 : kVectors <= 4 ? 6 : kVectors <= 6 ? 4 : 3;
  for (int64_t i = 0; i < kBlockRows; i += kRows) {
    value_tile<kVectors, kRows>(numbers + i * stride, stride, v, padded, inverse + i, add, out + i * kVectors * kLane);
  }
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

// kBlockRows queries over one head's keys, to (or onto) buffers.out.
void attend(const uint16_t* const* queries, const Keys& keys, int64_t width, bool add, Buffers& buffers) {
  const int64_t half = width / 2, padded = keys.padded;
  for (int64_t row = 0; row < kBlockRows; row += kScoreRows) {
    float* scores = buffers.scores.data() + row * padded;
    for (int64_t j = 0; j < padded; j += 4 * kLane) {
      const uint32_t* k = keys.k + j * half;
      switch (std::min<int64_t>(4, (padded - j) / kLane)) {
        case 1: score_tile<1>(queries + row, k, half, scores + j, padded); break;
        case 2: score_tile<2>(queries + row, k, half, scores + j, padded); break;
        case 3: score_tile<3>(queries + row, k, half, scores + j, padded); break;
        default: score_tile<4>(queries + row, k, half, scores + j, padded);
      }
    }
  }
  const float scale = 1.0F / std::sqrt(static_cast<float>(width));
  for (int64_t row = 0; row < kBlockRows; ++row) {
    buffers.inverse[static_cast<size_t>(row)] = numerators(buffers.scores.data() + row * padded, keys.bias, padded,
                                                           scale, buffers.numbers.data() + row * padded);
  }
  const auto values = [&](auto rows) {
    rows(buffers.numbers.data(), padded, keys.v, padded, buffers.inverse.data(), add, buffers.out.data());
  };
  switch (width / kLane) {
    case 1: return values(value_rows<1>);
    case 2: return values(value_rows<2>);
    case 3: return values(value_rows<3>);
    case 4: return values(value_rows<4>);
    case 5: return values(value_rows<5>);
    case 6: return values(value_rows<6>);
    case 7: return values(value_rows<7>);
    default: return values(value_rows<8>);
  }
}

MDM_AVX512_BF16 void round_to(const float* from, uint16_t* to, int64_t count) {
  for (int64_t c = 0; c < count; c += kLane) {
    const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(from + c));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + c), reinterpret_cast<const __m256i&>(rounded));
  }
}

// Packed keys and values of all heads, and which of the keys count.
class PackedKeys {
 public:
  PackedKeys(int64_t batch, int64_t heads, int64_t count, int64_t width)
      : heads_(heads),
        count_(count),
        padded_(padded_to_lane(count)),
        half_(padded_ * width / 2),
        numbers_(new uint32_t[static_cast<size_t>(batch * heads * 2 * half_)]),
        bias_(static_cast<size_t>(batch * padded_), kNever) {}

  void show(int64_t picture, const bool* mask) {
    for (int64_t j = 0; j < count_; ++j) {
      if (mask == nullptr || mask[picture * count_ + j]) bias_[static_cast<size_t>(picture * padded_ + j)] = 0;
    }
  }
  bool any(int64_t picture) const {
    const auto first = bias_.begin() + picture * padded_;
    return std::find(first, first + padded_, 0.0F) != first + padded_;
  }
  void pack(int64_t head, const uint16_t* key, int64_t key_stride, const uint16_t* value, int64_t value_stride,
            int64_t width) {
    pack_head(key, key_stride, value, value_stride, count_, padded_, width, k(head), k(head) + half_);
  }
  Keys of(int64_t head) const {
    return {count_, padded_, k(head), k(head) + half_, bias_.data() + head / heads_ * padded_};
  }
  int64_t padded() const { return padded_; }

 private:
  uint32_t* k(int64_t head) const { return numbers_.get() + head * 2 * half_; }

  int64_t heads_, count_, padded_, half_;
  std::unique_ptr<uint32_t[]> numbers_;
  std::vector<float> bias_;
};

}  // namespace

bool bf16_attention_suits(int64_t width, int64_t keys) {
  static const bool instructions = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
                                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                                   !__builtin_cpu_supports("amx-bf16");
  return instructions && width % kLane == 0 && width <= 8 * kLane && keys >= 1 && keys <= kMostKeys;
}

void bf16_attention(const Bf16Attention& a) {
  const int64_t channels = a.heads * a.width, row = 3 * channels, all_heads = a.batch * a.heads;
  PackedKeys own(a.batch, a.heads, a.positions, a.width), text(a.batch, a.heads, a.text_keys, a.width);
  for (int64_t b = 0; b < a.batch; ++b) {
    own.show(b, nullptr);
    text.show(b, a.text_mask);
  }
  at::parallel_for(0, all_heads, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t b = i / a.heads, h = i % a.heads;
      const uint16_t* head = a.qkv + b * a.positions * row + h * a.width;
      own.pack(i, head + channels, row, head + 2 * channels, row, a.width);
      if (a.text_keys == 0) continue;
      text.pack(i, a.text_key + b * a.key_strides[0] + h * a.key_strides[1], a.key_strides[2],
                a.text_value + b * a.value_strides[0] + h * a.value_strides[1], a.value_strides[2], a.width);
    }
  });
  const int64_t blocks = (a.positions + kBlockRows - 1) / kBlockRows;
  at::parallel_for(0, all_heads * blocks, 4, [&](int64_t first, int64_t last) {
    Buffers buffers(std::max(own.padded(), text.padded()), a.width);
    for (int64_t i = first; i < last; ++i) {
      const int64_t head = i / blocks, b = head / a.heads, start = i % blocks * kBlockRows;
      const int64_t offset = head % a.heads * a.width;
      const uint16_t* queries[kBlockRows];
      for (int64_t q = 0; q < kBlockRows; ++q) {  // past the last query, that one again
        const int64_t position = std::min(start + q, a.positions - 1);
        queries[q] = a.qkv + (b * a.positions + position) * row + offset;
      }
      attend(queries, own.of(head), a.width, /*add=*/false, buffers);
      if (a.text_keys > 0 && text.any(b)) attend(queries, text.of(head), a.width, /*add=*/true, buffers);
      for (int64_t q = 0; q < std::min(kBlockRows, a.positions - start); ++q) {
        round_to(buffers.out.data() + q * a.width, a.out + (b * a.positions + start + q) * channels + offset, a.width);
      }
    }
  });
}

#else

bool bf16_attention_suits(int64_t, int64_t) { return false; }
void bf16_attention(const Bf16Attention&) {}

#endif

}  // namespace mdm::ops
