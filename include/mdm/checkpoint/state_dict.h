// Filling a model's parameters from a file of tensors, strictly by name, shape and kind of number.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "mdm/checkpoint/tensor_file.h"

namespace mdm {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

struct LoadOptions {
  /// Copies what fits and reports the rest, instead of throwing when anything is missing, unexpected or
  /// of another shape.
  bool allow_partial = false;
  /// Names in the file are `prefix` + name; others in the file are none of our business. For files that
  /// hold several models, or were written by a wrapper ("module.").
  std::string prefix;
  /// Names in the file that begin so are none of our business either (the text encoder in a safetensors file).
  std::string ignored_prefix;
  /// Compares names and shapes, copies nothing (to refuse a wrong file before the work that comes first).
  bool compare_only = false;
  /// A destination on the CPU of the file's dtype becomes a view of the file instead of a copy (passing_tensor): for
  /// weights that are brought into another layout next, straight from the mapping. See own_tensors().
  bool share = false;
};

struct LoadReport {
  size_t loaded = 0;
  std::vector<std::string> missing;     ///< in the model, not in the file
  std::vector<std::string> unexpected;  ///< in the file, not in the model
  std::vector<std::string> mismatched;  ///< in both, with different shapes or kinds of number
};

/// Copies the file's tensors into `destination`, each once, from the mapping into the destination's own
/// layout, dtype (floating point to floating point, whole to whole) and device, without recording
/// gradients. Unless allow_partial, nothing is copied when not everything fits, and CheckpointError lists
/// all missing, unexpected and mis-shaped names at once (each list is cut after 20, with a count), with a
/// hint when a prefix would help. Names in `destination` are unique.
LoadReport load_state_dict(const TensorFile& file, const std::vector<NamedTensor>& destination,
                           const LoadOptions& options = {});

/// Gives tensors that load_state_dict() has made views of a file memory of their own; they may be changed then, and so
/// may the file.
void own_tensors(const std::vector<NamedTensor>& shared);

}  // namespace mdm
