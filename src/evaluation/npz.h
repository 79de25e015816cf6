// The .npz files of numpy, as far as statistics need them: zip archives of .npy arrays of floating point numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace mdm::evaluation {

using NamedArrays = std::vector<std::pair<std::string, at::Tensor>>;

// All arrays, as float64 on the CPU in their own shape; stored or deflated, little-endian '<f4', '<f8', '<i4', '<i8',
// in C or Fortran order, up to two dimensions and 1 GiB. DataError.
NamedArrays read_npz(const std::filesystem::path& file);

// Writes float64 arrays, not compressed, as numpy.savez does.
void write_npz(const std::filesystem::path& file, const NamedArrays& arrays);

}  // namespace mdm::evaluation
