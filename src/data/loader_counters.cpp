// What a loader has handed out, as a line of text in checkpoints.
#include <nlohmann/json.hpp>

#include "mdm/core/error.h"
#include "mdm/data/loader.h"

namespace mdm {

uint64_t LoaderCounters::all_holes() const {
  uint64_t sum = 0;
  for (const auto& [kind, count] : holes) sum += count;
  return sum;
}

std::string LoaderCounters::save() const {
  const nlohmann::json json = {
      {"samples", samples}, {"holes", holes}, {"recent_holes", recent_holes}, {"dropped_captions", dropped_captions}};
  return json.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

LoaderCounters LoaderCounters::restore(const std::string& text) {
  try {
    const auto json = nlohmann::json::parse(text);
    LoaderCounters counters;
    json.at("samples").get_to(counters.samples);
    json.at("holes").get_to(counters.holes);
    json.at("recent_holes").get_to(counters.recent_holes);
    json.at("dropped_captions").get_to(counters.dropped_captions);
    return counters;
  } catch (const nlohmann::json::exception& error) {
    fail<DataError>("the saved counters of the loader can't be read: ", printable(error.what()));
  }
}

}  // namespace mdm
