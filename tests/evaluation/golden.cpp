#include "evaluation/golden.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "evaluation/npz.h"
#include "mdm/checkpoint/write.h"
#include "mdm/core/files.h"

namespace mdm::testing {

namespace fs = std::filesystem;

namespace {

class Scratch {
 public:
  Scratch() : path_(fs::temp_directory_path() / ("mdm_evaluation_" + std::to_string(::getpid()))) {
    fs::create_directories(path_);
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

bool ends(const std::string& text, const std::string& ending) {
  return text.size() >= ending.size() && text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
}

void write_weights(const std::string& list, const fs::path& target) {
  std::ifstream lines(golden_folder() / list);
  std::vector<NamedTensor> tensors;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    std::vector<int64_t> shape;
    for (int64_t size = 0; words >> size;) shape.push_back(size);
    tensors.push_back({name, drawn_parameter(name, shape)});
  }
  write_safetensors(target, tensors);
}

// A golden folder's files, and weights beside them.
fs::path model_folder(const char* name) {
  const fs::path folder = scratch_folder() / name;
  if (fs::exists(folder / "model.safetensors")) return folder;
  fs::copy(golden_folder() / name, folder, fs::copy_options::recursive);
  write_weights(std::string(name) + ".txt", folder / "model.safetensors");
  return folder;
}

}  // namespace

fs::path golden_folder() { return fs::path(MDM_TEST_DATA) / "evaluation" / "golden"; }

fs::path scratch_folder() {
  static const Scratch scratch;
  return scratch.path();
}

std::vector<double> named_uniform(const std::string& name, size_t count) {
  uint64_t seed = 0xCBF29CE484222325ULL;
  for (const char c : name) seed = (seed ^ static_cast<uint8_t>(c)) * 0x100000001B3ULL;
  std::vector<double> numbers(count);
  for (size_t i = 0; i < count; ++i) {
    uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    z ^= z >> 31;
    numbers[i] = static_cast<double>(z >> 40) / (1 << 23) - 1;
  }
  return numbers;
}

at::Tensor drawn_parameter(const std::string& name, const std::vector<int64_t>& shape) {
  at::Tensor values = at::empty(shape, at::TensorOptions().dtype(at::kFloat));
  const std::vector<double> u = named_uniform(name, static_cast<size_t>(values.numel()));
  double scale = 0.1, offset = 0;
  if (shape.size() > 1) {
    const auto fan_in = static_cast<double>(values.numel()) / static_cast<double>(shape[0]);
    scale = std::sqrt((ends(name, "conv.weight") ? 6 : 3) / fan_in);
  } else if (ends(name, "running_var")) {
    scale = 0.5, offset = 1;
  } else if (ends(name, "lambda1") || ends(name, ".weight")) {
    scale = 0.2, offset = 1;
  }
  auto* out = values.mutable_data_ptr<float>();
  for (size_t i = 0; i < u.size(); ++i) out[i] = static_cast<float>(offset + scale * u[i]);
  return values;
}

namespace {

at::Tensor uniform_matrix(const std::string& name, int64_t rows, int64_t columns) {
  at::Tensor matrix = at::empty({rows, columns}, at::TensorOptions().dtype(at::kDouble));
  const std::vector<double> u = named_uniform(name, static_cast<size_t>(rows * columns));
  std::copy(u.begin(), u.end(), matrix.mutable_data_ptr<double>());
  return matrix;
}

}  // namespace

at::Tensor feature_set(const std::string& name, int64_t count, int64_t width) {
  return at::matmul(uniform_matrix(name, count, width), uniform_matrix("mix", width, width)) * 0.1 + 0.5;
}

fs::path inception_weights() {
  const fs::path file = scratch_folder() / "inception.safetensors";
  if (!fs::exists(file)) write_weights("inception.txt", file);
  return file;
}

fs::path clip_folder() { return model_folder("clip"); }
fs::path dinov2_folder() { return model_folder("dinov2"); }

const nlohmann::json& expected() {
  static const nlohmann::json json = nlohmann::json::parse(read_text_file(golden_folder() / "expected.json"));
  return json;
}

const std::map<std::string, at::Tensor>& expected_features() {
  static const std::map<std::string, at::Tensor> features = [] {
    std::map<std::string, at::Tensor> all;
    for (auto& [name, array] : evaluation::read_npz(golden_folder() / "features.npz")) all[name] = array;
    return all;
  }();
  return features;
}

std::vector<fs::path> golden_pictures() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(golden_folder() / "pictures")) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

double relative_error(const at::Tensor& found, const at::Tensor& wanted) {
  const at::Tensor difference = found.to(at::kDouble) - wanted.to(at::kDouble);
  return (difference.abs().max() / wanted.to(at::kDouble).abs().max()).item<double>();
}

}  // namespace mdm::testing
