// The backward pass, a head at a time: blocks of queries, whose softmax is computed again from the logarithm of its
// sum. With P the softmax, G the gradient of the result and S = Q K^T:
//   dV = P^T G,  dP = G V^T,  dS = P (dP - sum of P dP over a query's keys) / sqrt(width),  dQ = dS K,  dK = dS^T Q.
#include <ATen/Parallel.h>

#include <cmath>
#include <vector>

#include "ops/attention_bf16_cpu.h"

#if defined(__x86_64__)
#include "ops/attention_bf16_tiles.h"
#endif

namespace mdm::ops {

#if defined(__x86_64__)

namespace {

using namespace bf16_tiles;

constexpr int64_t kQueries = 48;  // of a block: a multiple of 12, and pairs

// A query's scores to its softmax (in place). Gives the sum of softmax times dp.
MDM_AVX512_BF16 float softmax_again(float* scores, const float* dp, const float* bias, int64_t padded, float scale,
                                    float log_sum) {
  const __m512 start = _mm512_set1_ps(log_sum * kLog2E);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t j = 0; j < padded; j += kLane) {
    const __mmask16 counts = _mm512_cmp_ps_mask(_mm512_loadu_ps(bias + j), _mm512_setzero_ps(), _CMP_EQ_OQ);
    const __m512 s = _mm512_fmsub_ps(_mm512_loadu_ps(scores + j), _mm512_set1_ps(scale * kLog2E), start);
    const __m512 p = _mm512_maskz_mov_ps(counts, power_of_two(s));
    _mm512_storeu_ps(scores + j, p);
    sum = _mm512_fmadd_ps(p, _mm512_loadu_ps(dp + j), sum);
  }
  return _mm512_reduce_add_ps(sum);
}

MDM_AVX512_BF16 inline void put_pair(uint32_t* to, __m256i even, __m256i odd) {
  _mm512_storeu_si512(to,
                      _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16)));
}

// Two queries' softmax and dp to pairs (padded) of both queries, of P and dS, and to dS of each (padded).
MDM_AVX512_BF16 void score_gradients(const float* p, const float* dp, const float* mean, int64_t padded, float scale,
                                     uint32_t* p_pairs, uint32_t* ds_pairs, uint16_t* ds) {
  for (int64_t j = 0; j < padded; j += kLane) {
    __m256i p_bits[2], ds_bits[2];
    for (int i = 0; i < 2; ++i) {
      const __m512 value = _mm512_loadu_ps(p + i * padded + j);
      const __m512 slope = _mm512_sub_ps(_mm512_loadu_ps(dp + i * padded + j), _mm512_set1_ps(mean[i]));
      p_bits[i] = rounded(value);
      ds_bits[i] = rounded(_mm512_mul_ps(_mm512_mul_ps(value, slope), _mm512_set1_ps(scale)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(ds + i * padded + j), ds_bits[i]);
    }
    put_pair(p_pairs + j, p_bits[0], p_bits[1]);
    put_pair(ds_pairs + j, ds_bits[0], ds_bits[1]);
  }
}

template <typename T>
std::vector<T> buffer(int64_t count) {
  return std::vector<T>(static_cast<size_t>(count));
}

// One thread's work on its heads.
class HeadBackward {
 public:
  HeadBackward(const HeadShape& a, int64_t padded)
      : a_(a),
        padded_(padded),
        scale_(1.0F / std::sqrt(static_cast<float>(a.width))),
        k_by_channels_(buffer<uint32_t>(padded * a.width / 2)),
        k_by_rows_(k_by_channels_),
        v_by_channels_(k_by_channels_),
        q_by_rows_(buffer<uint32_t>(kQueries * a.width / 2)),
        g_by_rows_(q_by_rows_),
        scores_(buffer<float>(kQueries * padded)),
        dp_(scores_),
        p_pairs_(buffer<uint32_t>(kQueries / 2 * padded)),
        ds_pairs_(p_pairs_),
        ds_(buffer<uint16_t>(kQueries * padded)),
        dq_(buffer<float>(kQueries * a.width)),
        dk_(buffer<float>(padded * a.width)),
        dv_(dk_) {}

  // Pointers to the first rows of a head.
  struct Head {
    const uint16_t *q, *k, *v, *g;
    int64_t q_row, k_row, v_row, g_row;
    const float *bias, *log_sums;
    uint16_t *dq, *dk, *dv;
    int64_t dq_row, dk_row, dv_row;
  };

  void run(const Head& head, bool add_dq) {
    pack_by_channels(head.k, head.k_row, a_.keys, padded_, a_.width, k_by_channels_.data());
    pack_by_rows(head.k, head.k_row, a_.keys, padded_, a_.width, k_by_rows_.data());
    pack_by_channels(head.v, head.v_row, a_.keys, padded_, a_.width, v_by_channels_.data());
    std::fill(dk_.begin(), dk_.end(), 0.0F);
    std::fill(dv_.begin(), dv_.end(), 0.0F);
    for (int64_t start = 0; start < a_.queries; start += kQueries) block(head, start, add_dq);
    for (int64_t i = 0; i < a_.keys; ++i) {
      round_to(dk_.data() + i * a_.width, head.dk + i * head.dk_row, a_.width);
      round_to(dv_.data() + i * a_.width, head.dv + i * head.dv_row, a_.width);
    }
  }

 private:
  void block(const Head& head, int64_t start, bool add_dq) {
    const int64_t count = std::min(kQueries, a_.queries - start), width = a_.width;
    const uint16_t *queries[kQueries], *gradients[kQueries];
    for (int64_t i = 0; i < kQueries; ++i) {  // past the last query, that one again; it will count 0
      const int64_t row = std::min(start + i, a_.queries - 1);
      queries[i] = head.q + row * head.q_row;
      gradients[i] = head.g + row * head.g_row;
    }
    scores_of(queries, kQueries, k_by_channels_.data(), padded_, width, scores_.data());
    scores_of(gradients, kQueries, v_by_channels_.data(), padded_, width, dp_.data());
    for (int64_t i = 0; i < kQueries; i += 2) {
      float mean[2] = {0, 0};
      for (int64_t j = 0; j < 2; ++j) {
        float* const scores = scores_.data() + (i + j) * padded_;
        if (i + j < count) {
          mean[j] = softmax_again(scores, dp_.data() + (i + j) * padded_, head.bias, padded_, scale_,
                                  head.log_sums[start + i + j]);
        } else {
          std::fill_n(scores, padded_, 0.0F);
        }
      }
      score_gradients(scores_.data() + i * padded_, dp_.data() + i * padded_, mean, padded_, scale_,
                      p_pairs_.data() + i / 2 * padded_, ds_pairs_.data() + i / 2 * padded_, ds_.data() + i * padded_);
    }
    for (int64_t i = 0; add_dq && i < count; ++i) {
      const uint16_t* before = head.dq + (start + i) * head.dq_row;
      for (int64_t c = 0; c < width; ++c) {
        const uint32_t bits = uint32_t{before[c]} << 16;
        std::memcpy(&dq_[static_cast<size_t>(i * width + c)], &bits, sizeof bits);
      }
    }
    const Factors by_key{reinterpret_cast<const uint32_t*>(ds_.data()), padded_ / 2, 1, padded_ / 2};
    sum_over_keys(by_key, kQueries, width, k_by_rows_.data(), nullptr, add_dq, dq_.data());
    for (int64_t i = 0; i < count; ++i) {
      round_to(dq_.data() + i * width, head.dq + (start + i) * head.dq_row, width);
    }
    pack_by_rows(queries[0], head.q_row, count, kQueries, width, q_by_rows_.data());
    pack_by_rows(gradients[0], head.g_row, count, kQueries, width, g_by_rows_.data());
    sum_over_queries({ds_pairs_.data(), 1, padded_, kQueries / 2}, padded_, width, q_by_rows_.data(), dk_.data());
    sum_over_queries({p_pairs_.data(), 1, padded_, kQueries / 2}, padded_, width, g_by_rows_.data(), dv_.data());
  }

  const HeadShape& a_;
  int64_t padded_;
  float scale_;
  std::vector<uint32_t> k_by_channels_, k_by_rows_, v_by_channels_, q_by_rows_, g_by_rows_;
  std::vector<float> scores_, dp_;
  std::vector<uint32_t> p_pairs_, ds_pairs_;
  std::vector<uint16_t> ds_;
  std::vector<float> dq_, dk_, dv_;
};

void set_zero(HeadView<uint16_t> view, const HeadShape& a, int64_t b, int64_t h, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) std::fill_n(rows_of(view, b, h) + i * view.row, a.width, uint16_t{0});
}

}  // namespace

void bf16_attention_backward(const HeadShape& a, HeadView<const uint16_t> q, HeadView<const uint16_t> k,
                             HeadView<const uint16_t> v, HeadView<const uint16_t> dout, const float* statistics,
                             HeadView<uint16_t> dq, bool add_dq, HeadView<uint16_t> dk, HeadView<uint16_t> dv) {
  const int64_t padded = padded_to_lane(a.keys);
  const KeyBias bias(a, padded);
  at::parallel_for(0, a.batch * a.heads, 1, [&](int64_t first, int64_t last) {
    HeadBackward work(a, padded);
    for (int64_t i = first; i < last; ++i) {
      const int64_t b = i / a.heads, h = i % a.heads;
      if (!bias.any(b)) {
        if (!add_dq) set_zero(dq, a, b, h, a.queries);
        set_zero(dk, a, b, h, a.keys);
        set_zero(dv, a, b, h, a.keys);
        continue;
      }
      work.run({rows_of(q, b, h), rows_of(k, b, h), rows_of(v, b, h), rows_of(dout, b, h), q.row, k.row, v.row,
                dout.row, bias.of(b), statistics + i * a.queries, rows_of(dq, b, h), rows_of(dk, b, h),
                rows_of(dv, b, h), dq.row, dk.row, dv.row},
               add_dq);
    }
  });
}

#else

void bf16_attention_backward(const HeadShape&, HeadView<const uint16_t>, HeadView<const uint16_t>,
                             HeadView<const uint16_t>, HeadView<const uint16_t>, const float*, HeadView<uint16_t>, bool,
                             HeadView<uint16_t>, HeadView<uint16_t>) {}

#endif

}  // namespace mdm::ops
