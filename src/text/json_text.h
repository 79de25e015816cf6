// How a JSON value stands in an error text.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "mdm/core/error.h"

namespace mdm {

/// Scalars as JSON, cut; arrays and objects by their kind alone (printing them would recurse as deep as
/// a hostile file nests them).
inline std::string shown_json(const nlohmann::json& value) {
  if (value.is_structured()) return concat("an ", value.type_name());
  return printable(value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace), 80);
}

}  // namespace mdm
