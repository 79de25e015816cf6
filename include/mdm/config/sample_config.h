// What a user can set about making pictures (the program `sample`).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mdm/config/diffusion_config.h"

namespace mdm {

enum class SamplerKind {
  kDdpm,  ///< ancestral sampling with the schedule's own noise
  kDdim,  ///< arXiv 2010.02502 with `ddim_eta`
  // For few steps (20 instead of 250); they change the result, see mdm/diffusion/few_step_samplers.h.
  kEuler,           ///< Euler's method on the probability-flow equation, which is DDIM with eta 0
  kHeun,            ///< Heun's; two calls of the model a step
  kDpmSolver2M,     ///< DPM-Solver++(2M), arXiv 2211.01095
  kDpmSolver2MSde,  ///< its stochastic form, SDE-DPM-Solver++(2M)
  kUniPc,           ///< arXiv 2302.04867, second order
};

/// Which of the N training steps are visited when sampling takes fewer.
enum class TimestepSpacing {
  kReference,  ///< as the reference (samplers.py: evenly from N - 1 downwards); also called "matryoshka"
  kLeading,    ///< 0, r, 2r, ... (arXiv 2305.08891, table 2)
  kTrailing,   ///< N - 1, N - 1 - r, ...
  kLinspace,   ///< from 0 to N - 1, both included
};

/// The names in files and flags, e.g. "ddpm", "reference".
std::string choice_name(SamplerKind kind);
std::string choice_name(TimestepSpacing spacing);

/// What the denoising path is written as.
enum class AnimationKind { kNone, kWebp, kApng };

struct SampleConfig {
  std::string checkpoint;      ///< file of weights; keys model_file, pretrained_vision_file mean the same
  bool allow_partial = false;  ///< load what fits of a file that lacks tensors of the model, or has more
  bool ema = true;             ///< the averaged weights, where a file holds both kinds

  std::vector<std::string> prompts;           ///< key `prompt`; each makes `num_samples` pictures
  std::string prompts_file;                   ///< text file with a prompt a line, or the reference's TSV
  std::vector<std::string> negative_prompts;  ///< key `negative_prompt`; none, one for all, or one per prompt

  double guidance_scale = 7.5;               ///< 1: no guidance; key cfg_weight means the same
  double guidance_rescale = 0;               ///< [0, 1]; arXiv 2305.08891, section 3.4
  double guidance_start = 0;                 ///< guidance acts from this share of the steps on; [0, 1]
  double guidance_end = 1;                   ///< ... until this share; (guidance_start, 1]
  int64_t num_inference_steps = 250;         ///< >= 1
  SamplerKind sampler = SamplerKind::kDdpm;  ///< set to kDdim by loading when only ddim_eta is given
  std::optional<double> ddim_eta;            ///< 0: deterministic, 1: as much noise as DDPM; unset: DDPM. Loading
                                             ///< sets it to 0 when sampler is kDdim and nothing is given
  TimestepSpacing timestep_spacing = TimestepSpacing::kReference;
  std::optional<ThresholdType> threshold;  ///< instead of the config's threshold_function

  std::string init_image;  ///< start from this picture instead of noise
  double strength = 0.8;   ///< with init_image: share of the steps that are run; (0, 1]

  int64_t seed = -1;               ///< picture i uses seed + i; -1: drawn at random and logged
  int64_t num_samples = 1;         ///< pictures per prompt, >= 1
  int64_t batch_size = 4;          ///< pictures denoised at a time, >= 1
  int64_t sample_image_size = -1;  ///< side of the picture in pixels; -1: the model's own

  std::string output_dir = "samples";              ///< key `sample_dir` (the reference's name) or `output_dir`
  bool output_inner = false;                       ///< also write the pictures of the inner levels
  AnimationKind animation = AnimationKind::kNone;  ///< the denoising path as a moving picture
  int64_t animation_every = 1;                     ///< steps between two of its frames, >= 1
  bool grid = true;                                ///< also write all pictures as one
  bool gallery = true;                             ///< also write index.html
  bool metadata = true;                            ///< write the settings into the PNGs
  std::string from_image;                          ///< take prompt and sampling settings from a PNG that `sample` wrote
};

}  // namespace mdm
