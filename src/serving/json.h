// JSON in and out: bodies that clients send are read within bounds and without leniency.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "serving/http.h"

namespace mdm::serving {

using Json = nlohmann::ordered_json;

// The object of a request's body. HttpError 400 for what is no JSON object: other text around it, bytes that are not
// UTF-8, numbers out of range, a key twice, more than 32 levels or 10,000 values.
Json read_object(const std::string& body);

// As text; what is not UTF-8 is replaced.
std::string to_text(const Json& json);

HttpResponse json_response(const Json& json, int status = 200);

// The native API's form of an error.
HttpResponse error_response(const HttpError& error);

}  // namespace mdm::serving
