// Parameters, gradients, optimizer moments, averaged weights and bfloat16 copies of a model as slices of a
// few flat buffers. One pass over memory then makes an optimizer step, a part of the buffers is an element
// range, and a checkpoint is slices with names.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mdm/checkpoint/state_dict.h"
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

/// Holds everything that training keeps per parameter. The tensors that it was given become views of its
/// buffers, with the strides that they had (channels_last), so the module that owns them keeps working. They
/// must not be re-allocated afterwards (no set_data, no to(), no grad = {}): check_aliasing() finds that.
/// Files come from the float32 weights, whatever the module computes in.
class ParameterArena {
 public:
  struct Options {
    at::ScalarType compute = at::kFloat;  ///< or kBFloat16: what the module's parameters become
    bool ema = true;                      ///< keep averaged weights
    at::Device device = at::kCPU;
  };

  /// Takes the parameters over with their values, which must be float32. Names are unique (Error).
  ParameterArena(std::vector<ArenaParameter> parameters, const Options& options);
  ~ParameterArena();
  ParameterArena(const ParameterArena&) = delete;
  ParameterArena& operator=(const ParameterArena&) = delete;

  /// Views with names, in the order given to the constructor, each with its parameter's shape and strides.
  /// Writing to weights() or ema() (from a file) needs weights_changed() afterwards.
  std::vector<NamedTensor> weights() const;
  std::vector<NamedTensor> ema() const;  ///< frozen and unused parameters: the weights themselves
  /// Of the trained parameters; names are "exp_avg.NAME" and "exp_avg_sq.NAME".
  std::vector<NamedTensor> moments() const;
  /// Of the trained parameters.
  std::vector<NamedTensor> gradients() const;

  /// Where a parameter lies in flat_gradients(), in elements.
  struct Range {
    int64_t first = 0, count = 0;
  };
  /// The trained parameters as the module has them, and their ranges, in the order of gradients().
  std::vector<at::Tensor> trained_parameters() const;
  std::vector<Range> trained_ranges() const;

  /// All trained parameters' gradients, flat, with padding (always 0): what processes sum up.
  at::Tensor flat_gradients() const;

  /// Puts the float32 weights into the module's parameters (nothing to do when those are the weights).
  void weights_changed();
  /// ema = weights.
  void reset_ema();
  /// weights = ema.
  void weights_from_ema();

  void zero_gradients();
  /// The L2 norm of all gradients together; the same whatever the number of threads.
  double gradient_norm() const;
  /// One step over all trained parameters, the bfloat16 weights included.
  void update(const ops::AdamSettings& settings);

  /// While it lives, the module's parameters are the averaged weights: pointers are swapped, and only
  /// what computes in bfloat16 is rounded anew. Nothing may be trained meanwhile.
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

  /// The L2 norm of all weights together; the same whatever the number of threads.
  double weight_norm() const;

  int64_t trained_numbers() const;  ///< without the padding between slots
  int64_t numbers() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
