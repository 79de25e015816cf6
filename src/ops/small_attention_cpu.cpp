// A head at a time: its numbers are brought into float32, keys and values by channel so that 16 keys lie side
// by side; then row by row of the queries. The backward pass computes a row's softmax again.
#include "ops/small_attention_cpu.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/vector_math.h"

// Vectors are returned by functions that are always inlined, so that no calling convention is involved.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace mdm::ops {
namespace {

constexpr int64_t kMostKeys = 4096;  // the buffers of a head stay in the second cache
using vector::kLanes;
using vector::Lanes;
typedef int32_t Words __attribute__((vector_size(kLanes * sizeof(int32_t)), aligned(4), may_alias));

inline __attribute__((always_inline)) Lanes at(const float* p) { return *reinterpret_cast<const Lanes*>(p); }
inline __attribute__((always_inline)) void put(float* p, const Lanes& v) { *reinterpret_cast<Lanes*>(p) = v; }

inline __attribute__((always_inline)) float sum_of(const Lanes& v) {
  float sums[kLanes];
  put(sums, v);
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  return sums[0];
}

// e^v for v <= 0, as vector::exponential.
inline __attribute__((always_inline)) Lanes exponential_of(Lanes v) {
  v = v < -87.0F ? Lanes{} - 87.0F : v;
  const Lanes shifted = v * 1.44269504F + 12582912.0F;
  const Lanes n = shifted - 12582912.0F;
  const Lanes r = (v - n * 0.693359375F) - n * -2.12194440e-4F;
  Lanes p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const Words power = (reinterpret_cast<const Words&>(shifted) + 127) << 23;
  return p * reinterpret_cast<const Lanes&>(power);
}

// One head in float32. `keys` is padded to a multiple of kLanes; `bias` is 0, or -infinity where a query may
// not look.
struct Head {
  int64_t queries, keys;
  const float *q, *k, *v, *bias;  // (queries, W) already divided by sqrt(W), (W, keys), (W, keys), (keys)
  float* scores;                  // (keys) room for a row
};

// A row's scores, and the largest of them.
template <int W>
inline __attribute__((always_inline)) float score_row(const Head& head, const float* q) {
  Lanes most = Lanes{} - std::numeric_limits<float>::infinity();
  for (int64_t j = 0; j < head.keys; j += kLanes) {
    Lanes s = at(head.bias + j);
    for (int c = 0; c < W; ++c) s += at(head.k + c * head.keys + j) * q[c];
    put(head.scores + j, s);
    most = s > most ? s : most;
  }
  float values[kLanes];
  put(values, most);
  return *std::max_element(values, values + kLanes);
}

template <int W>
inline __attribute__((always_inline)) void forward_rows(const Head& head, float* out) {
  constexpr int kPart = W < 16 ? W : 16;  // sums that fit into registers
  for (int64_t i = 0; i < head.queries; ++i) {
    const float most = score_row<W>(head, head.q + i * W);
    Lanes total = {};
    for (int64_t j = 0; j < head.keys; j += kLanes) {
      const Lanes p = exponential_of(at(head.scores + j) - most);
      put(head.scores + j, p);
      total += p;
    }
    const float inverse = 1.0F / sum_of(total);
    for (int first = 0; first < W; first += kPart) {
      Lanes sums[kPart] = {};
      for (int64_t j = 0; j < head.keys; j += kLanes) {
        const Lanes p = at(head.scores + j);
        for (int c = 0; c < kPart; ++c) sums[c] += p * at(head.v + (first + c) * head.keys + j);
      }
      for (int c = 0; c < kPart; ++c) out[i * W + first + c] = sum_of(sums[c]) * inverse;
    }
  }
}

// `slopes`: (keys) room for a row; dk and dv like k and v, added to.
template <int W>
inline __attribute__((always_inline)) void backward_rows(const Head& head, const float* dout, float* slopes, float* dq,
                                                         float* dk, float* dv) {
  constexpr int kPart = W < 8 ? W : 8;
  for (int64_t i = 0; i < head.queries; ++i) {
    const float* q = head.q + i * W;
    const float* gradient = dout + i * W;
    const float most = score_row<W>(head, q);
    Lanes total = {}, weighted = {};
    for (int64_t j = 0; j < head.keys; j += kLanes) {
      const Lanes p = exponential_of(at(head.scores + j) - most);
      Lanes slope = {};
      for (int c = 0; c < W; ++c) slope += at(head.v + c * head.keys + j) * gradient[c];
      put(head.scores + j, p);
      put(slopes + j, slope);
      total += p;
      weighted += p * slope;
    }
    const float inverse = 1.0F / sum_of(total), mean = sum_of(weighted) * inverse;
    for (int first = 0; first < W; first += kPart) {
      Lanes sums[kPart] = {};
      for (int64_t j = 0; j < head.keys; j += kLanes) {
        const Lanes p = at(head.scores + j) * inverse;
        const Lanes ds = p * (at(slopes + j) - mean);
        for (int c = 0; c < kPart; ++c) {
          const int64_t place = (first + c) * head.keys + j;
          put(dv + place, at(dv + place) + p * gradient[first + c]);
          put(dk + place, at(dk + place) + ds * q[first + c]);
          sums[c] += ds * at(head.k + place);
        }
      }
      for (int c = 0; c < kPart; ++c) dq[i * W + first + c] = sum_of(sums[c]);
    }
  }
}

MDM_VECTOR_CLONES void forward_head(const Head& head, int64_t width, float* out) {
  switch (width) {
    case 4: forward_rows<4>(head, out); break;
    case 8: forward_rows<8>(head, out); break;
    case 16: forward_rows<16>(head, out); break;
    default: forward_rows<32>(head, out); break;
  }
}

MDM_VECTOR_CLONES void backward_head(const Head& head, int64_t width, const float* dout, float* slopes, float* dq,
                                     float* dk, float* dv) {
  switch (width) {
    case 4: backward_rows<4>(head, dout, slopes, dq, dk, dv); break;
    case 8: backward_rows<8>(head, dout, slopes, dq, dk, dv); break;
    case 16: backward_rows<16>(head, dout, slopes, dq, dk, dv); break;
    default: backward_rows<32>(head, dout, slopes, dq, dk, dv); break;
  }
}

// Where a head's rows begin.
template <typename T>
T* rows_of(const HeadView<T>& view, int64_t b, int64_t h) {
  return view.data + b * view.batch + h * view.head;
}

template <typename T>
void read_rows(const T* from, int64_t row, int64_t count, int64_t width, float factor, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < width; ++c) to[i * width + c] = vector::load(from[i * row + c]) * factor;
  }
}

template <typename T>
void read_by_channel(const T* from, int64_t row, int64_t count, int64_t width, int64_t padded, float* to) {
  for (int64_t c = 0; c < width; ++c) {
    for (int64_t i = 0; i < count; ++i) to[c * padded + i] = vector::load(from[i * row + c]);
    std::fill(to + c * padded + count, to + (c + 1) * padded, 0.0F);
  }
}

template <typename T>
void write_rows(const float* from, int64_t count, int64_t width, float factor, bool add, T* to, int64_t row) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < width; ++c) {
      T& target = to[i * row + c];
      const float value = from[i * width + c] * factor;
      vector::store(add ? vector::load(target) + value : value, target);
    }
  }
}

template <typename T>
void write_by_channel(const float* from, int64_t count, int64_t width, int64_t padded, T* to, int64_t row) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < width; ++c) vector::store(from[c * padded + i], to[i * row + c]);
  }
}

// The float32 numbers of one head after the other, in buffers of one thread.
class HeadReader {
 public:
  explicit HeadReader(const SmallAttention& a)
      : a_(a),
        padded_((a.keys + kLanes - 1) / kLanes * kLanes),
        q_(static_cast<size_t>(a.queries * a.width)),
        k_(static_cast<size_t>(padded_ * a.width)),
        v_(k_.size()),
        bias_(static_cast<size_t>(padded_)),
        scores_(bias_.size()) {}

  int64_t padded() const { return padded_; }
  float factor() const { return 1.0F / std::sqrt(static_cast<float>(a_.width)); }

  template <typename T>
  Head read(int64_t b, int64_t h, const HeadView<const T>& q, const HeadView<const T>& k, const HeadView<const T>& v) {
    read_rows(rows_of(q, b, h), q.row, a_.queries, a_.width, factor(), q_.data());
    read_by_channel(rows_of(k, b, h), k.row, a_.keys, a_.width, padded_, k_.data());
    read_by_channel(rows_of(v, b, h), v.row, a_.keys, a_.width, padded_, v_.data());
    for (int64_t j = 0; j < padded_; ++j) {
      const bool visible = j < a_.keys && (a_.mask == nullptr || a_.mask[b * a_.keys + j]);
      bias_[static_cast<size_t>(j)] = visible ? 0.0F : -std::numeric_limits<float>::infinity();
    }
    return {a_.queries, padded_, q_.data(), k_.data(), v_.data(), bias_.data(), scores_.data()};
  }

 private:
  const SmallAttention& a_;
  int64_t padded_;
  std::vector<float> q_, k_, v_, bias_, scores_;
};

bool sees_nothing(const SmallAttention& a, int64_t b) {
  return a.mask != nullptr && std::none_of(a.mask + b * a.keys, a.mask + (b + 1) * a.keys, [](bool m) { return m; });
}

}  // namespace

bool small_attention_suits(int64_t width, int64_t keys) {
  return (width == 4 || width == 8 || width == 16 || width == 32) && keys > 0 && keys <= kMostKeys;
}

template <typename T>
void small_attention(const SmallAttention& a, HeadView<const T> q, HeadView<const T> k, HeadView<const T> v,
                     HeadView<T> out, bool add) {
  at::parallel_for(0, a.batch * a.heads, 1, [&](int64_t begin, int64_t end) {
    HeadReader reader(a);
    std::vector<float> result(static_cast<size_t>(a.queries * a.width));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / a.heads, h = i % a.heads;
      if (sees_nothing(a, b)) {
        std::fill(result.begin(), result.end(), 0.0F);
      } else {
        forward_head(reader.read(b, h, q, k, v), a.width, result.data());
      }
      write_rows(result.data(), a.queries, a.width, 1.0F, add, rows_of(out, b, h), out.row);
    }
  });
}

template <typename T>
void small_attention_backward(const SmallAttention& a, HeadView<const T> q, HeadView<const T> k, HeadView<const T> v,
                              HeadView<const T> dout, HeadView<T> dq, bool add_dq, HeadView<T> dk, HeadView<T> dv) {
  at::parallel_for(0, a.batch * a.heads, 1, [&](int64_t begin, int64_t end) {
    HeadReader reader(a);
    const int64_t padded = reader.padded();
    std::vector<float> gradient(static_cast<size_t>(a.queries * a.width)), to_q(gradient.size()),
        to_k(static_cast<size_t>(padded * a.width)), to_v(to_k.size()), slopes(static_cast<size_t>(padded));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / a.heads, h = i % a.heads;
      std::fill(to_q.begin(), to_q.end(), 0.0F);
      std::fill(to_k.begin(), to_k.end(), 0.0F);
      std::fill(to_v.begin(), to_v.end(), 0.0F);
      if (!sees_nothing(a, b)) {
        const Head head = reader.read(b, h, q, k, v);
        read_rows(rows_of(dout, b, h), dout.row, a.queries, a.width, 1.0F, gradient.data());
        backward_head(head, a.width, gradient.data(), slopes.data(), to_q.data(), to_k.data(), to_v.data());
      }
      write_rows(to_q.data(), a.queries, a.width, reader.factor(), add_dq, rows_of(dq, b, h), dq.row);
      write_by_channel(to_k.data(), a.keys, a.width, padded, rows_of(dk, b, h), dk.row);
      write_by_channel(to_v.data(), a.keys, a.width, padded, rows_of(dv, b, h), dv.row);
    }
  });
}

template void small_attention(const SmallAttention&, HeadView<const float>, HeadView<const float>,
                              HeadView<const float>, HeadView<float>, bool);
template void small_attention(const SmallAttention&, HeadView<const uint16_t>, HeadView<const uint16_t>,
                              HeadView<const uint16_t>, HeadView<uint16_t>, bool);
template void small_attention_backward(const SmallAttention&, HeadView<const float>, HeadView<const float>,
                                       HeadView<const float>, HeadView<const float>, HeadView<float>, bool,
                                       HeadView<float>, HeadView<float>);
template void small_attention_backward(const SmallAttention&, HeadView<const uint16_t>, HeadView<const uint16_t>,
                                       HeadView<const uint16_t>, HeadView<const uint16_t>, HeadView<uint16_t>, bool,
                                       HeadView<uint16_t>, HeadView<uint16_t>);

}  // namespace mdm::ops
