#include "training/shared_checkpoint.h"

#include <nlohmann/json.hpp>
#include <string>
#include <system_error>

#include "mdm/core/error.h"

namespace mdm {
namespace {

std::string as_text(const std::optional<SavedCheckpoint>& saved) {
  if (!saved) return "";
  return nlohmann::json{{"step", saved->step},
                        {"folder", std::filesystem::absolute(saved->folder).string()},
                        {"state", saved->state_json}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::optional<SavedCheckpoint> shared_latest(RunDirectory* run, ProcessGroup& group) {
  std::optional<SavedCheckpoint> own;
  const std::string text = group.first_does(
      [&] {
        if (run != nullptr) own = run->latest();
        return as_text(own);
      },
      "search for the last checkpoint");
  if (group.rank() == 0 || text.empty()) return own;
  const auto json = nlohmann::json::parse(text);
  SavedCheckpoint shared{json.at("step").get<uint64_t>(), json.at("folder").get<std::string>(),
                         json.at("state").get<std::string>()};
  std::error_code absent;
  if (!std::filesystem::is_directory(shared.folder, absent)) {
    fail<DistributedError>("rank ", group.rank(), ": rank 0's checkpoint, ", printable(shared.folder.string(), 1000),
                           ", is not to be seen here: output_dir must be on a file system that all processes share");
  }
  return shared;
}

}  // namespace mdm
