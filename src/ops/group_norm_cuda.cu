// Sums per channel by blocks over (chunk of positions, picture); statistics per group; then one pass that reads,
// normalises and writes. No atomics: every sum has one order.
#include "ops/group_norm_cuda.h"

#include "mdm/core/error.h"
#include "ops/cuda_language.h"
#include "ops/cuda_sums.h"
#include "ops/group_norm_launch.h"

namespace mdm::ops {
namespace {

constexpr unsigned kThreads = GroupNormLaunch::kThreads;
constexpr unsigned kFoldThreads = 128;
constexpr unsigned kMostBlocks = 8192;

struct Shape {
  int64_t positions, channels;
  int width;  // channels of a group
  int lanes, lanes_of_block, rows, chunk, chunks;
};

// Per picture and channel.
struct Rows {
  float *center, *factor, *offset;
};

template <typename T, int kVector>
struct alignas(kVector * sizeof(T)) Pack {
  T values[kVector];
};

__device__ inline float load(float value) { return value; }
__device__ inline float load(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline void store(float value, float& target) { target = value; }
__device__ inline void store(float value, __nv_bfloat16& target) { target = __float2bfloat16_rn(value); }

template <int kVector, typename T>
__device__ inline Pack<T, kVector> read(const T* x) {
  return *reinterpret_cast<const Pack<T, kVector>*>(x);
}

__device__ inline float sigmoid(float v) { return 1.0F / (1.0F + __expf(-v)); }

// Adds the rows' two sums per channel, in order, and writes them to this block's place in partial (B, chunks, 2, C).
template <int kVector>
__device__ void add_rows(const float (&first)[kVector], const float (&second)[kVector], const Shape& s,
                         float* partial) {
  MDM_DYNAMIC_SHARED(float, shared);  // (rows, 2, channels of the block)
  const int across = s.lanes_of_block * kVector;
  const int lane = threadIdx.x % s.lanes_of_block, row = threadIdx.x / s.lanes_of_block;
  for (int i = 0; i < kVector; ++i) {
    shared[(2 * row) * across + lane * kVector + i] = first[i];
    shared[(2 * row + 1) * across + lane * kVector + i] = second[i];
  }
  __syncthreads();
  const int64_t start = static_cast<int64_t>(blockIdx.z) * across;
  float* out = partial + (static_cast<int64_t>(blockIdx.y) * s.chunks + blockIdx.x) * 2 * s.channels;
  for (int i = threadIdx.x; i < 2 * across; i += blockDim.x) {
    const int which = i / across, c = i % across;
    if (start + c >= s.channels) continue;
    float sum = 0;
    for (int r = 0; r < s.rows; ++r) sum += shared[(2 * r + which) * across + c];
    out[which * s.channels + start + c] = sum;
  }
}

// Sums of x and x^2 less the group's value at its first place, so that a large mean costs no digits.
template <typename T, int kVector>
__global__ void value_sums(const T* x, Shape s, float* partial) {
  const int lane = blockIdx.z * s.lanes_of_block + threadIdx.x % s.lanes_of_block;
  float sum[kVector] = {}, squares[kVector] = {};
  if (lane < s.lanes) {
    const T* picture = x + static_cast<int64_t>(blockIdx.y) * s.positions * s.channels;
    float pivot[kVector];
    for (int i = 0; i < kVector; ++i) pivot[i] = load(picture[(lane * kVector + i) / s.width * s.width]);
    const int64_t first = static_cast<int64_t>(blockIdx.x) * s.chunk;
    const int64_t last = min(first + s.chunk, s.positions);
    for (int64_t p = first + threadIdx.x / s.lanes_of_block; p < last; p += s.rows) {
      const auto pack = read<kVector>(picture + p * s.channels + lane * kVector);
      for (int i = 0; i < kVector; ++i) {
        const float v = load(pack.values[i]) - pivot[i];
        sum[i] += v;
        squares[i] += v * v;
      }
    }
  }
  add_rows<kVector>(sum, squares, s, partial);
}

// What is done to the values of channel c of picture b (group_norm_cpu.cpp, fold_parameters).
__device__ void fold_channel(const GroupNormArguments& a, int64_t b, int64_t c, double mean, double inverse,
                             const Rows& rows) {
  const auto center = static_cast<float>(mean);
  double factor = inverse * a.weight[c];
  double offset = a.bias[c] - (mean - center) * factor;
  if (a.scale != nullptr) {
    const double scale = 1.0 + a.scale[b * a.channels + c];
    factor *= scale;
    offset = offset * scale + a.shift[b * a.channels + c];
  }
  rows.center[b * a.channels + c] = center;
  rows.factor[b * a.channels + c] = static_cast<float>(factor);
  rows.offset[b * a.channels + c] = static_cast<float>(offset);
}

// A block for each (group, picture).
template <typename T>
__global__ void fold_statistics(GroupNormArguments a, const T* x, Shape s, const float* partial, double* statistics,
                                Rows rows) {
  __shared__ double shared[kFoldThreads];
  const int64_t b = blockIdx.y, first = static_cast<int64_t>(blockIdx.x) * s.width;
  double sum = 0, squares = 0;
  for (int i = threadIdx.x; i < s.width * s.chunks; i += kFoldThreads) {
    const float* at = partial + (b * s.chunks + i / s.width) * 2 * s.channels + first + i % s.width;
    sum += at[0];
    squares += at[s.channels];
  }
  sum = block_sum<kFoldThreads>(sum, shared);
  squares = block_sum<kFoldThreads>(squares, shared);
  const double count = static_cast<double>(s.positions) * s.width;
  const double mean = load(x[b * s.positions * s.channels + first]) + sum / count;
  const double variance = max(squares / count - sum / count * (sum / count), 0.0);
  const double inverse = 1.0 / sqrt(variance + a.epsilon);
  if (threadIdx.x == 0) {
    statistics[2 * (b * a.groups + blockIdx.x)] = mean;
    statistics[2 * (b * a.groups + blockIdx.x) + 1] = inverse;
  }
  for (int c = threadIdx.x; c < s.width; c += kFoldThreads) fold_channel(a, b, first + c, mean, inverse, rows);
}

template <typename T, int kVector, bool kSilu>
__global__ void normalise(const T* x, T* y, Shape s, Rows rows) {
  const int64_t picture = static_cast<int64_t>(blockIdx.y) * s.positions * s.channels;
  const int64_t parameters = static_cast<int64_t>(blockIdx.y) * s.channels, count = s.positions * s.lanes;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; k < count; k += stride) {
    const int64_t c = parameters + k % s.lanes * kVector;
    const auto in = read<kVector>(x + picture + k * kVector);
    Pack<T, kVector> out;
    for (int i = 0; i < kVector; ++i) {
      float v = (load(in.values[i]) - rows.center[c + i]) * rows.factor[c + i] + rows.offset[c + i];
      if (kSilu) v *= sigmoid(v);
      store(v, out.values[i]);
    }
    *reinterpret_cast<Pack<T, kVector>*>(y + picture + k * kVector) = out;
  }
}

// The gradient in front of the activation; `normal` is x - center.
template <bool kSilu>
__device__ inline float before_activation(float dy, float normal, float factor, float offset) {
  if (!kSilu) return dy;
  const float v = normal * factor + offset, s = sigmoid(v);
  return dy * s * (1.0F + v * (1.0F - s));
}

// Sums of dv and dv (x - center).
template <typename T, int kVector, bool kSilu>
__global__ void gradient_sums(const T* x, const T* dy, Shape s, Rows rows, float* partial) {
  const int lane = blockIdx.z * s.lanes_of_block + threadIdx.x % s.lanes_of_block;
  float sum[kVector] = {}, products[kVector] = {};
  if (lane < s.lanes) {
    const int64_t picture = static_cast<int64_t>(blockIdx.y) * s.positions * s.channels;
    const int64_t c = static_cast<int64_t>(blockIdx.y) * s.channels + lane * kVector;
    const int64_t first = static_cast<int64_t>(blockIdx.x) * s.chunk;
    const int64_t last = min(first + s.chunk, s.positions);
    for (int64_t p = first + threadIdx.x / s.lanes_of_block; p < last; p += s.rows) {
      const int64_t at = picture + p * s.channels + lane * kVector;
      const auto value = read<kVector>(x + at), gradient = read<kVector>(dy + at);
      for (int i = 0; i < kVector; ++i) {
        const float normal = load(value.values[i]) - rows.center[c + i];
        const float dv =
            before_activation<kSilu>(load(gradient.values[i]), normal, rows.factor[c + i], rows.offset[c + i]);
        sum[i] += dv;
        products[i] += dv * normal;
      }
    }
  }
  add_rows<kVector>(sum, products, s, partial);
}

// dx = dv slope + constant + (x - center) linear, per picture and channel.
struct Pullback {
  float *slope, *constant, *linear;
};

// group_norm_backward_cpu.cpp, fold_gradients: a block for each (group, picture). weight_bias (B, 2, C).
__global__ void fold_gradients(GroupNormArguments a, Shape s, const double* statistics, const float* partial,
                               GroupNormGradients gradients, double* weight_bias, Pullback pull) {
  __shared__ double shared[kFoldThreads];
  const int64_t b = blockIdx.y, first = static_cast<int64_t>(blockIdx.x) * s.width;
  const double mean = statistics[2 * (b * a.groups + blockIdx.x)];
  const double inverse = statistics[2 * (b * a.groups + blockIdx.x) + 1];
  const double residue = static_cast<double>(static_cast<float>(mean)) - mean;  // center - mean
  const double count = static_cast<double>(s.positions) * s.width;
  double mean1 = 0, mean2 = 0;
  for (int i = threadIdx.x; i < s.width; i += kFoldThreads) {
    const int64_t c = first + i;
    double sum1 = 0, sum2 = 0;
    for (int k = 0; k < s.chunks; ++k) {
      const float* at = partial + (b * s.chunks + k) * 2 * s.channels + c;
      sum1 += at[0];
      sum2 += at[s.channels];
    }
    sum2 = (sum2 + residue * sum1) * inverse;
    const double scale = a.scale != nullptr ? 1.0 + a.scale[b * a.channels + c] : 1.0;
    weight_bias[2 * b * s.channels + c] = scale * sum2;
    weight_bias[(2 * b + 1) * s.channels + c] = scale * sum1;
    if (a.scale != nullptr) {
      gradients.scale[b * s.channels + c] = static_cast<float>(a.weight[c] * sum2 + a.bias[c] * sum1);
      gradients.shift[b * s.channels + c] = static_cast<float>(sum1);
    }
    mean1 += a.weight[c] * scale * sum1 / count;
    mean2 += a.weight[c] * scale * sum2 / count;
  }
  mean1 = block_sum<kFoldThreads>(mean1, shared);
  mean2 = block_sum<kFoldThreads>(mean2, shared);
  for (int i = threadIdx.x; i < s.width; i += kFoldThreads) {
    const int64_t c = first + i, at = b * s.channels + c;
    const double scale = a.scale != nullptr ? 1.0 + a.scale[at] : 1.0;
    pull.slope[at] = static_cast<float>(inverse * a.weight[c] * scale);
    pull.linear[at] = static_cast<float>(-inverse * inverse * mean2);
    pull.constant[at] = static_cast<float>(-inverse * mean1 - inverse * inverse * mean2 * residue);
  }
}

__global__ void add_pictures(const double* weight_bias, int64_t batch, int64_t channels, GroupNormGradients gradients) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  double weight = 0, bias = 0;
  for (int64_t b = 0; b < batch; ++b) {
    weight += weight_bias[2 * b * channels + c];
    bias += weight_bias[(2 * b + 1) * channels + c];
  }
  gradients.weight[c] = static_cast<float>(weight);
  gradients.bias[c] = static_cast<float>(bias);
}

template <typename T, int kVector, bool kSilu>
__global__ void input_gradient(const T* x, const T* dy, T* dx, Shape s, Rows rows, Pullback pull) {
  const int64_t picture = static_cast<int64_t>(blockIdx.y) * s.positions * s.channels;
  const int64_t parameters = static_cast<int64_t>(blockIdx.y) * s.channels, count = s.positions * s.lanes;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; k < count; k += stride) {
    const int64_t c = parameters + k % s.lanes * kVector;
    const auto value = read<kVector>(x + picture + k * kVector), gradient = read<kVector>(dy + picture + k * kVector);
    Pack<T, kVector> out;
    for (int i = 0; i < kVector; ++i) {
      const float normal = load(value.values[i]) - rows.center[c + i];
      const float dv =
          before_activation<kSilu>(load(gradient.values[i]), normal, rows.factor[c + i], rows.offset[c + i]);
      store(dv * pull.slope[c + i] + (pull.constant[c + i] + normal * pull.linear[c + i]), out.values[i]);
    }
    *reinterpret_cast<Pack<T, kVector>*>(dx + picture + k * kVector) = out;
  }
}

// Fills the rows again from statistics that were kept.
__global__ void fold_again(GroupNormArguments a, Shape s, const double* statistics, Rows rows) {
  const int64_t b = blockIdx.y, first = static_cast<int64_t>(blockIdx.x) * s.width;
  const double* at = statistics + 2 * (b * a.groups + blockIdx.x);
  for (int c = threadIdx.x; c < s.width; c += kFoldThreads) fold_channel(a, b, first + c, at[0], at[1], rows);
}

int64_t most_vector(GroupNormType type) { return type == GroupNormType::kFloat ? 4 : 8; }

// One call's launches.
class Run {
 public:
  Run(const GroupNormArguments& a, GroupNormType type, float* workspace, CUstream_st* stream)
      : a_(a), launch_(a.positions, a.channels, most_vector(type)), stream_(stream) {
    shape_ = {a.positions,
              a.channels,
              static_cast<int>(a.channels / a.groups),
              static_cast<int>(launch_.lanes),
              static_cast<int>(launch_.lanes_of_block),
              static_cast<int>(launch_.rows),
              static_cast<int>(launch_.chunk),
              static_cast<int>(launch_.chunks)};
    const int64_t row = a.batch * a.channels;
    weight_bias_ = reinterpret_cast<double*>(workspace);  // first, for its alignment: 2 doubles a row
    float* rest = workspace + 4 * row;
    rows_ = {rest, rest + row, rest + 2 * row};
    pull_ = {rest + 3 * row, rest + 4 * row, rest + 5 * row};
    partial_ = rest + 6 * row;
  }

  static int64_t floats(const GroupNormArguments& a, GroupNormType type) {
    const GroupNormLaunch launch(a.positions, a.channels, most_vector(type));
    return a.batch * a.channels * (10 + 2 * launch.chunks);
  }

  template <typename T, int kVector, bool kSilu>
  void forward(const T* x, T* y, double* statistics) const {
    MDM_LAUNCH((value_sums<T, kVector>), sums_grid(), threads(), shared(), stream_, x, shape_, partial_);
    MDM_LAUNCH((fold_statistics), groups_grid(), kFoldThreads, 0, stream_, a_, x, shape_, partial_, statistics, rows_);
    MDM_LAUNCH((normalise<T, kVector, kSilu>), elements_grid(), kThreads, 0, stream_, x, y, shape_, rows_);
  }

  template <typename T, int kVector, bool kSilu>
  void backward(const double* statistics, const T* x, const T* dy, T* dx, const GroupNormGradients& gradients) const {
    MDM_LAUNCH((fold_again), groups_grid(), kFoldThreads, 0, stream_, a_, shape_, statistics, rows_);
    MDM_LAUNCH((gradient_sums<T, kVector, kSilu>), sums_grid(), threads(), shared(), stream_, x, dy, shape_, rows_,
               partial_);
    MDM_LAUNCH((fold_gradients), groups_grid(), kFoldThreads, 0, stream_, a_, shape_, statistics, partial_, gradients,
               weight_bias_, pull_);
    const auto blocks = static_cast<unsigned>((a_.channels + kThreads - 1) / kThreads);
    MDM_LAUNCH((add_pictures), blocks, kThreads, 0, stream_, weight_bias_, a_.batch, a_.channels, gradients);
    MDM_LAUNCH((input_gradient<T, kVector, kSilu>), elements_grid(), kThreads, 0, stream_, x, dy, dx, shape_, rows_,
               pull_);
  }

  bool whole_vectors() const { return launch_.vector > 1; }

 private:
  dim3 sums_grid() const {
    return {static_cast<unsigned>(launch_.chunks), static_cast<unsigned>(a_.batch),
            static_cast<unsigned>(launch_.lane_blocks)};
  }
  dim3 groups_grid() const { return {static_cast<unsigned>(a_.groups), static_cast<unsigned>(a_.batch), 1}; }
  dim3 elements_grid() const {
    const int64_t blocks = (a_.positions * launch_.lanes + kThreads - 1) / kThreads;
    return {static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks), static_cast<unsigned>(a_.batch), 1};
  }
  unsigned threads() const { return static_cast<unsigned>(launch_.threads()); }
  unsigned shared() const { return static_cast<unsigned>(launch_.shared_bytes()); }

  GroupNormArguments a_;
  GroupNormLaunch launch_;
  CUstream_st* stream_;
  Shape shape_{};
  double* weight_bias_;
  Rows rows_{};
  Pullback pull_{};
  float* partial_;
};

// Calls work.operator()<T, kVector, kSilu>() for what the run and the type ask for.
template <typename T, int kVector, typename Work>
void with_silu(bool silu, const Work& work) {
  silu ? work.template operator()<T, kVector, true>() : work.template operator()<T, kVector, false>();
}

template <typename Work>
void with_kind(GroupNormType type, const Run& run, bool silu, const Work& work) {
  if (type == GroupNormType::kFloat) {
    run.whole_vectors() ? with_silu<float, 4>(silu, work) : with_silu<float, 1>(silu, work);
  } else {
    run.whole_vectors() ? with_silu<__nv_bfloat16, 8>(silu, work) : with_silu<__nv_bfloat16, 1>(silu, work);
  }
  const cudaError_t code = cudaGetLastError();
  if (code != cudaSuccess) fail<Error>("GroupNorm on the CUDA device: ", cudaGetErrorString(code));
}

struct Forward {
  const Run& run;
  const void* x;
  void* y;
  double* statistics;
  template <typename T, int kVector, bool kSilu>
  void operator()() const {
    run.forward<T, kVector, kSilu>(static_cast<const T*>(x), static_cast<T*>(y), statistics);
  }
};

struct Backward {
  const Run& run;
  const double* statistics;
  const void *x, *dy;
  void* dx;
  const GroupNormGradients& gradients;
  template <typename T, int kVector, bool kSilu>
  void operator()() const {
    run.backward<T, kVector, kSilu>(statistics, static_cast<const T*>(x), static_cast<const T*>(dy),
                                    static_cast<T*>(dx), gradients);
  }
};

}  // namespace

int64_t group_norm_cuda_workspace(const GroupNormArguments& arguments, GroupNormType type) {
  return Run::floats(arguments, type);
}

void group_norm_cuda(const GroupNormArguments& arguments, GroupNormType type, const void* x, void* y,
                     double* statistics, float* workspace, CUstream_st* stream) {
  const Run run(arguments, type, workspace, stream);
  with_kind(type, run, arguments.silu, Forward{run, x, y, statistics});
}

void group_norm_backward_cuda(const GroupNormArguments& arguments, GroupNormType type, const double* statistics,
                              const void* x, const void* dy, void* dx, const GroupNormGradients& gradients,
                              float* workspace, CUstream_st* stream) {
  const Run run(arguments, type, workspace, stream);
  with_kind(type, run, arguments.silu, Backward{run, statistics, x, dy, dx, gradients});
}

}  // namespace mdm::ops
