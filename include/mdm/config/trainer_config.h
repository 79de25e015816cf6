// What a user can set about training.
// Field names and defaults are those of the reference (ml_mdm/config.py: get_trainer_parser and
// add_common_arguments).
#pragma once

#include <cstdint>
#include <string>

namespace mdm {

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
};

}  // namespace mdm
