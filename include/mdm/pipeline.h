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
#include "mdm/text/prompt_tokens.h"

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

/// How a cross-attention layer of the model looks at the prompt of one picture: the mean over its heads.
struct AttentionMap {
  std::string layer;  ///< "0.down_blocks.1.attn.0", as Probe (models/forward_context.h) names it
  size_t level = 0;   ///< 0 = highest
  int64_t height = 0, width = 0, tokens = 0;  ///< tokens: of the prompt and of its padding that is attended to
  std::vector<float> weights;  ///< (tokens, height, width): shares in [0, 1] that sum to 1 over the tokens of a place
};

/// How long a part of the model took in one call.
struct BlockTime {
  std::string block;  ///< "<level>.<block>", as Probe names it
  double seconds = 0;
};

/// Classifier-free guidance is made of two predictions.
enum class GuidanceHalf { kUnconditional, kConditional };

/// A look at a batch between two steps.
class GenerationStep {
 public:
  virtual ~GenerationStep() = default;
  int64_t step = 0;   ///< steps of this batch that are done, counted from 1
  int64_t steps = 0;  ///< steps that this batch takes
  size_t first = 0;   ///< index of the batch's first request
  size_t count = 0;   ///< pictures in the batch
  int64_t time = 0;   ///< diffusion time that the step began at, 0 .. N - 1; falls to 0
  /// The predicted picture (x_0), or the noisy one (x_t), of a level (0 = highest) of the batch's picture
  /// `at`; made on demand.
  virtual Image predicted(size_t at, size_t level = 0) const = 0;
  virtual Image noisy(size_t at, size_t level = 0) const = 0;

  // With GenerationCallbacks::look_inside only; of the step's last call of the model.
  /// x_0 as one half of guidance alone predicts it; an empty image in a step without guidance.
  virtual Image predicted_by(GuidanceHalf half, size_t at, size_t level = 0) const = 0;
  /// One map per cross-attention layer, in the order in which they run; none for a model without text.
  virtual std::vector<AttentionMap> attention(size_t at) const = 0;
  /// The blocks in the order in which they ran. On a GPU, where calls return before the work is done, the times say
  /// little.
  virtual std::vector<BlockTime> block_times() const = 0;
};

struct GenerationCallbacks {
  std::function<void(const GenerationStep&)> on_step;
  /// Gets each batch as it is finished; when set, generate() returns nothing (pictures need not be kept).
  std::function<void(std::vector<Picture>)> on_pictures;
  const std::atomic<bool>* cancel = nullptr;  ///< looked at before each step; finished batches are kept
  /// Keeps what GenerationStep shows of the model's inside; takes some time. Pictures are the same.
  bool look_inside = false;
};

/// A part of the network and what it holds.
struct ModelPart {
  std::string name, type;  ///< "conv_in", "Conv2d"
  int64_t parameters = 0;  ///< of this part and those inside
  std::vector<ModelPart> parts;
};

/// Text encoders that several pipelines use together: those of equal settings have one. Not for use by several threads
/// at a time.
class SharedTextEncoders;
std::shared_ptr<SharedTextEncoders> share_text_encoders();

/// A model that makes pictures. Weights are loaded on first use: the text encoder reads all prompts and is
/// freed before the image model is loaded, so that the two need not fit into memory together
/// (TextConfig::keep_text_encoder keeps it for the next call).
class Pipeline {
 public:
  /// `config.sample.checkpoint` names the weights. The checkpoint's head is read and compared with the
  /// config. Throws CheckpointError (unreadable, other keys or shapes than the config's model; all are
  /// listed), ConfigError (settings that can't work, device that is not there, text model not found).
  /// `shared`: where the text encoder comes from; null: one of its own.
  explicit Pipeline(Config config, const Compat& compat = {}, std::shared_ptr<SharedTextEncoders> shared = nullptr);

  /// With the config inside the checkpoint, below YAML files and overrides.
  static Pipeline from_checkpoint(const std::filesystem::path& checkpoint,
                                  const std::vector<std::filesystem::path>& yaml_files = {},
                                  const Overrides& overrides = {},
                                  std::shared_ptr<SharedTextEncoders> shared = nullptr);

  Pipeline(Pipeline&&) noexcept;
  Pipeline& operator=(Pipeline&&) noexcept;
  ~Pipeline();

  const Config& config() const;
  /// Side of the pictures in pixels that `sample` asks for, or the model's own.
  int64_t image_side(const SampleConfig& sample) const;
  size_t levels() const;
  /// Width of the text's features that the checkpoint was trained with; -1 for a model without text.
  int64_t text_width() const;
  /// The signal levels gamma_0 .. gamma_N of a level (0 = highest), see Schedule::gammas.
  const std::vector<float>& gammas(size_t level) const;
  /// How many times smaller than the highest level's pictures those of a level are.
  int64_t shrinkage(size_t level) const;
  const ModelPart& structure() const;
  /// How the text encoder cuts a prompt; no tokens for a model without text or with other text than captions. May be
  /// called while generate() runs in another thread, as may all const functions above.
  PromptTokens tokens(const std::string& prompt) const;

  /// Whether the model's weights are in memory.
  bool loaded() const;
  /// Bytes that the weights of the image model take, or will take, in memory.
  int64_t weight_bytes() const;
  /// Frees the model; the next generate() loads it again. The text encoder stays with TextConfig::keep_text_encoder.
  void unload();

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
