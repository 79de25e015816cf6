#include "mdm/training/training_state.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "mdm/core/error.h"

namespace mdm {
namespace {

// The number, and its bits in hexadecimal, which are what counts.
nlohmann::ordered_json exact_number(double value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  char text[24];
  std::snprintf(text, sizeof text, "%016" PRIx64, bits);
  return {{"value", value}, {"bits", text}};
}

double number_of(const nlohmann::json& object) {
  const std::string text = object.at("bits").get<std::string>();
  if (text.size() != 16 || text.find_first_not_of("0123456789abcdef") != std::string::npos) {
    fail<CheckpointError>("\"", printable(text), "\" are not the bits of a number");
  }
  const uint64_t bits = std::stoull(text, nullptr, 16);
  double value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

void TrainingState::add_loss(double value) {
  constexpr double kWeight = 0.01, kDeviations = 3;
  loss = value;
  if (losses++ == 0) {
    average_loss = value;
    loss_variance = value * value;
    return;
  }
  const double reach = kDeviations * std::sqrt(std::max(1.0, loss_variance));
  const double near = average_loss + reach * std::tanh((value - average_loss) / reach);
  average_loss = (1 - kWeight) * average_loss + kWeight * near;
  loss_variance = (1 - kWeight) * loss_variance + kWeight * (near - average_loss) * (near - average_loss);
}

std::string TrainingState::to_json() const {
  nlohmann::ordered_json json;
  json["step"] = step;
  json["attempt"] = attempt;
  json["updates"] = updates;
  json["skipped"] = skipped;
  json["skipped_in_row"] = skipped_in_row;
  json["samples"] = samples;
  json["seed"] = seed;
  json["resumed_from_ema"] = resumed_from_ema;
  json["loss"] = exact_number(loss);
  json["average_loss"] = exact_number(average_loss);
  json["loss_variance"] = exact_number(loss_variance);
  json["losses"] = losses;
  return json.dump();
}

TrainingState TrainingState::from_json(const std::string& text) {
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    TrainingState state;
    json.at("step").get_to(state.step);
    json.at("attempt").get_to(state.attempt);
    json.at("updates").get_to(state.updates);
    json.at("skipped").get_to(state.skipped);
    json.at("skipped_in_row").get_to(state.skipped_in_row);
    json.at("samples").get_to(state.samples);
    json.at("seed").get_to(state.seed);
    state.resumed_from_ema = json.value("resumed_from_ema", false);
    json.at("losses").get_to(state.losses);
    state.loss = number_of(json.at("loss"));
    state.average_loss = number_of(json.at("average_loss"));
    state.loss_variance = number_of(json.at("loss_variance"));
    return state;
  } catch (const nlohmann::json::exception& error) {
    fail<CheckpointError>("the state of training can't be read: ", printable(error.what()));
  }
}

}  // namespace mdm
