// What the tests of the pipeline share: small models with fresh weights, made by the library itself.
#pragma once

#include <filesystem>
#include <string>

#include "mdm/pipeline.h"

namespace mdm::pipeline_test {

/// A folder of this process, gone at its end.
const std::filesystem::path& scratch();
std::filesystem::path scratch_file(const std::string& name, const std::string& bytes);

/// The demo's text encoder, 32 wide.
std::filesystem::path text_model();

enum class Kind { kFlat, kNested, kNested2 };

/// YAML of a model for 16x16 pictures with one, two or three levels.
std::string model_yaml(Kind kind);

/// A checkpoint (.pth, config inside) of that YAML with weights that `checkpoint init --randomize` draws.
/// text_width: "" for the config's, "0" for a model without text.
std::string make_checkpoint(const std::string& name, const std::string& yaml, const std::string& text_width = "",
                            const std::string& seed = "1");

/// The one of model_yaml(kind), made once.
const std::string& checkpoint_of(Kind kind);

/// Few steps, fixed settings.
SampleConfig quick_settings(int64_t batch_size = 4);

PictureRequest request(const std::string& prompt, uint64_t seed = 0, const std::string& negative = "");

}  // namespace mdm::pipeline_test
