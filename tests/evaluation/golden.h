// Weights that both the tests and make.py draw from names, and what the latter has noted.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace mdm::testing {

std::filesystem::path golden_folder();
// The numbers of make.py's uniform() and drawn().
std::vector<double> named_uniform(const std::string& name, size_t count);
at::Tensor drawn_parameter(const std::string& name, const std::vector<int64_t>& shape);
// make.py's feature_set(): (count, width) float64.
at::Tensor feature_set(const std::string& name, int64_t count, int64_t width);

// A .safetensors with all parameters of a list (inception.txt), made once a process in a folder that goes at its end.
std::filesystem::path inception_weights();
// Folders as Hugging Face has them.
std::filesystem::path clip_folder();
std::filesystem::path dinov2_folder();
std::filesystem::path scratch_folder();

const nlohmann::json& expected();
const std::map<std::string, at::Tensor>& expected_features();
std::vector<std::filesystem::path> golden_pictures();

// The largest difference over the largest number.
double relative_error(const at::Tensor& found, const at::Tensor& wanted);

}  // namespace mdm::testing
