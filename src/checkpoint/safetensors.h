// The safetensors format: u64 header length, JSON header, packed little-endian values. Free of LibTorch.
// Specification: huggingface/safetensors, README "Format".
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/tensor_record.h"

namespace mdm::checkpoint {

struct SafetensorsContent {
  std::vector<TensorRecord> tensors;                          // in the order of the header
  std::vector<std::pair<std::string, std::string>> metadata;  // __metadata__
};

// Whether `bytes` begins like a safetensors file (a header length that fits, and an opening brace).
bool looks_like_safetensors(std::string_view bytes);

// Reads the header and checks that the tensors tile the data section exactly. The records point into
// `bytes`. CheckpointError, beginning with `place`, otherwise.
SafetensorsContent parse_safetensors(std::string_view bytes, const std::string& place);

}  // namespace mdm::checkpoint
