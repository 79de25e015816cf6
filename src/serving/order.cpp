// What a request may say of the pictures it wants.
#include "serving/order.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "config/describe.h"
#include "config/field.h"
#include "config/value.h"
#include "mdm/core/error.h"

namespace mdm::serving {
namespace {

// An allow-list: requests come from anybody.
constexpr const char* kSettings[] = {
    "guidance_scale",   "num_inference_steps", "sampler",      "ddim_eta",          "threshold", "timestep_spacing",
    "guidance_rescale", "guidance_start",      "guidance_end", "sample_image_size", "seed",      "num_samples"};

[[noreturn]] void refuse(const std::string& field, const std::string& message) {
  throw HttpError{400, "invalid_setting", concat(field, ": ", message), field};
}

std::vector<settings::Field> sample_fields(Config& config) {
  for (settings::Group& group : settings::describe(config)) {
    if (group.path == "sample") return std::move(group.fields);
  }
  return {};
}

const settings::Field* find_field(const std::vector<settings::Field>& fields, const std::string& name) {
  const auto found = std::find_if(fields.begin(), fields.end(), [&](const auto& field) { return field.name == name; });
  return found == fields.end() ? nullptr : &*found;
}

bool is_whole(const settings::Field& field) {
  return std::holds_alternative<int64_t*>(field.target) ||
         std::holds_alternative<std::optional<int64_t>*>(field.target);
}

const std::vector<std::string>* choices_of(const settings::Field& field) {
  const auto* ref = std::get_if<settings::TextRef>(&field.target);
  return ref == nullptr ? nullptr : &ref->choices;
}

// A JSON value of the right type as the table of settings takes it.
settings::Value value_of(const settings::Field& field, const Json& json) {
  settings::Value value;
  if (json.is_null()) return value;
  if (choices_of(field) != nullptr) {
    if (!json.is_string()) refuse(field.name, "must be a text");
    return settings::scalar(json.get<std::string>(), {});
  }
  if (!json.is_number()) refuse(field.name, "must be a number");
  const double number = json.get<double>();
  if (!std::isfinite(number)) refuse(field.name, "must be a finite number");
  if (is_whole(field) && json.is_number_float() && number != std::floor(number)) {
    refuse(field.name, "must be a whole number");
  }
  return settings::scalar(json.is_number_float() ? settings::number_text(number) : json.dump(), {});
}

void check_range(const char* name, int64_t value, int64_t least, int64_t most) {
  if (value < least || value > most) refuse(name, concat(value, " is out of range; allowed: ", least, " to ", most));
}

std::string text_member(const Json& object, const char* name, size_t most) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return "";
  if (!found->is_string()) refuse(name, "must be a text");
  const auto text = found->get<std::string>();
  if (text.size() > most) refuse(name, concat("has ", text.size(), " bytes; at most ", most, " are allowed"));
  if (text.find('\0') != std::string::npos) refuse(name, "must not hold a NUL character");
  return text;
}

bool flag_member(const Json& object, const char* name, bool otherwise) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return otherwise;
  if (!found->is_boolean()) refuse(name, "must be true or false");
  return found->get<bool>();
}

void check_names(const Json& object) {
  constexpr const char* kOthers[] = {"model", "prompt", "negative_prompt", "look_inside", "preview"};
  std::vector<std::string> names(std::begin(kOthers), std::end(kOthers));
  names.insert(names.end(), std::begin(kSettings), std::end(kSettings));
  for (const auto& [name, value] : object.items()) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    const std::string_view near = nearest_name(name, names);
    const std::string shown = printable(name, 60);
    throw HttpError{400, "invalid_setting",
                    concat(shown, ": there is no such setting", near.empty() ? "" : concat("; is ", near, " meant?")),
                    shown};
  }
}

// What follows from what, as in config/check.cpp for files and flags.
void settle_sampler(const Json& object, SampleConfig& sample) {
  const auto given = [&](const char* name) { return object.contains(name) && !object.at(name).is_null(); };
  if (given("ddim_eta") && !given("sampler")) sample.sampler = SamplerKind::kDdim;
  if (sample.sampler != SamplerKind::kDdim) {
    if (given("ddim_eta")) refuse("ddim_eta", "belongs to the sampler ddim; leave it out, or choose ddim");
    sample.ddim_eta.reset();
  } else if (!sample.ddim_eta) {
    sample.ddim_eta = 0;
  }
}

int64_t drawn_seed() {
  std::random_device device;
  return static_cast<int64_t>(device() & 0x7FFFFFFFU);  // fits every tool that reads the number back
}

int64_t most_steps(const ShelvedModel& model, const OrderLimits& limits) {
  return std::min(limits.steps, model.pipeline.config().diffusion.sampler_config.num_diffusion_steps);
}

// The model's own settings, within the server's limits.
SampleConfig defaults_of(const ShelvedModel& model, const OrderLimits& limits) {
  SampleConfig sample = model.pipeline.config().sample;
  sample.num_inference_steps = std::min(sample.num_inference_steps, most_steps(model, limits));
  sample.num_samples = 1;
  sample.seed = -1;
  sample.sample_image_size = sides_of(model).front();
  sample.init_image.clear();
  sample.output_inner = false;
  if (model.pipeline.text_width() <= 0) sample.guidance_scale = 1;
  return sample;
}

}  // namespace

std::vector<int64_t> sides_of(const ShelvedModel& model) {
  return {model.pipeline.image_side(model.pipeline.config().sample)};
}

std::vector<SettingView> settings_of(const ShelvedModel& model, const OrderLimits& limits) {
  Config config = model.pipeline.config();
  config.sample = defaults_of(model, limits);
  const auto fields = sample_fields(config);
  std::vector<SettingView> views;
  for (const char* name : kSettings) {
    const settings::Field& field = *find_field(fields, name);
    SettingView view;
    view.name = name;
    view.help = field.doc;
    view.value = Json::parse(field.json());
    view.minimum = field.least();
    view.maximum = field.most();
    if (const auto* choices = choices_of(field)) {
      view.type = "choice";
      view.choices = *choices;
    } else {
      view.type = is_whole(field) ? "integer" : "number";
    }
    if (view.name == "num_inference_steps") view.maximum = static_cast<double>(most_steps(model, limits));
    if (view.name == "num_samples") view.maximum = static_cast<double>(limits.pictures);
    if (view.name == "sample_image_size") {
      const auto sides = sides_of(model);
      view.minimum = static_cast<double>(*std::min_element(sides.begin(), sides.end()));
      view.maximum = static_cast<double>(*std::max_element(sides.begin(), sides.end()));
    }
    views.push_back(std::move(view));
  }
  return views;
}

Json values_of(const SampleConfig& sample) {
  Config config;
  config.sample = sample;
  const auto fields = sample_fields(config);
  Json values = Json::object();
  for (const char* name : kSettings) values[name] = Json::parse(find_field(fields, name)->json());
  return values;
}

JobOrder read_order(const Json& object, const ShelvedModel& model, const OrderLimits& limits) {
  check_names(object);
  Config config = model.pipeline.config();
  config.sample = defaults_of(model, limits);
  const auto fields = sample_fields(config);
  for (const char* name : kSettings) {
    const auto found = object.find(name);
    if (found == object.end()) continue;
    const settings::Field& field = *find_field(fields, name);
    const settings::Value value = value_of(field, *found);
    const bool may_be_unset = std::string_view(name) == "ddim_eta" || std::string_view(name) == "threshold";
    if (value.is_null() && !may_be_unset) continue;  // as if it were not there
    const std::string wrong = field.assign(value);
    if (!wrong.empty()) refuse(name, wrong);
  }
  JobOrder order;
  order.sample = config.sample;
  SampleConfig& sample = order.sample;
  settle_sampler(object, sample);
  check_range("num_inference_steps", sample.num_inference_steps, 1, most_steps(model, limits));
  check_range("num_samples", sample.num_samples, 1, limits.pictures);
  if (sample.seed < 0) sample.seed = drawn_seed();
  const auto sides = sides_of(model);
  if (std::find(sides.begin(), sides.end(), sample.sample_image_size) == sides.end()) {
    refuse("sample_image_size", concat("this model draws pictures of ", sides.front(), " pixels"));
  }
  if (sample.guidance_start >= sample.guidance_end) refuse("guidance_start", "must be less than guidance_end");
  if (sample.guidance_scale != 1 && model.pipeline.text_width() <= 0) {
    refuse("guidance_scale", "must be 1: the model has no text");
  }
  order.model = model.name;
  order.prompt = text_member(object, "prompt", limits.prompt_bytes);
  order.negative_prompt = text_member(object, "negative_prompt", limits.prompt_bytes);
  order.look_inside = flag_member(object, "look_inside", false);
  order.preview = flag_member(object, "preview", true);
  return order;
}

}  // namespace mdm::serving
