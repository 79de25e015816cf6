// JSON in and out.
#include "serving/json.h"

#include <set>
#include <vector>

#include "mdm/core/utf8.h"

namespace mdm::serving {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxValues = 10000;

[[noreturn]] void refuse(const char* message) { throw HttpError{400, "invalid_json", message}; }

}  // namespace

Json read_object(const std::string& body) {
  if (!is_utf8(body)) refuse("the body is not UTF-8");
  // The parser takes a NUL for the end, and passes over a byte order mark.
  if (body.find('\0') != std::string::npos || body.compare(0, 3, "\xEF\xBB\xBF") == 0) {
    refuse("the body is not valid JSON");
  }
  size_t values = 0;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const Json::parser_callback_t look = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth) refuse("the body is nested too deep");
    if (++values > kMaxValues) refuse("the body has too many values");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second) {
      refuse("the body has a key twice in one object");
    }
    return true;
  };
  Json json;
  try {
    json = Json::parse(body, look);
  } catch (const Json::exception&) {
    refuse("the body is not valid JSON");
  }
  if (!json.is_object()) refuse("the body must be a JSON object");
  return json;
}

std::string to_text(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

HttpResponse json_response(const Json& json, int status) {
  HttpResponse response;
  response.status = status;
  response.body = to_text(json);
  response.headers.emplace_back("Cache-Control", "no-store");
  return response;
}

HttpResponse error_response(const HttpError& error) {
  Json body = {{"error", {{"code", error.code}, {"message", error.message}}}};
  if (!error.field.empty()) body["error"]["field"] = error.field;
  HttpResponse response = json_response(body, error.status);
  if (error.retry_after > 0) response.headers.emplace_back("Retry-After", std::to_string(error.retry_after));
  return response;
}

}  // namespace mdm::serving
