#include "training/checkpoint_writer.h"

#include <chrono>
#include <filesystem>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "training/checkpoint_content.h"

namespace mdm {

CheckpointWriter::CheckpointWriter(const Config& config, RunDirectory* run, std::string text_vocabulary)
    : config_(config), run_(run), text_vocabulary_(std::move(text_vocabulary)) {
  if (run_ == nullptr || !config_.trainer.write_pth) return;
  for (const char* pattern : kModelFiles) run_->add_companion(pattern);
}

CheckpointWriter::~CheckpointWriter() { wait_and_report(); }

bool CheckpointWriter::has_all_of(uint64_t step) const {
  if (run_ == nullptr) return true;
  return checkpoint_step_ == step && (models_step_ == step || !config_.trainer.write_pth);
}

void CheckpointWriter::save(CheckpointContent content, const TrainingState& state, bool background) {
  wait_and_report();
  if (has_all_of(state.step)) return;
  if (!background) return write(content, state);
  auto kept = std::make_shared<const CheckpointContent>(std::move(content));
  background_ = std::async(std::launch::async, [this, kept, state] { write(*kept, state); });
}

// The checkpoint is what training goes on from, so that trouble with the model files must not look like its own.
void CheckpointWriter::write(const CheckpointContent& content, const TrainingState& state) {
  if (checkpoint_step_ != content.step) {
    checkpoint_step_.reset();
    run_->save(content);
    checkpoint_step_ = content.step;
  }
  if (!config_.trainer.write_pth) return;
  try {
    write_model_files(run_->folder(), config_, state, content, text_vocabulary_);
    models_step_ = content.step;
    missing_models_.clear();
  } catch (const std::exception& error) {
    missing_models_ = error.what();
    log_error("the checkpoint of step ", content.step, " is saved, but not its model files: ", error.what());
  }
}

void CheckpointWriter::wait() {
  if (background_.valid()) background_.get();
}

void CheckpointWriter::wait_and_report() {
  try {
    wait();
  } catch (const std::exception& error) {
    log_error("a checkpoint could not be written: ", error.what(), ". Training goes on");
  }
}

void CheckpointWriter::report() {
  if (background_.valid() && background_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) {
    wait_and_report();
  }
}

void CheckpointWriter::found(uint64_t step) {
  checkpoint_step_ = step;
  models_step_ = step;
  if (run_ == nullptr) return;
  std::error_code absent;
  for (const char* pattern : kModelFiles) {
    if (!std::filesystem::exists(run_->folder() / model_file_name(pattern, step), absent)) models_step_.reset();
  }
}

}  // namespace mdm
