// What a user can set about training.
// Field names and defaults are those of the reference (ml_mdm/config.py: get_trainer_parser and
// add_common_arguments).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mdm/config/runtime_config.h"

namespace mdm {

/// How the learning rate goes on after the warm-up.
enum class LrDecay { kConstant, kCosine, kLinear, kInverseSqrt };

struct TrainerConfig {
  bool multinode = true;   ///< read and kept; ranks are global here whatever the number of machines
  int64_t local_rank = 0;  ///< read and kept; the launcher's environment says which rank this is
  bool use_adamw = false;  ///< AdamW instead of Adam
  std::string file_list = "cifar10-32/train.csv";  ///< TSV that lists the training samples or further TSVs
  int64_t log_freq = 100;                          ///< steps between two log lines, >= 1
  int64_t save_freq = 1000;                        ///< steps between two checkpoints, >= 1
  double lr = 0.001;                               ///< peak learning rate, >= 0
  double lr_scaling_factor = 0.8;                  ///< read and kept; the reference never uses it
  double gradient_clip_norm = 2.0;                 ///< gradients are scaled down to this norm; > 0
  int64_t warmup_steps = 5000;                     ///< steps until the learning rate has risen to lr, >= 0
  int64_t num_gradient_accumulations = 1;          ///< batches per optimizer step, >= 1
  double loss_factor = 1.0;                        ///< the loss is multiplied by this
  bool resume_from_ema = false;                    ///< start from the averaged weights when resuming
  int64_t seed = -1;                               ///< seed of the whole run; -1: drawn at random and logged
  std::string output_dir;                          ///< where checkpoints and logs go
  std::string pretrained_vision_file;              ///< checkpoint to start from; empty: fresh weights
  int64_t batch_size = 2;                          ///< samples per process and batch, >= 1
  int64_t num_training_steps = 850000;             ///< steps until training ends, >= 1
  int64_t num_epochs = 20000;                      ///< passes over the data until training ends, >= 1

  // What the reference doesn't have.
  int64_t global_batch_size = 0;  ///< samples per step, over processes and accumulations; 0: batch_size says it
  double bucket_mb = 25;          ///< gradients that are summed over the processes at a time, > 0
  Precision reduce_precision = Precision::kFp32;  ///< arithmetic of these sums
  bool shard_optimizer = false;  ///< each process keeps a part of moments, averages and bf16's float32 weights (ZeRO-1)
  double adam_beta1 = 0.9;       ///< decay of the gradient's average, [0, 1)
  double adam_beta2 = 0.999;     ///< decay of the squared gradient's average, [0, 1)
  double adam_eps = 1e-8;        ///< added to the root of the latter, > 0
  double weight_decay = 0;       ///< AdamW only, >= 0
  LrDecay lr_decay = LrDecay::kConstant;  ///< from the end of the warm-up to num_training_steps
  double lr_end = 0;                      ///< cosine, linear: the last learning rate, as a share of lr, [0, 1]
  double ema_decay = 0.9999;              ///< decay of the averaged weights, [0, 1)
  bool ema_warmup = true;                 ///< min(ema_decay, (1 + n) / (10 + n)) after n steps; false: fixed
  bool gradient_checkpointing = false;    ///< recompute activations in the backward pass, stage by stage
  std::vector<int64_t> gradient_checkpointing_levels;  ///< levels where it is done, 0 the outermost; empty: all
  int64_t keep_last = 3;                               ///< checkpoints that are kept, >= 2
  int64_t keep_every = 0;                   ///< checkpoints of steps that are multiples of this stay; 0: none
  bool write_pth = true;                    ///< also write the reference's vis_model_*.pth with each checkpoint
  bool allow_config_change = false;         ///< resume although settings differ from the checkpoint's
  bool pretrained_ema = true;               ///< pretrained_vision_file: take averaged weights where it has both
  int64_t sample_freq = 0;                  ///< steps between two grids of pictures; 0: none
  std::vector<std::string> sample_prompts;  ///< what these show; empty: captions of the first validation samples
  int64_t sample_steps = 50;                ///< denoising steps of these, >= 1
  double sample_guidance = 3;               ///< guidance scale of these, >= 0
  std::string validation_file_list;         ///< TSV of samples that are kept out of training; empty: none
  int64_t validation_freq = 1000;           ///< steps between two validation losses, >= 1
  int64_t validation_samples = 256;         ///< samples that these take, >= 1
  int64_t eval_freq = 0;                    ///< steps between two scores of drawn pictures; 0: none
  int64_t eval_samples = 256;               ///< pictures that such a score takes, >= 2
  std::string eval_inception;               ///< weights of FID's Inception-v3; empty: no FID
  std::string eval_reference;               ///< what FID compares with: pictures, or statistics (.npz)
  int64_t eval_features = 2048;             ///< of Inception-v3: 64, 192, 768 or 2048
  std::string eval_clip;                    ///< a CLIP's folder or id; empty: no CLIP score
  int64_t max_skipped_steps = 20;           ///< non-finite steps in a row until training goes back, >= 1
};

}  // namespace mdm
