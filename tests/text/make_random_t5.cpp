// Test tool: writes a T5 encoder of random weights as a Hugging Face folder, e.g. of flan-t5-xl's width.
#include <CLI/CLI.hpp>
#include <iostream>

#include "mdm/core/error.h"
#include "text/random_t5.h"

int main(int argc, char** argv) {
  mdm::text_test::RandomT5 model;
  model.d_model = 2048;
  model.d_kv = 64;
  model.d_ff = 5120;
  model.num_layers = 2;
  model.num_heads = 32;
  model.vocab_size = 32128;
  model.dtype = "BF16";
  std::string folder;
  CLI::App app("Writes a T5 v1.1 encoder of random weights: config.json and model.safetensors.");
  app.add_option("folder", folder, "where to")->required();
  app.add_option("--d-model", model.d_model, "width")->capture_default_str()->check(CLI::Range(1, 65536));
  app.add_option("--d-kv", model.d_kv, "width of a head")->capture_default_str()->check(CLI::Range(1, 65536));
  app.add_option("--d-ff", model.d_ff, "inner width")->capture_default_str()->check(CLI::Range(1, 262144));
  app.add_option("--layers", model.num_layers, "layers")->capture_default_str()->check(CLI::Range(1, 1000));
  app.add_option("--heads", model.num_heads, "heads")->capture_default_str()->check(CLI::Range(1, 4096));
  app.add_option("--vocab", model.vocab_size, "rows of the embedding")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--seed", model.seed, "of the weights")->capture_default_str();
  app.add_option("--dtype", model.dtype, "F32, F16 or BF16")
      ->capture_default_str()
      ->check(CLI::IsMember({"F32", "F16", "BF16"}));
  CLI11_PARSE(app, argc, argv);
  try {
    mdm::text_test::write_random_t5(folder, model);
  } catch (const mdm::Error& error) {
    std::cerr << "make_random_t5: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
