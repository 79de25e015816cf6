// The models that a worker draws with: opened at the start, loaded on first use, and kept while memory allows.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "mdm/pipeline.h"
#include "serving/job_queue.h"

namespace mdm::serving {

// A model as the command line names it.
struct ModelSpec {
  std::string name;
  std::filesystem::path checkpoint;
  std::vector<std::filesystem::path> configs;  // none: the config inside the checkpoint

  // "NAME=CHECKPOINT[:CONFIG]"; without "NAME=" the file's name without its end is the name. ConfigError.
  static ModelSpec parse(const std::string& text);
};

struct ShelvedModel {
  std::string name;
  std::string checkpoint_name;  // without its folder
  Pipeline pipeline;
  uint64_t used = 0;  // a larger number is later
};

class ModelShelf final : public PictureMaker {
 public:
  // Reads every checkpoint's head. `memory`: bytes that weights of image models may take together; one model is loaded
  // whatever it takes. Throws as Pipeline does, and ConfigError for two models of one name.
  ModelShelf(const std::vector<ModelSpec>& specs, const Overrides& overrides, int64_t memory);

  // Their order is that of the command line. What is const of the pipelines may be used by other threads.
  const std::vector<std::unique_ptr<ShelvedModel>>& models() const { return models_; }
  const ShelvedModel* find(const std::string& name) const;  // null when there is none

  void make(const std::string& model, const std::vector<PictureRequest>& requests, const SampleConfig& sample,
            const GenerationCallbacks& callbacks) override;
  std::string encode(const std::string& model, const Picture& picture, const SampleConfig& sample) override;
  size_t levels(const std::string& model) override { return get(model).pipeline.levels(); }

 private:
  ShelvedModel& get(const std::string& name);
  void make_room_for(const ShelvedModel& wanted);

  std::vector<std::unique_ptr<ShelvedModel>> models_;
  int64_t memory_;
  uint64_t uses_ = 0;
};

}  // namespace mdm::serving
