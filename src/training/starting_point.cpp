#include "mdm/training/starting_point.h"

#include <string>
#include <vector>

#include "mdm/checkpoint/state_dict.h"
#include "mdm/checkpoint/tensor_file.h"
#include "mdm/checkpoint/write.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/text/joint_encoder.h"
#include "pipeline/loaded_checkpoint.h"

namespace mdm {
namespace {

// The file's tensors into all parameters below `prefix`.
void load_below(const std::string& prefix, const TensorFile& file, const UNet& model) {
  std::vector<NamedTensor> destination;
  for (const auto& item : model.named_parameters()) {
    if (item.key().rfind(prefix, 0) == 0) destination.push_back({item.key().substr(prefix.size()), item.value()});
  }
  LoadOptions options;
  options.ignored_prefix = concat(kTextEncoderSection, ".");
  load_state_dict(file, destination, options);
  log_info(prefix.empty() ? "the model" : "the inner model", " starts from ", printable(file.path().string()));
}

}  // namespace

void set_starting_point(const Config& config, uint64_t seed, UNet& model, TextEncoder* text) {
  const at::Generator generator = make_generator(seed);
  std::string text_file;
  const std::string& whole = config.trainer.pretrained_vision_file;
  if (!whole.empty()) {
    load_below("", open_weights(whole, config.trainer.pretrained_ema), model);
    text_file = whole;
  } else {
    model.init({generator, LayerInit::kZero});
    std::string prefix;
    for (const UNetConfig& level : config.model.levels) {
      prefix += "inner_unet.";
      const std::string& file = level.initialize_inner_with_pretrained;
      if (file.empty()) continue;
      load_below(prefix, open_weights(file, config.trainer.pretrained_ema), model);
      text_file = file;  // the innermost one's comes last
    }
  }
  auto* joint = dynamic_cast<JointTextEncoder*>(text);
  if (joint == nullptr) return;
  if (!text_file.empty() && holds_text_encoder(text_file)) {
    joint->load(text_file);
    log_info("the text encoder starts from ", printable(text_file));
  } else {
    joint->network()->init(generator);
  }
}

}  // namespace mdm
