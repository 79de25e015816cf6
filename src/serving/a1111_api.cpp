// /sdapi/v1/txt2img, sd-models and samplers in the form of AUTOMATIC1111's web UI, for programs that know that: a
// request waits until its pictures are there, and gets them in base64.
#include <algorithm>
#include <utility>

#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "serving/json.h"
#include "serving/service.h"

namespace mdm::serving {
namespace {

using Places = std::vector<std::string>;
using Call = std::shared_ptr<Exchange>;

HttpResponse a1111_error(const HttpError& error) {
  Json body = {{"error", error.code}, {"detail", error.message}, {"body", ""}, {"errors", error.message}};
  HttpResponse response = json_response(body, error.status);
  if (error.retry_after > 0) response.headers.emplace_back("Retry-After", std::to_string(error.retry_after));
  return response;
}

[[noreturn]] void refuse(const std::string& field, const std::string& message) {
  throw HttpError{422, "invalid_setting", concat(field, ": ", message), field};
}

// Their name of a setting and ours.
constexpr std::pair<const char*, const char*> kSame[] = {{"prompt", "prompt"},
                                                         {"negative_prompt", "negative_prompt"},
                                                         {"steps", "num_inference_steps"},
                                                         {"cfg_scale", "guidance_scale"},
                                                         {"seed", "seed"},
                                                         {"eta", "ddim_eta"}};

// The same for errors, with what is put together from several of theirs.
constexpr std::pair<const char*, const char*> kNames[] = {
    {"steps", "num_inference_steps"}, {"cfg_scale", "guidance_scale"}, {"eta", "ddim_eta"},
    {"batch_size", "num_samples"},    {"width", "sample_image_size"},  {"sampler_name", "sampler"}};

// Their samplers' names and ours. Names of ours are taken, too.
constexpr std::pair<const char*, const char*> kSamplers[] = {{"DDIM", "ddim"},         {"DDPM", "ddpm"},
                                                             {"Euler", "euler"},       {"Heun", "heun"},
                                                             {"DPM++ 2M", "dpmpp_2m"}, {"DPM++ 2M SDE", "dpmpp_2m_sde"},
                                                             {"UniPC", "unipc"}};

// Clients send all fields with every request, most of them as they are by default. Those change nothing here; asking
// for more is refused.
bool asks_for_nothing(const std::string& name, const Json& value) {
  // What only says how something is done that we don't do, whatever it says.
  constexpr const char* kPlain[] = {"save_images",        "do_not_save_samples",
                                    "do_not_save_grid",   "comments",
                                    "force_task_id",      "hr_scale",
                                    "hr_upscaler",        "hr_second_pass_steps",
                                    "hr_resize_x",        "hr_resize_y",
                                    "denoising_strength", "override_settings_restore_afterwards",
                                    "sampler_index",      "infotext"};
  if (std::find(std::begin(kPlain), std::end(kPlain), name) != std::end(kPlain)) return true;
  if (name == "send_images") return value == true || value.is_null();
  if (name == "scheduler") return value.is_null() || value == "" || value == "automatic" || value == "Automatic";
  if (name == "s_noise") return value.is_null() || value == 0 || value == 1;
  const bool empty = value.is_null() || value == false || value == "" || (value.is_structured() && value.empty());
  return empty || (value.is_number() && (value == 0 || value == -1));
}

int64_t whole(const Json& object, const char* name, int64_t otherwise) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return otherwise;
  constexpr int64_t kMost = 1000000;
  if (!found->is_number_integer() || *found < 1 || *found > kMost) refuse(name, "must be a whole number from 1 on");
  return found->get<int64_t>();
}

std::string model_of(const Json& object) {
  const auto override_settings = object.find("override_settings");
  if (override_settings == object.end() || override_settings->is_null()) return "";
  if (!override_settings->is_object()) refuse("override_settings", "must be an object");
  for (const auto& [name, value] : override_settings->items()) {
    if (name != "sd_model_checkpoint" || !value.is_string()) {
      refuse("override_settings", "only sd_model_checkpoint can be set");
    }
  }
  return override_settings->value("sd_model_checkpoint", "");
}

Json to_native(const Json& object) {
  Json native = {{"preview", false}};
  for (const auto& [theirs, ours] : kSame) {
    if (object.contains(theirs) && !object.at(theirs).is_null()) native[ours] = object.at(theirs);
  }
  auto sampler = object.find("sampler_name");
  if (sampler == object.end() || sampler->is_null()) sampler = object.find("sampler_index");  // its older name
  if (sampler != object.end() && !sampler->is_null()) {
    native["sampler"] = *sampler;
    for (const auto& [theirs, ours] : kSamplers) {
      if (*sampler == theirs) native["sampler"] = ours;
    }
  }
  // They send an eta of 0 with every sampler; here it belongs to DDIM.
  const bool is_ddim = native.contains("sampler") && native["sampler"] == "ddim";
  if (native.contains("ddim_eta") && native["ddim_eta"] == 0 && !is_ddim) native.erase("ddim_eta");
  const int64_t width = whole(object, "width", 0), height = whole(object, "height", 0);
  if (width != height) refuse("width", "must equal height: pictures are square");
  if (width > 0) native["sample_image_size"] = width;
  constexpr int64_t kMostAtATime = 1000;
  const int64_t count = whole(object, "batch_size", 1), times = whole(object, "n_iter", 1);
  if (count > kMostAtATime || times > kMostAtATime) refuse("batch_size", "is too large");
  native["num_samples"] = count * times;

  for (const auto& [name, value] : object.items()) {
    constexpr const char* kKnown[] = {"sampler_name", "width", "height", "batch_size", "n_iter", "override_settings"};
    const auto theirs = [&](const auto& pair) { return name == pair.first; };
    const bool known = std::any_of(std::begin(kSame), std::end(kSame), theirs) ||
                       std::find(std::begin(kKnown), std::end(kKnown), name) != std::end(kKnown);
    if (!known && !asks_for_nothing(name, value)) refuse(printable(name, 60), "is not there");
  }
  return native;
}

void text_to_image(Service& service, const Call& call) {
  const Json object = read_object(call->request().body);
  const ShelvedModel& model = service.model(model_of(object));
  JobOrder order;
  try {
    order = read_order(to_native(object), model, service.limits());
  } catch (HttpError& error) {
    if (error.code != "invalid_setting") throw;
    error.status = 422;
    for (const auto& [theirs, ours] : kNames) {
      if (error.field != ours) continue;
      error.message = concat(theirs, error.message.substr(error.field.size()));
      error.field = theirs;
      break;
    }
    throw;
  }
  const auto job = service.submit(std::move(order), call->request());
  // The job itself is not kept by what waits for it.
  answer_when_done(service, call, job, a1111_error, [object, order = job->order()](const JobView& view) {
    const SampleConfig& sample = order.sample;
    Json info = {{"prompt", order.prompt},
                 {"negative_prompt", order.negative_prompt},
                 {"seed", view.pictures.front().seed},
                 {"all_seeds", Json::array()},
                 {"steps", sample.num_inference_steps},
                 {"cfg_scale", sample.guidance_scale},
                 {"sampler_name", choice_name(sample.sampler)},
                 {"width", view.pictures.front().width},
                 {"height", view.pictures.front().height},
                 {"sd_model_name", order.model}};
    Json body = {{"images", Json::array()}, {"parameters", object}};
    for (const JobPicture& picture : view.pictures) {
      body["images"].push_back(to_base64(*picture.png));
      info["all_seeds"].push_back(picture.seed);
    }
    body["info"] = to_text(info);
    return json_response(body);
  });
}

}  // namespace

void add_a1111_routes(Router& router, Service& service) {
  router.add(
      "POST", "/sdapi/v1/txt2img", [&service](const Call& call, const Places&) { text_to_image(service, call); },
      a1111_error);
  router.add(
      "GET", "/sdapi/v1/sd-models",
      [&service](const Call& call, const Places&) {
        Json list = Json::array();
        for (const auto& model : service.models()) {
          list.push_back({{"title", model->name}, {"model_name", model->name}, {"filename", model->checkpoint_name}});
        }
        call->answer(json_response(list));
      },
      a1111_error);
  router.add(
      "GET", "/sdapi/v1/samplers",
      [](const Call& call, const Places&) {
        Json list = Json::array();
        for (const auto& [theirs, ours] : kSamplers) {
          list.push_back({{"name", theirs}, {"aliases", {ours}}, {"options", Json::object()}});
        }
        call->answer(json_response(list));
      },
      a1111_error);
}

}  // namespace mdm::serving
