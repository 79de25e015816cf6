// What an outside project does with libmdm: pictures from a checkpoint, and a look at its tensors.
// usage: consumer CHECKPOINT CONFIG.yaml PICTURE.png
#include <mdm/checkpoint/tensor_file.h>
#include <mdm/core/error.h>
#include <mdm/core/version.h>
#include <mdm/media/png.h>
#include <mdm/pipeline.h>
#include <mdm/text/t5_tokenizer.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "../support/tiny_spiece.h"

namespace {

void make_picture(const std::string& checkpoint, const std::string& config, const std::string& picture) {
  mdm::Pipeline pipeline = mdm::Pipeline::from_checkpoint(checkpoint, {config});
  mdm::SampleConfig settings = pipeline.config().sample;
  settings.num_inference_steps = 2;
  const auto pictures = pipeline.generate({{"a fox in the snow", "", 1}}, settings);
  mdm::write_png(picture, pictures.at(0).image);
}

// Tensors, and errors of the types that the headers promise, cross the library's border too.
bool tensors_and_errors_cross(const std::string& checkpoint) {
  const mdm::TensorFile file = mdm::TensorFile::open(checkpoint);
  const at::Tensor first = file.tensor(file.entries().at(0).name);
  std::cout << file.entries().size() << " tensors; the first has " << first.numel() << " elements\n";
  if (first.numel() != file.entries().at(0).numel() || !first.isfinite().all().item<bool>()) return false;
  try {
    mdm::TensorFile::open(checkpoint + ".missing");
  } catch (const mdm::Error& error) {
    std::cout << "as it should: " << error.what() << "\n";
    return true;
  }
  return false;
}

// The library finds the module that the t5 tokenizer needs, wherever both were moved to.
bool t5_tokenizer_is_there(const std::string& file) {
  std::ofstream(file, std::ios::binary) << mdm::test_support::tiny_spiece_model();
  const auto ids = mdm::T5Tokenizer::open(file).encode_inference("b a", {});
  std::remove(file.c_str());
  return ids == std::vector<int32_t>{4, 3, 1};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  try {
    std::cout << "libmdm " << mdm::version() << "\n";
    make_picture(argv[1], argv[2], argv[3]);
    return tensors_and_errors_cross(argv[1]) && t5_tokenizer_is_there(std::string(argv[3]) + ".model") ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
