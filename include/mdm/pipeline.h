// From a checkpoint and prompts to pictures. The one header that a program needs for that; it pulls in
// nothing of LibTorch.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mdm/config/config.h"
#include "mdm/diffusion/compat.h"
#include "mdm/media/image.h"

namespace mdm {

/// One picture that is wanted. The same request gives the same noise whatever it is batched with.
struct PictureRequest {
  std::string prompt;
  std::string negative_prompt;  ///< what guidance leads away from; used when guidance_scale is not 1
  uint64_t seed = 0;
};

/// One picture that was made.
struct Picture {
  PictureRequest request;
  size_t index = 0;          ///< of the request
  Image image;               ///< RGB, the highest level
  std::vector<Image> inner;  ///< of a nested model, the lower levels, highest first
  Image levels;              ///< all levels in one picture, lowest first; only with SampleConfig::output_inner
};

/// A look at a batch between two steps.
class GenerationStep {
 public:
  virtual ~GenerationStep() = default;
  int64_t step = 0;   ///< steps of this batch that are done, counted from 1
  int64_t steps = 0;  ///< steps that this batch takes
  size_t first = 0;   ///< index of the batch's first request
  size_t count = 0;   ///< pictures in the batch
  /// The predicted picture (x_0), or the noisy one (x_t), of a level (0 = highest) of the batch's picture
  /// `at`; made on demand.
  virtual Image predicted(size_t at, size_t level = 0) const = 0;
  virtual Image noisy(size_t at, size_t level = 0) const = 0;
};

struct GenerationCallbacks {
  std::function<void(const GenerationStep&)> on_step;
  /// Gets each batch as it is finished; when set, generate() returns nothing (pictures need not be kept).
  std::function<void(std::vector<Picture>)> on_pictures;
  const std::atomic<bool>* cancel = nullptr;  ///< looked at before each step; finished batches are kept
};

/// A model that makes pictures. Weights are loaded on first use: the text encoder reads all prompts and is
/// freed before the image model is loaded, so that the two need not fit into memory together
/// (TextConfig::keep_text_encoder keeps it for the next call).
class Pipeline {
 public:
  /// `config.sample.checkpoint` names the weights. The checkpoint's head is read and compared with the
  /// config. Throws CheckpointError (unreadable, other keys or shapes than the config's model; all are
  /// listed), ConfigError (settings that can't work, device that is not there, text model not found).
  explicit Pipeline(Config config, const Compat& compat = {});

  /// With the config inside the checkpoint, below YAML files and overrides.
  static Pipeline from_checkpoint(const std::filesystem::path& checkpoint,
                                  const std::vector<std::filesystem::path>& yaml_files = {},
                                  const Overrides& overrides = {});

  Pipeline(Pipeline&&) noexcept;
  Pipeline& operator=(Pipeline&&) noexcept;
  ~Pipeline();

  const Config& config() const;
  /// Side of the pictures in pixels that `sample` asks for, or the model's own.
  int64_t image_side(const SampleConfig& sample) const;
  size_t levels() const;
  /// Width of the text's features that the checkpoint was trained with; -1 for a model without text.
  int64_t text_width() const;

  /// Makes the pictures, `sample.batch_size` at a time. Only the settings about how pictures are made are
  /// read from `sample`; prompts and seeds are those of the requests. Throws ConfigError for settings out
  /// of range and Error when the run fails.
  std::vector<Picture> generate(const std::vector<PictureRequest>& requests, const SampleConfig& sample,
                                const GenerationCallbacks& callbacks = {});
  std::vector<Picture> generate(const std::vector<PictureRequest>& requests) {
    return generate(requests, config().sample);
  }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
