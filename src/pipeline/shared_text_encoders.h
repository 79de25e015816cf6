// Text encoders that several pipelines use together.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "mdm/pipeline.h"
#include "mdm/text/text_encoder.h"

namespace mdm {

class SharedTextEncoders {
 public:
  // The encoder of these settings: one that a pipeline holds already, or a fresh one, which lives as long as someone
  // holds it. Throws as make_text_encoder() does.
  std::shared_ptr<TextEncoder> get(const TextConfig& text, const ReaderConfig& reader,
                                   const TextEncoderOptions& options);

 private:
  std::map<std::string, std::weak_ptr<TextEncoder>> encoders_;  // by all settings that make a difference
};

}  // namespace mdm
