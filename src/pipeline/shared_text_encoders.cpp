// Text encoders that several pipelines use together.
#include "pipeline/shared_text_encoders.h"

#include "mdm/config/config.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

// All settings about text and reading, with what else changes an encoder: where it computes, and the checkpoint for
// those that are part of one.
std::string key_of(const TextConfig& text, const ReaderConfig& reader, const TextEncoderOptions& options) {
  Config config;
  config.text = text;
  config.reader = reader;
  // What a picture's size and the handling of memory have to do with pictures alone.
  config.text.pad = PadPolicy();
  config.text.keep_text_encoder = false;
  config.reader.image_size = config.reader.smaller_side_size = -1;
  const bool own = text.kind == TextKind::kJoint;
  return concat(dump_yaml(config, Section::kText | Section::kReader), options.device.str(), "\n", options.class_width,
                "\n", own ? options.checkpoint.string() : "");
}

}  // namespace

std::shared_ptr<TextEncoder> SharedTextEncoders::get(const TextConfig& text, const ReaderConfig& reader,
                                                     const TextEncoderOptions& options) {
  std::weak_ptr<TextEncoder>& kept = encoders_[key_of(text, reader, options)];
  std::shared_ptr<TextEncoder> encoder = kept.lock();
  if (!encoder) {
    encoder = make_text_encoder(text, reader, options);
    kept = encoder;
  }
  return encoder;
}

std::shared_ptr<SharedTextEncoders> share_text_encoders() { return std::make_shared<SharedTextEncoders>(); }

}  // namespace mdm
