// Classifier-free guidance: a model and its conditioning as the callback that a sampler needs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "mdm/diffusion/sampler.h"
#include "mdm/models/conditioning.h"
#include "mdm/models/forward_context.h"
#include "mdm/models/graphed_forward.h"
#include "mdm/models/unet.h"

namespace mdm {

struct GuidanceOptions {
  double scale = 1;         ///< unconditional + scale (conditional - unconditional); 1: the conditional alone
  double rescale = 0;       ///< [0, 1]: how far the result gets the conditional prediction's standard deviation
  double start = 0;         ///< share of the steps from which on guidance acts, [0, 1]
  double end = 1;           ///< share of the steps at which it stops, (start, 1]
  double output_scale = 0;  ///< the config's model_output_scale; plain models only, ignored by nested ones
};

/// The conditioning for pictures with guidance. `text` has 2 B rows: B negative prompts, then B prompts;
/// `micros` have B values, which are used for both halves, or 2 B.
Conditioning condition_pairs(const UNet& model, const TextEmbedding* text, const MicroValues& micros, int64_t batch);

/// A model with guidance. Unconditional and conditional rows run as one batch at every level.
/// Rescaling: arXiv 2305.08891, section 3.4. Interval: arXiv 2404.07724; outside it only the conditional
/// half runs.
class GuidedModel {
 public:
  /// `conditioning` has 2 B rows (see condition_pairs), or B rows when scale is 1. The model must outlive
  /// this. ConfigError for options out of range.
  GuidedModel(const UNet& model, Conditioning conditioning, const GuidanceOptions& options,
              const ForwardContext& context = {});

  /// Has the model run through `graphs`, which was made for it, and must outlive the calls of this.
  void run_through(GraphedForward& graphs) { graphs_ = &graphs; }

  /// Says which step comes; needed when guidance acts in an interval only (SamplingRun::before_step).
  void begin_step(const SamplingStep& step);

  /// x_t per level (B, C, H_i, W_i), times (B) -> predictions.
  std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& x_t, const at::Tensor& times);

  /// As a callback, which leaves it to the sampler to join pairs where it can; this must outlive it.
  ModelCallback callback();

  /// What the last guided call was made of; see keep_halves().
  struct Halves {
    int64_t time = -1;                                   ///< of the call
    std::vector<at::Tensor> x_t;                         ///< per level
    std::vector<at::Tensor> unconditional, conditional;  ///< predictions per level; empty when guidance did not act
  };
  /// Has them kept from now on, for someone who looks on.
  void keep_halves() { keeps_halves_ = true; }
  const Halves& halves() const { return halves_; }

 private:
  std::vector<at::Tensor> forward(const std::vector<at::Tensor>& x_t, const at::Tensor& times,
                                  const Conditioning& conditioning) const;
  std::vector<at::Tensor> forward_pairs(const std::vector<at::Tensor>& x_t, const at::Tensor& times);
  const Conditioning& conditional(int64_t batch);

  const UNet* model_;
  GraphedForward* graphs_ = nullptr;
  Conditioning conditioning_, conditional_;
  GuidanceOptions options_;
  ForwardContext context_;
  int64_t rows_ = 0;               // of conditioning_; 0: it has no rows (neither text nor micros)
  int64_t conditional_rows_ = -1;  // for which batch conditional_ was made
  bool active_ = true;
  bool keeps_halves_ = false;
  Halves halves_;
};

}  // namespace mdm
