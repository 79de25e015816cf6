// Parameters, gradients, optimizer moments, averaged weights and bfloat16 copies of a model as slices of a
// few flat buffers. One pass over memory then makes an optimizer step, a part of the buffers is an element
// range, and a checkpoint is slices with names.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mdm/checkpoint/state_dict.h"
#include "mdm/distributed/process_group.h"
#include "mdm/ops/optimizer.h"

namespace mdm {

/// What training does to a parameter.
enum class ArenaSegment {
  kTrained,
  kFrozen,  ///< not to be trained; gradients may flow through it
  kUnused,  ///< part of the model and of its files, but of no forward pass that counts
};

struct ArenaParameter {
  std::string name;  ///< in files
  at::Tensor tensor;
  ArenaSegment segment = ArenaSegment::kTrained;
  bool keep_float = false;  ///< stays float32 when the rest computes in bfloat16 (GroupNorm)
};

/// What a checkpoint keeps of an arena.
enum class ArenaPart { kWeights, kEma, kMoments };

/// Holds everything that training keeps per parameter. The tensors that it was given become views of its
/// buffers, with the strides that they had (channels_last), so the module that owns them keeps working. They
/// must not be re-allocated afterwards (no set_data, no to(), no grad = {}): check_aliasing() finds that.
/// Files come from the float32 weights, whatever the module computes in.
///
/// It can be divided among processes (ZeRO stage 1, arXiv 1910.02054): each keeps all of what the module computes with
/// and of the gradients, but of the rest (moments, averaged weights, and float32 weights of what computes in bfloat16)
/// only its part, updates that, and gets the others' results. Functions marked (all) are then collectives.
class ParameterArena {
 public:
  struct Options {
    at::ScalarType compute = at::kFloat;  ///< or kBFloat16: what the module's parameters become
    bool ema = true;                      ///< keep averaged weights
    at::Device device = at::kCPU;
    int64_t bucket_numbers = 6'250'000;    ///< largest of buckets(), but for rounding
    ProcessGroup* divided_over = nullptr;  ///< null, or a group of one: not divided. Outlives the arena
  };

  /// Takes the parameters over with their values, which must be float32, and the same in all processes. Names are
  /// unique (Error).
  ParameterArena(std::vector<ArenaParameter> parameters, const Options& options);
  ~ParameterArena();
  ParameterArena(const ParameterArena&) = delete;
  ParameterArena& operator=(const ParameterArena&) = delete;

  bool divided() const;

  /// Views with names, in the order given to the constructor, each with its parameter's shape and strides. Of a
  /// divided arena (all): copies in host memory on rank 0, and nothing elsewhere.
  std::vector<NamedTensor> weights() const;
  std::vector<NamedTensor> ema() const;  ///< frozen and unused parameters: the weights themselves
  /// Of the trained parameters; names are "exp_avg.NAME" and "exp_avg_sq.NAME".
  std::vector<NamedTensor> moments() const;

  /// `fill` puts values into all the tensors that it gets: named as above, with what they have to hold afterwards in
  /// all processes. Moments and averages first: where nothing is averaged, ema() shows the weights.
  void write(ArenaPart part, const std::function<void(const std::vector<NamedTensor>&)>& fill);
  /// After writing to the views that weights() gives: puts them into the module's parameters. Not of a divided arena.
  void weights_changed();

  /// Of the trained parameters.
  std::vector<NamedTensor> gradients() const;

  /// Where a parameter lies in flat_gradients(), in elements.
  struct Range {
    int64_t first = 0, count = 0;
  };
  /// The trained parameters as the module has them, and their ranges, in the order of gradients().
  std::vector<at::Tensor> trained_parameters() const;
  std::vector<Range> trained_ranges() const;

  /// All trained parameters' gradients, flat, with padding (always 0): what processes sum up. When divided, only the
  /// sums in own_part() of each bucket count.
  at::Tensor flat_gradients() const;
  /// Consecutive ranges that together are flat_gradients(): what is sent at a time.
  const std::vector<Range>& buckets() const;
  /// What this process updates of a bucket: all, or the part that its rank has among equal ones.
  Range own_part(const Range& bucket) const;

  /// ema = weights.
  void reset_ema();
  /// weights = ema (all).
  void weights_from_ema();

  void zero_gradients();
  /// (1) float64 on the arena's device: the sum of the squares of all gradients (all); the same whatever the number of
  /// threads. On a GPU nothing waits for it.
  at::Tensor gradient_squares() const;
  /// One step over all trained parameters, the bfloat16 weights included (all). With `clip`: see ops::adamw_ema_step.
  void update(const ops::AdamSettings& settings, const ops::DeviceClip* clip = nullptr);

  /// While it lives, the module's parameters are the averaged weights: pointers are swapped, and only
  /// what computes in bfloat16 is rounded anew. Nothing may be trained meanwhile. The constructor: (all); a divided
  /// arena then needs room for a second copy of what the module computes with, and Error is thrown in all processes
  /// when one of them has none.
  class UseEma {
   public:
    explicit UseEma(ParameterArena& arena);
    ~UseEma();
    UseEma(const UseEma&) = delete;
    UseEma& operator=(const UseEma&) = delete;

   private:
    ParameterArena& arena_;
  };

  /// Throws Error naming a parameter whose values or gradient no longer lie in the buffers.
  void check_aliasing() const;

  /// The L2 norm of all that the module computes with; the same whatever the number of threads and processes.
  double weight_norm() const;

  /// What the buffers of this process take up.
  struct Bytes {
    uint64_t weights = 0;  ///< float32, and bfloat16 copies
    uint64_t gradients = 0, moments = 0, ema = 0;
    uint64_t all() const { return weights + gradients + moments + ema; }
  };
  Bytes bytes() const;

  int64_t trained_numbers() const;  ///< without the padding between slots
  int64_t numbers() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
