// A head at a time, in float32. Sixteen queries lie side by side in a vector while the loop goes over the keys, so that
// softmax and sums need nothing across lanes; the gradients of keys and values are made the other way round, sixteen
// keys side by side. Keys that a mask hides are not read at all.
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

inline MDM_INLINED Lanes at(const float* p) { return *reinterpret_cast<const Lanes*>(p); }
inline MDM_INLINED void put(float* p, const Lanes& v) { *reinterpret_cast<Lanes*>(p) = v; }

constexpr int64_t padded(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// One head in float32. `queries` and `keys` are padded to multiples of kLanes; only the first `visible` keys count.
// "By channel" is (W, queries) or (W, keys), rows are (queries, W) or (keys, W). q is divided by sqrt(W).
struct Head {
  int64_t queries, keys, visible;
  const float *q_by_channel, *k_rows, *v_rows;
  float *largest, *inverse;  // (queries) each: of a query's scores, and 1 / sum of e^(score - largest)
};

struct HeadGradients {
  const float *q_rows, *k_by_channel, *v_by_channel;
  const float *out_rows, *out_by_channel;  // of what was made of the values
  float* mean;                             // (queries): the mean slope of a query's scores
  float *q_by_channel_out, *k_by_channel_out, *v_by_channel_out;
};

// sum over channels of vectors[c * stride ...] * numbers[c]
template <int W>
inline MDM_INLINED Lanes product(const float* vectors, int64_t stride, const float* numbers) {
  Lanes sum = at(vectors) * numbers[0];
  for (int c = 1; c < W; ++c) sum += at(vectors + c * stride) * numbers[c];
  return sum;
}

constexpr int part_of(int width) { return width < 8 ? width : 8; }  // sums that fit into registers

// `room`: visible * kLanes numbers.
template <int W>
inline MDM_INLINED void forward_rows(const Head& head, float* room, float* out_by_channel) {
  constexpr int kPart = part_of(W);
  for (int64_t i = 0; i < head.queries; i += kLanes) {
    Lanes most = Lanes{} - std::numeric_limits<float>::infinity();
    for (int64_t j = 0; j < head.visible; ++j) {
      const Lanes s = product<W>(head.q_by_channel + i, head.queries, head.k_rows + j * W);
      put(room + j * kLanes, s);
      most = s > most ? s : most;
    }
    Lanes total = {};
    for (int64_t j = 0; j < head.visible; ++j) {
      const Lanes p = vector::exponential(at(room + j * kLanes) - most);
      put(room + j * kLanes, p);
      total += p;
    }
    const Lanes inverse = 1.0F / total;
    put(head.largest + i, most);
    put(head.inverse + i, inverse);
    for (int first = 0; first < W; first += kPart) {
      Lanes sums[kPart] = {};
      for (int64_t j = 0; j < head.visible; ++j) {
        const Lanes p = at(room + j * kLanes);
        for (int c = 0; c < kPart; ++c) sums[c] += p * head.v_rows[j * W + first + c];
      }
      for (int c = 0; c < kPart; ++c) put(out_by_channel + (first + c) * head.queries + i, sums[c] * inverse);
    }
  }
}

// dq, and the mean slopes. `room`: 2 * visible * kLanes numbers.
template <int W>
inline MDM_INLINED void backward_queries(const Head& head, const HeadGradients& g, float* room) {
  constexpr int kPart = part_of(W);
  float* slopes = room + head.visible * kLanes;
  for (int64_t i = 0; i < head.queries; i += kLanes) {
    const Lanes most = at(head.largest + i), inverse = at(head.inverse + i);
    Lanes mean = {};
    for (int64_t j = 0; j < head.visible; ++j) {
      const Lanes s = product<W>(head.q_by_channel + i, head.queries, head.k_rows + j * W);
      const Lanes p = vector::exponential(s - most) * inverse;
      const Lanes slope = product<W>(g.out_by_channel + i, head.queries, head.v_rows + j * W);
      put(room + j * kLanes, p);
      put(slopes + j * kLanes, slope);
      mean += p * slope;
    }
    put(g.mean + i, mean);
    for (int first = 0; first < W; first += kPart) {
      Lanes sums[kPart] = {};
      for (int64_t j = 0; j < head.visible; ++j) {
        const Lanes ds = at(room + j * kLanes) * (at(slopes + j * kLanes) - mean);
        for (int c = 0; c < kPart; ++c) sums[c] += ds * head.k_rows[j * W + first + c];
      }
      for (int c = 0; c < kPart; ++c) put(g.q_by_channel_out + (first + c) * head.queries + i, sums[c]);
    }
  }
}

// dk and dv, after backward_queries. `room`: 2 * queries * kLanes numbers.
template <int W>
inline MDM_INLINED void backward_keys(const Head& head, const HeadGradients& g, int64_t queries, float* room) {
  constexpr int kPart = part_of(W);
  float* slopes = room + queries * kLanes;
  for (int64_t j = 0; j < padded(head.visible); j += kLanes) {
    for (int64_t i = 0; i < queries; ++i) {
      const Lanes s = product<W>(g.k_by_channel + j, head.keys, g.q_rows + i * W);
      const Lanes p = vector::exponential(s - head.largest[i]) * head.inverse[i];
      const Lanes slope = product<W>(g.v_by_channel + j, head.keys, g.out_rows + i * W);
      put(room + i * kLanes, p);
      put(slopes + i * kLanes, p * (slope - g.mean[i]));
    }
    for (int first = 0; first < W; first += kPart) {
      Lanes dk[kPart] = {}, dv[kPart] = {};
      for (int64_t i = 0; i < queries; ++i) {
        const Lanes p = at(room + i * kLanes), ds = at(slopes + i * kLanes);
        for (int c = 0; c < kPart; ++c) {
          dv[c] += p * g.out_rows[i * W + first + c];
          dk[c] += ds * g.q_rows[i * W + first + c];
        }
      }
      for (int c = 0; c < kPart; ++c) {
        put(g.k_by_channel_out + (first + c) * head.keys + j, dk[c]);
        put(g.v_by_channel_out + (first + c) * head.keys + j, dv[c]);
      }
    }
  }
}

void forward_head(const Head& head, int64_t width, float* room, float* out) {
  with_vectors([&]() MDM_INLINED {
    switch (width) {
      case 4: forward_rows<4>(head, room, out); break;
      case 8: forward_rows<8>(head, room, out); break;
      case 16: forward_rows<16>(head, room, out); break;
      default: forward_rows<32>(head, room, out); break;
    }
  });
}

template <int W>
inline MDM_INLINED void backward_rows(const Head& head, const HeadGradients& g, int64_t queries, float* room) {
  backward_queries<W>(head, g, room);
  backward_keys<W>(head, g, queries, room);
}

void backward_head(const Head& head, const HeadGradients& g, int64_t queries, int64_t width, float* room) {
  with_vectors([&]() MDM_INLINED {
    switch (width) {
      case 4: backward_rows<4>(head, g, queries, room); break;
      case 8: backward_rows<8>(head, g, queries, room); break;
      case 16: backward_rows<16>(head, g, queries, room); break;
      default: backward_rows<32>(head, g, queries, room); break;
    }
  });
}

// (count) rows -> `by_channel` (width, stride) with zeros behind, and `rows` (count, width); either may be null.
template <typename T>
void read(const T* from, int64_t row, int64_t count, int64_t width, float factor, float* by_channel, int64_t stride,
          float* rows) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < width; ++c) {
      const float value = vector::load(from[i * row + c]) * factor;
      if (rows != nullptr) rows[i * width + c] = value;
      if (by_channel != nullptr) by_channel[c * stride + i] = value;
    }
  }
  for (int64_t c = 0; by_channel != nullptr && c < width; ++c) {
    std::fill(by_channel + c * stride + count, by_channel + (c + 1) * stride, 0.0F);
  }
}

template <typename T>
void write(const float* by_channel, int64_t stride, int64_t count, int64_t width, float factor, bool add, T* to,
           int64_t row) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < width; ++c) {
      T& target = to[i * row + c];
      const float value = by_channel[c * stride + i] * factor;
      vector::store(add ? vector::load(target) + value : value, target);
    }
  }
}

// Keys and values of the positions that a mask shows.
template <typename T>
class VisibleRows {
 public:
  VisibleRows(const HeadShape& a, int64_t b) {
    for (int64_t j = 0; j < a.keys; ++j) {
      if (a.mask == nullptr || a.mask[b * a.keys + j]) places_.push_back(j);
    }
  }
  int64_t count() const { return static_cast<int64_t>(places_.size()); }
  void read_rows(const T* from, int64_t row, int64_t width, float* by_channel, int64_t stride, float* rows) const {
    for (int64_t i = 0; i < count(); ++i) {
      for (int64_t c = 0; c < width; ++c) {
        const float value = vector::load(from[places_[static_cast<size_t>(i)] * row + c]);
        rows[i * width + c] = value;
        if (by_channel != nullptr) by_channel[c * stride + i] = value;
      }
    }
  }
  // The others get zeros.
  template <typename U>
  void write_rows(const float* by_channel, int64_t stride, int64_t keys, int64_t width, U* to, int64_t row) const {
    size_t next = 0;
    for (int64_t j = 0; j < keys; ++j) {
      const bool shown = next < places_.size() && places_[next] == j;
      for (int64_t c = 0; c < width; ++c) {
        vector::store(shown ? by_channel[c * stride + static_cast<int64_t>(next)] : 0.0F, to[j * row + c]);
      }
      next += shown ? 1 : 0;
    }
  }

 private:
  std::vector<int64_t> places_;
};

using Floats = std::vector<float>;

// What one thread needs for one head after the other.
struct Buffers {
  explicit Buffers(const HeadShape& a)
      : queries(padded(a.queries)),
        keys(padded(a.keys)),
        q(static_cast<size_t>(queries * a.width)),
        k(static_cast<size_t>(keys * a.width)),
        v(k.size()),
        out(q.size()),
        room(static_cast<size_t>(2 * std::max(queries, keys) * kLanes)) {}

  int64_t queries, keys;
  Floats q, k, v, out, room;
};

float factor_of(const HeadShape& a) { return 1.0F / std::sqrt(static_cast<float>(a.width)); }

}  // namespace

bool small_attention_suits(int64_t width, int64_t keys) {
  return (width == 4 || width == 8 || width == 16 || width == 32) && keys > 0 && keys <= kMostKeys;
}

int64_t small_attention_statistics(const HeadShape& a) { return 2 * a.batch * a.heads * padded(a.queries); }

template <typename T>
void small_attention(const HeadShape& a, HeadView<const T> q, HeadView<const T> k, HeadView<const T> v, HeadView<T> out,
                     bool add, float* statistics) {
  at::parallel_for(0, a.batch * a.heads, 1, [&](int64_t begin, int64_t end) {
    Buffers buffers(a);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / a.heads, h = i % a.heads;
      const VisibleRows<T> visible(a, b);
      float* largest = statistics + 2 * i * buffers.queries;
      if (visible.count() == 0) {
        std::fill(buffers.out.begin(), buffers.out.end(), 0.0F);
      } else {
        read(rows_of(q, b, h), q.row, a.queries, a.width, factor_of(a), buffers.q.data(), buffers.queries, nullptr);
        visible.read_rows(rows_of(k, b, h), k.row, a.width, nullptr, 0, buffers.k.data());
        visible.read_rows(rows_of(v, b, h), v.row, a.width, nullptr, 0, buffers.v.data());
        const Head head{buffers.queries,  buffers.keys,     visible.count(), buffers.q.data(),
                        buffers.k.data(), buffers.v.data(), largest,         largest + buffers.queries};
        forward_head(head, a.width, buffers.room.data(), buffers.out.data());
      }
      write(buffers.out.data(), buffers.queries, a.queries, a.width, 1.0F, add, rows_of(out, b, h), out.row);
    }
  });
}

template <typename T>
void small_attention_backward(const HeadShape& a, HeadView<const T> q, HeadView<const T> k, HeadView<const T> v,
                              HeadView<const T> dout, const float* statistics, HeadView<T> dq, bool add_dq,
                              HeadView<T> dk, HeadView<T> dv) {
  at::parallel_for(0, a.batch * a.heads, 1, [&](int64_t begin, int64_t end) {
    Buffers buffers(a);
    Floats q_rows(buffers.q.size()), k_by_channel(buffers.k.size()), v_by_channel(buffers.k.size()),
        out_rows(buffers.q.size()), mean(static_cast<size_t>(buffers.queries)), to_q(buffers.q.size()),
        to_k(buffers.k.size()), to_v(buffers.k.size()), stats(2 * mean.size());
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / a.heads, h = i % a.heads;
      const VisibleRows<T> visible(a, b);
      if (visible.count() == 0) {
        std::fill(to_q.begin(), to_q.end(), 0.0F);
      } else {
        read(rows_of(q, b, h), q.row, a.queries, a.width, factor_of(a), buffers.q.data(), buffers.queries,
             q_rows.data());
        read(rows_of(dout, b, h), dout.row, a.queries, a.width, 1.0F, buffers.out.data(), buffers.queries,
             out_rows.data());
        visible.read_rows(rows_of(k, b, h), k.row, a.width, k_by_channel.data(), buffers.keys, buffers.k.data());
        visible.read_rows(rows_of(v, b, h), v.row, a.width, v_by_channel.data(), buffers.keys, buffers.v.data());
        std::copy_n(statistics + 2 * i * buffers.queries, stats.size(), stats.begin());
        const Head head{buffers.queries,  buffers.keys,     visible.count(), buffers.q.data(),
                        buffers.k.data(), buffers.v.data(), stats.data(),    stats.data() + buffers.queries};
        const HeadGradients gradients{q_rows.data(),   k_by_channel.data(), v_by_channel.data(),
                                      out_rows.data(), buffers.out.data(),  mean.data(),
                                      to_q.data(),     to_k.data(),         to_v.data()};
        backward_head(head, gradients, a.queries, a.width, buffers.room.data());
      }
      write(to_q.data(), buffers.queries, a.queries, a.width, factor_of(a), add_dq, rows_of(dq, b, h), dq.row);
      visible.write_rows(to_k.data(), buffers.keys, a.keys, a.width, rows_of(dk, b, h), dk.row);
      visible.write_rows(to_v.data(), buffers.keys, a.keys, a.width, rows_of(dv, b, h), dv.row);
    }
  });
}

template void small_attention(const HeadShape&, HeadView<const float>, HeadView<const float>, HeadView<const float>,
                              HeadView<float>, bool, float*);
template void small_attention(const HeadShape&, HeadView<const uint16_t>, HeadView<const uint16_t>,
                              HeadView<const uint16_t>, HeadView<uint16_t>, bool, float*);
template void small_attention_backward(const HeadShape&, HeadView<const float>, HeadView<const float>,
                                       HeadView<const float>, HeadView<const float>, const float*, HeadView<float>,
                                       bool, HeadView<float>, HeadView<float>);
template void small_attention_backward(const HeadShape&, HeadView<const uint16_t>, HeadView<const uint16_t>,
                                       HeadView<const uint16_t>, HeadView<const uint16_t>, const float*,
                                       HeadView<uint16_t>, bool, HeadView<uint16_t>, HeadView<uint16_t>);

}  // namespace mdm::ops
