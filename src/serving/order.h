// What a request may say of the pictures it wants, and how it becomes an order. Nothing but the settings listed here
// can be set, and no text of a request ever names a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "serving/job.h"
#include "serving/json.h"
#include "serving/model_shelf.h"

namespace mdm::serving {

struct OrderLimits {
  int64_t steps = 1000;
  int64_t pictures = 4;  // of one job
  size_t prompt_bytes = 2000;
};

// A setting of sampling, for programs and people to choose from.
struct SettingView {
  std::string name, type, help;  // type: "number", "integer", "choice"
  Json value;                    // the model's own; null: unset
  std::optional<double> minimum, maximum;
  std::vector<std::string> choices;
};

// What may be set for a model, in the order in which a form shows it.
std::vector<SettingView> settings_of(const ShelvedModel& model, const OrderLimits& limits);
// The values that an order's settings have, in the same order.
Json values_of(const SampleConfig& sample);

// The sides that pictures may have.
std::vector<int64_t> sides_of(const ShelvedModel& model);

// An order for `model` from the members of a JSON object: prompt, negative_prompt, the settings of settings_of(),
// look_inside, preview. A seed that is missing or -1 is drawn. HttpError 400 that names the field.
JobOrder read_order(const Json& object, const ShelvedModel& model, const OrderLimits& limits);

}  // namespace mdm::serving
