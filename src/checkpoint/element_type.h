// The element types that files of tensors may hold, with their names in each format. Free of LibTorch.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace mdm::checkpoint {

enum class ElementType : uint8_t { kBool, kU8, kI8, kU16, kI16, kU32, kI32, kU64, kI64, kF16, kBF16, kF32, kF64 };

struct ElementTypeInfo {
  ElementType type;
  uint8_t size;                    // bytes
  std::string_view safetensors;    // "BF16"
  std::string_view torch_dtype;    // torch.<name>
  std::string_view torch_storage;  // torch.<name>; empty: torch has no typed storage for it
};

inline constexpr std::array<ElementTypeInfo, 13> kElementTypes = {{
    {ElementType::kBool, 1, "BOOL", "bool", "BoolStorage"},
    {ElementType::kU8, 1, "U8", "uint8", "ByteStorage"},
    {ElementType::kI8, 1, "I8", "int8", "CharStorage"},
    {ElementType::kU16, 2, "U16", "uint16", ""},
    {ElementType::kI16, 2, "I16", "int16", "ShortStorage"},
    {ElementType::kU32, 4, "U32", "uint32", ""},
    {ElementType::kI32, 4, "I32", "int32", "IntStorage"},
    {ElementType::kU64, 8, "U64", "uint64", ""},
    {ElementType::kI64, 8, "I64", "int64", "LongStorage"},
    {ElementType::kF16, 2, "F16", "float16", "HalfStorage"},
    {ElementType::kBF16, 2, "BF16", "bfloat16", "BFloat16Storage"},
    {ElementType::kF32, 4, "F32", "float32", "FloatStorage"},
    {ElementType::kF64, 8, "F64", "float64", "DoubleStorage"},
}};

inline const ElementTypeInfo& info(ElementType type) { return kElementTypes[static_cast<size_t>(type)]; }

// The type whose `field` is `name`, e.g. find_element_type(&ElementTypeInfo::safetensors, "BF16").
inline std::optional<ElementType> find_element_type(std::string_view ElementTypeInfo::*field, std::string_view name) {
  for (const auto& entry : kElementTypes) {
    if (!name.empty() && entry.*field == name) return entry.type;
  }
  return std::nullopt;
}

}  // namespace mdm::checkpoint
