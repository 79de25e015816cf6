// /v1/images/generations and /v1/models in the form of OpenAI's API, for programs that know that: a request waits
// until its pictures are there, and gets them in base64. Our own settings may stand beside its fields.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "serving/json.h"
#include "serving/service.h"

namespace mdm::serving {
namespace {

using Places = std::vector<std::string>;
using Call = std::shared_ptr<Exchange>;

int64_t now_in_seconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

HttpResponse openai_error(const HttpError& error) {
  const char* type = error.status >= 500   ? "server_error"
                     : error.status == 429 ? "rate_limit_error"
                                           : "invalid_request_error";
  Json body = {{"error", {{"message", error.message}, {"type", type}, {"code", error.code}}}};
  body["error"]["param"] = error.field.empty() ? Json(nullptr) : Json(error.field);
  HttpResponse response = json_response(body, error.status);
  if (error.retry_after > 0) response.headers.emplace_back("Retry-After", std::to_string(error.retry_after));
  return response;
}

[[noreturn]] void refuse(const char* field, const std::string& message) {
  throw HttpError{400, "invalid_setting", concat(field, ": ", message), field};
}

std::string take_text(Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) return "";
  const Json value = *found;
  object.erase(name);
  if (value.is_null()) return "";
  if (!value.is_string()) refuse(name, "must be a text");
  return value.get<std::string>();
}

// Takes the fields of OpenAI's that our own API has under other names, or not at all.
Json to_native(Json object) {
  const std::string format = take_text(object, "response_format");
  if (!format.empty() && format != "b64_json")
    refuse("response_format", "only b64_json is there: pictures are not kept");
  const std::string output = take_text(object, "output_format");
  if (!output.empty() && output != "png") refuse("output_format", "only png is there");
  // What has no meaning for these models.
  for (const char* name : {"user", "quality", "style", "background", "moderation"}) take_text(object, name);
  object.erase("output_compression");  // of other formats
  if (object.contains("partial_images") && object["partial_images"] != 0 && !object["partial_images"].is_null()) {
    refuse("partial_images", "are not there; /mdm/v1/jobs streams previews");
  }
  object.erase("partial_images");
  if (object.contains("stream")) {
    if (object["stream"] != false && !object["stream"].is_null())
      refuse("stream", "is not there; /mdm/v1/jobs streams events");
    object.erase("stream");
  }
  const std::string size = take_text(object, "size");
  if (!size.empty() && size != "auto") {
    const size_t cross = size.find('x');
    int64_t width = 0;
    const auto [end, error] = std::from_chars(size.data(), size.data() + std::min(cross, size.size()), width);
    const bool square = cross != std::string::npos && error == std::errc() && end == size.data() + cross &&
                        size.substr(cross + 1) == size.substr(0, cross);
    if (!square) refuse("size", "must be WIDTHxHEIGHT with equal sides, or auto");
    object["sample_image_size"] = width;
  }
  if (object.contains("n")) {
    object["num_samples"] = object["n"];
    object.erase("n");
  }
  if (!object.contains("prompt")) refuse("prompt", "is missing");
  return object;
}

void generate(Service& service, const Call& call) {
  Json object = to_native(read_object(call->request().body));
  const ShelvedModel& model = service.model(take_text(object, "model"));
  object["preview"] = false;
  const auto job = service.submit(read_order(object, model, service.limits()), call->request());
  answer_when_done(service, call, job, openai_error, [](const JobView& view) {
    Json body = {{"created", now_in_seconds()}, {"data", Json::array()}};
    for (const JobPicture& picture : view.pictures) body["data"].push_back({{"b64_json", to_base64(*picture.png)}});
    body["output_format"] = "png";
    return json_response(body);
  });
}

}  // namespace

void add_openai_routes(Router& router, Service& service) {
  router.add(
      "POST", "/v1/images/generations", [&service](const Call& call, const Places&) { generate(service, call); },
      openai_error);
  router.add(
      "GET", "/v1/models",
      [&service](const Call& call, const Places&) {
        Json list = {{"object", "list"}, {"data", Json::array()}};
        for (const auto& model : service.models()) {
          list["data"].push_back({{"id", model->name}, {"object", "model"}, {"created", 0}, {"owned_by", "libmdm"}});
        }
        call->answer(json_response(list));
      },
      openai_error);
}

}  // namespace mdm::serving
