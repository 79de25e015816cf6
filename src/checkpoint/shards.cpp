// Reading models that are split into several files.
#include "checkpoint/shards.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "mdm/core/error.h"
#include "mdm/core/log.h"

namespace mdm::checkpoint {
namespace {

constexpr size_t kMaxIndexBytes = size_t{64} << 20;
constexpr size_t kMaxShards = 10'000;

bool is_bare_file_name(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name[0] != '.' && name.find_first_of("/\\") == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// Receives the events of the JSON parser: weight_map is read, everything else is skipped.
class IndexEvents final : public nlohmann::json_sax<nlohmann::json> {
 public:
  IndexEvents(ShardIndex& index, const std::string& place) : index_(index), place_(place) {}

  bool start_object(std::size_t) override {
    if (depth_ == 1 && key_ == "weight_map") {
      if (seen_map_) wrong("has two weight_maps");
      seen_map_ = in_map_ = true;
    } else if (in_map_) {
      wrong("gives tensor '", printable(key_), "' something other than a file name");
    }
    return descend();
  }
  bool key(string_t& name) override {
    key_ = name;
    return true;
  }
  bool end_object() override {
    if (in_map_ && depth_ == 2) in_map_ = false;
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    other_value();
    return descend();
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool string(string_t& text) override {
    if (depth_ == 0) wrong("is not a JSON object");
    if (in_map_) add(text);
    return true;
  }
  bool null() override { return other_value(); }
  bool boolean(bool) override { return other_value(); }
  bool number_integer(number_integer_t) override { return other_value(); }
  bool number_unsigned(number_unsigned_t) override { return other_value(); }
  bool number_float(number_float_t, const string_t&) override { return other_value(); }
  bool binary(binary_t&) override { return other_value(); }
  bool parse_error(std::size_t position, const std::string& token, const nlohmann::detail::exception& error) override {
    wrong("is no valid JSON at byte ", position, " ('", printable(token, 40), "'): ", printable(error.what(), 200));
  }

  void finish() const {
    if (!seen_map_) wrong("has no weight_map");
  }

 private:
  template <typename... Parts>
  [[noreturn]] void wrong(const Parts&... parts) const {
    fail<CheckpointError>(place_, ": the index ", parts...);
  }

  bool other_value() {
    if (depth_ == 0) wrong("is not a JSON object");
    if (in_map_) wrong("gives tensor '", printable(key_), "' something other than a file name");
    return true;
  }

  bool descend() {
    if (++depth_ > 32) wrong("is nested deeper than 32 levels");
    return true;
  }

  void add(const std::string& file) {
    if (key_.size() > kMaxNameBytes || key_.find('\0') != std::string::npos) {
      wrong("has a bad tensor name '", printable(key_), "'");
    }
    if (!is_bare_file_name(file)) {
      wrong("names the shard '", printable(file), "' for tensor '", printable(key_),
            "'; only bare names of files in the same folder are allowed");
    }
    if (index_.keys.size() == kMaxTensors) wrong("has more than ", kMaxTensors, " tensors");
    const auto [known, added] = number_.emplace(file, static_cast<uint32_t>(index_.files.size()));
    if (added) {
      if (index_.files.size() == kMaxShards) wrong("names more than ", kMaxShards, " shards");
      index_.files.push_back(file);
    }
    index_.keys.emplace_back(key_, known->second);
  }

  ShardIndex& index_;
  const std::string& place_;
  std::unordered_map<std::string, uint32_t> number_;
  std::string key_;
  int depth_ = 0;
  bool in_map_ = false, seen_map_ = false;
};

// Whether `file`, with links followed, stays below `folder`. In a Hugging Face cache the files of
// models--X/snapshots/REVISION are links to models--X/blobs, which is as good.
bool stays_inside(const std::filesystem::path& file, const std::filesystem::path& folder) {
  std::error_code code;
  const auto real_folder = std::filesystem::canonical(folder, code);
  if (code) return false;
  const auto real_file = std::filesystem::canonical(file, code);
  if (code) return true;  // a missing file is reported as such when it is opened
  const auto real_parent = real_file.parent_path();
  if (real_parent == real_folder) return true;
  const auto snapshots = real_folder.parent_path();
  const auto model = snapshots.parent_path();
  return snapshots.filename() == "snapshots" && model.filename().string().rfind("models--", 0) == 0 &&
         real_parent == model / "blobs";
}

// Names of the index, sorted, to find by binary search.
std::vector<uint32_t> sorted_keys(const ShardIndex& index, const std::string& place) {
  std::vector<uint32_t> order(index.keys.size());
  for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return index.keys[a].first < index.keys[b].first; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (index.keys[order[i - 1]].first == index.keys[order[i]].first) {
      fail<CheckpointError>(place, ": the index names tensor '", printable(index.keys[order[i]].first), "' twice");
    }
  }
  return order;
}

}  // namespace

ShardIndex parse_shard_index(std::string_view json, const std::string& place) {
  if (json.size() > kMaxIndexBytes) {
    fail<CheckpointError>(place, ": the index has ", json.size(), " bytes; at most ", kMaxIndexBytes, " are allowed");
  }
  ShardIndex index;
  IndexEvents events(index, place);
  nlohmann::json::sax_parse(json.begin(), json.end(), &events);
  events.finish();
  sorted_keys(index, place);
  return index;
}

LoadedFile open_shards(const std::filesystem::path& index_path, const OpenOptions& options) {
  const std::string place = place_of(index_path);
  const auto bytes = open_bytes(index_path, options.map);
  const ShardIndex index = parse_shard_index(bytes->view(), place);
  const auto order = sorted_keys(index, place);
  const auto folder = index_path.has_parent_path() ? index_path.parent_path() : std::filesystem::path(".");

  LoadedFile all;
  std::vector<TensorRecord> records(index.keys.size());
  std::vector<bool> found(index.keys.size(), false);
  for (uint32_t f = 0; f < index.files.size(); ++f) {
    const auto path = folder / index.files[f];
    if (!stays_inside(path, folder)) {
      fail<CheckpointError>(place, ": the shard '", printable(index.files[f]),
                            "' is a link that leads out of the folder");
    }
    LoadedFile shard = open_single_file(path, options);
    if (f == 0) all.metadata_json = std::move(shard.metadata_json);
    size_t unlisted = 0;
    for (auto& record : shard.tensors) {
      const auto at = std::lower_bound(order.begin(), order.end(), record.name,
                                       [&](uint32_t i, const std::string& name) { return index.keys[i].first < name; });
      if (at == order.end() || index.keys[*at].first != record.name) {
        ++unlisted;
        continue;
      }
      if (index.keys[*at].second != f) {
        fail<CheckpointError>(place, ": tensor '", printable(record.name), "' is in '", printable(index.files[f]),
                              "' too, but the index places it in '", printable(index.files[index.keys[*at].second]),
                              "'");
      }
      found[*at] = true;
      records[*at] = std::move(record);
    }
    if (unlisted > 0) {
      log_warning(place_of(path), ": ", unlisted, " tensors are not in the index and are left out");
    }
    all.files.push_back(shard.files[0]);
  }
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i]) continue;
    fail<CheckpointError>(place, ": tensor '", printable(index.keys[i].first), "' is not in '",
                          printable(index.files[index.keys[i].second]), "', where the index places it");
  }
  all.tensors = std::move(records);
  for (const auto& key : index.keys) all.file_of.push_back(key.second);
  return all;
}

std::filesystem::path find_weights(const std::filesystem::path& folder) {
  static constexpr const char* kNames[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                                           "pytorch_model.bin.index.json"};
  for (const char* name : kNames) {
    std::error_code code;
    if (std::filesystem::exists(folder / name, code)) return folder / name;
  }
  fail<CheckpointError>(place_of(folder), ": is a folder without weights; expected model.safetensors, ",
                        "model.safetensors.index.json, pytorch_model.bin or pytorch_model.bin.index.json in it");
}

bool is_index_name(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  constexpr std::string_view kEnding = ".index.json";
  return name.size() > kEnding.size() && name.compare(name.size() - kEnding.size(), kEnding.size(), kEnding) == 0;
}

}  // namespace mdm::checkpoint
