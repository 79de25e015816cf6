// Choosing the state dict of a PyTorch file, and listing its tensors.
#include "checkpoint/torch_file.h"

#include <algorithm>
#include <array>
#include <unordered_set>

#include "checkpoint/value_json.h"
#include "mdm/core/error.h"

namespace mdm::checkpoint {
namespace {

constexpr size_t kMaxPackedNames = size_t{4} << 20;  // a packed pickle may hold more than the file's size
constexpr std::array<std::string_view, 3> kUsualNames = {"state_dict", "model_state_dict", "model"};

std::string join_path(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : concat(path, ".", key);
}

bool holds_tensors(const Value& value) {
  if (!value.is(Kind::kDict)) return false;
  for (size_t i = 1; i < value.items.size(); i += 2) {
    if (value.items[i - 1]->is(Kind::kString) && is_tensor(*value.items[i])) return true;
  }
  return false;
}

std::string list_of_paths(const Value& root) {
  std::string list;
  for (const auto& path : paths_with_tensors(root)) {
    list += concat(list.empty() ? "" : ", ", "'", printable(path, 100), "'");
  }
  return list.empty() ? "; it holds no dictionary of tensors" : concat("; dictionaries of tensors are at: ", list);
}

// Keys may hold dots themselves, so at each level the longest key that fits is taken.
const Value* follow(const Value& root, std::string_view path) {
  const Value* at = &root;
  while (!path.empty()) {
    const Value* next = nullptr;
    size_t length = path.size() + 1;
    while (next == nullptr && length > 0) {
      length = length > path.size() ? path.size() : path.rfind('.', length - 1);
      if (length == std::string_view::npos) break;
      next = at->find(path.substr(0, length));
    }
    if (next == nullptr) return nullptr;
    at = next;
    path.remove_prefix(std::min(path.size(), length + 1));
  }
  return at;
}

void check_unique(const std::vector<TensorRecord>& tensors, const std::string& place) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const auto& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twin = std::adjacent_find(names.begin(), names.end());
  if (twin != names.end()) fail<CheckpointError>(place, ": holds the tensor '", printable(*twin), "' twice");
}

}  // namespace

std::vector<std::string> paths_with_tensors(const Value& root) {
  constexpr size_t kMaxPaths = 16, kMaxVisited = 10'000;
  constexpr int kMaxPathDepth = 4;
  struct Step {
    const Value* value;
    std::string path;
    int depth;
  };
  std::vector<std::string> found;
  std::unordered_set<const Value*> seen;  // shared dictionaries are looked at once
  std::vector<Step> queue{{&root, "", 0}};
  for (size_t next = 0, visited = 0; next < queue.size() && found.size() < kMaxPaths; ++next) {
    const Step step = queue[next];
    if (!seen.insert(step.value).second) continue;
    if (holds_tensors(*step.value)) found.push_back(step.path);
    if (!step.value->is(Kind::kDict) || step.depth == kMaxPathDepth) continue;
    for (size_t i = 0; i + 1 < step.value->items.size() && visited < kMaxVisited; i += 2, ++visited) {
      const Value& key = *step.value->items[i];
      if (!key.is(Kind::kString) || !step.value->items[i + 1]->is(Kind::kDict) || key.text.size() > 200) continue;
      queue.push_back({step.value->items[i + 1], join_path(step.path, key.text), step.depth + 1});
    }
  }
  return found;
}

StateDictChoice choose_state_dict(const TorchArchive& archive, const std::optional<std::string>& path) {
  const Value& root = archive.root();
  if (!root.is(Kind::kDict)) {
    fail<CheckpointError>(archive.place(), ": holds ", describe(root), ", not a dictionary of named tensors; ",
                          "save module.state_dict() instead");
  }
  if (path) {
    const Value* dictionary = follow(root, *path);
    if (dictionary == nullptr || !dictionary->is(Kind::kDict)) {
      fail<CheckpointError>(archive.place(), ": has ",
                            dictionary == nullptr ? "nothing" : concat(describe(*dictionary), ", not a dictionary,"),
                            " at state_dict_path '", printable(*path), "'", list_of_paths(root));
    }
    return {dictionary, *path, true};
  }
  StateDictChoice choice{&root, "", false};
  for (int depth = 0; depth < 4; ++depth) {
    const Value* next = nullptr;
    for (const auto name : kUsualNames) {
      next = choice.dictionary->find(name);
      // An empty dictionary of that name doesn't hide tensors beside it.
      if (next != nullptr && next->is(Kind::kDict) &&
          (!holds_tensors(*choice.dictionary) || !paths_with_tensors(*next).empty())) {
        choice = {next, join_path(choice.path, name), true};
        break;
      }
      next = nullptr;
    }
    if (next == nullptr) break;
  }
  return choice;
}

LoadedFile read_torch_file(const std::shared_ptr<const FileBytes>& file, FileFormat format,
                           const std::optional<std::string>& state_dict_path) {
  const TorchArchive archive(file, format);
  const StateDictChoice choice = choose_state_dict(archive, state_dict_path);
  LoadedFile loaded;
  loaded.files.push_back(file);
  const auto& items = choice.dictionary->items;
  size_t name_bytes = 0;
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    const Value& key = *items[i];
    const Value& value = *items[i + 1];
    if (!value.is(Kind::kObject)) continue;  // plain values stay in the metadata
    const std::string name = key.is(Kind::kString) ? std::string(key.text) : describe(key);
    if (!choice.named && !claims_tensor(value)) continue;  // other items beside the tensors
    if (!key.is(Kind::kString) || key.text.size() > kMaxNameBytes) {
      fail<CheckpointError>(archive.place(), ": has a tensor whose name is ",
                            key.is(Kind::kString) ? concat(key.text.size(), " bytes long") : describe(key));
    }
    if (loaded.tensors.size() == kMaxTensors) {
      fail<CheckpointError>(archive.place(), ": has more than ", kMaxTensors, " tensors");
    }
    name_bytes += name.size();
    if (name_bytes > 2 * file->size() + kMaxPackedNames) {  // names that differ would not fit into the file
      fail<CheckpointError>(archive.place(), ": holds tensors of the same name many times");
    }
    loaded.tensors.push_back(archive.tensor(value, name));
  }
  if (loaded.tensors.empty()) {
    const auto elsewhere = paths_with_tensors(archive.root());
    if (!elsewhere.empty()) {
      fail<CheckpointError>(archive.place(), ": has no tensors ",
                            choice.path.empty() ? "at its top level" : concat("at '", printable(choice.path), "'"),
                            list_of_paths(archive.root()), "; choose one by state_dict_path");
    }
  }
  check_unique(loaded.tensors, archive.place());
  loaded.metadata_json = value_to_json(archive.root(), choice.dictionary);
  return loaded;
}

}  // namespace mdm::checkpoint
