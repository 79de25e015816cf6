// What a checkpoint of training holds, to its files and back.
#pragma once

#include <array>
#include <filesystem>
#include <string>

#include "mdm/config/config.h"
#include "mdm/training/parameter_arena.h"
#include "mdm/training/run_directory.h"
#include "mdm/training/sources.h"
#include "mdm/training/training_state.h"

namespace mdm {

// Names of the files that the reference writes: averaged weights, and the weights themselves.
inline constexpr std::array<const char*, 2> kModelFiles = {"vis_model_%06llu.pth", "vis_model_noema_%06llu.pth"};

// e.g. "vis_model_001000.pth".
std::string model_file_name(const char* pattern, uint64_t step);

// Views of the arena, to be written before the next step; or with `copy` tensors of their own in host memory.
CheckpointContent checkpoint_content(const Config& config, const TrainingState& state, const ParameterArena& arena,
                                     const BatchSource& data, int64_t world_size, bool copy);

struct LoadedState {
  TrainingState state;
  std::string data_json;
};
// Fills the arena. CheckpointError when names or shapes differ.
LoadedState load_checkpoint(const SavedCheckpoint& checkpoint, ParameterArena& arena);

// The config that a checkpoint was written with, as config_to_json() wrote it.
std::string config_of_state(const std::string& state_json);
// The seed of the run that wrote it.
uint64_t seed_of_state(const std::string& state_json);

// Both files of the reference, for sampling: {'state_dict', 'text_encoder', batch_num, loss, ..., args}.
void write_model_files(const std::filesystem::path& folder, const Config& config, const TrainingState& state,
                       const CheckpointContent& content, const std::string& text_vocabulary);

}  // namespace mdm
