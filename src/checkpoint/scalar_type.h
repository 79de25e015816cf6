// Between our element types and LibTorch's.
#pragma once

#include <c10/core/ScalarType.h>

#include <optional>

#include "checkpoint/element_type.h"

namespace mdm::checkpoint {

inline at::ScalarType to_scalar_type(ElementType type) {
  switch (type) {
    case ElementType::kBool: return at::ScalarType::Bool;
    case ElementType::kU8: return at::ScalarType::Byte;
    case ElementType::kI8: return at::ScalarType::Char;
    case ElementType::kU16: return at::ScalarType::UInt16;
    case ElementType::kI16: return at::ScalarType::Short;
    case ElementType::kU32: return at::ScalarType::UInt32;
    case ElementType::kI32: return at::ScalarType::Int;
    case ElementType::kU64: return at::ScalarType::UInt64;
    case ElementType::kI64: return at::ScalarType::Long;
    case ElementType::kF16: return at::ScalarType::Half;
    case ElementType::kBF16: return at::ScalarType::BFloat16;
    case ElementType::kF32: return at::ScalarType::Float;
    case ElementType::kF64: return at::ScalarType::Double;
  }
  return at::ScalarType::Undefined;
}

// Nothing for types that our files can't hold (complex, quantized, float8).
inline std::optional<ElementType> to_element_type(at::ScalarType type) {
  for (const auto& entry : kElementTypes) {
    if (to_scalar_type(entry.type) == type) return entry.type;
  }
  return std::nullopt;
}

}  // namespace mdm::checkpoint
