#include "mdm/training/run_directory.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "mdm/checkpoint/write.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kManifest = "manifest.json";
constexpr const char* kState = "state.json";
constexpr const char* kPrefix = "ckpt_";
constexpr const char* kTemporary = ".tmp.";
constexpr int kManifestFormat = 1;
constexpr size_t kMaxManifestBytes = size_t{1} << 20;
constexpr size_t kMaxStateBytes = size_t{64} << 20;

std::string shown(const fs::path& path) { return printable(path.string(), 1000); }

void flush(const fs::path& folder) {
  if (const int code = flush_folder(folder); code != 0) {
    fail(shown(folder), ": can't be flushed to disk: ", std::strerror(code));
  }
}

nlohmann::ordered_json manifest_entry(const fs::path& file) {
  const FileDigest digest = digest_file(file);
  return {{"bytes", digest.bytes}, {"sha256", digest.hex}};
}

// The step that a folder's name says; nothing for other names.
std::optional<uint64_t> step_of(const std::string& name) {
  const std::string digits = name.rfind(kPrefix, 0) == 0 ? name.substr(std::strlen(kPrefix)) : "";
  if (digits.size() < 7 || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos) {
    return std::nullopt;
  }
  return std::stoull(digits);
}

// Why a checkpoint can't be used.
struct Fault {
  std::string text;      // empty: it is sound
  bool damaged = false;  // its bytes are not those written; false: they could not be read now, and may be later
};

// The names in a manifest are compared, never opened elsewhere: all files lie in the folder itself.
Fault fault_of(const fs::path& folder, uint64_t step) {
  const auto damage = [](std::string text) { return Fault{std::move(text), true}; };
  try {
    const auto manifest = nlohmann::json::parse(read_text_file(folder / kManifest, kMaxManifestBytes));
    if (manifest.at("format").get<int>() != kManifestFormat) return damage("its manifest has another format");
    if (manifest.at("step").get<uint64_t>() != step) return damage("its manifest is of another step");
    const auto& files = manifest.at("files");
    if (!files.is_object() || !files.contains(kState)) return damage("its manifest names no state");
    for (const auto& [name, entry] : files.items()) {
      if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos) {
        return damage("its manifest names '" + printable(name) + "'");
      }
      std::error_code absent;
      if (!fs::is_regular_file(folder / name, absent)) return damage(printable(name) + " is missing");
      const FileDigest digest = digest_file(folder / name);
      if (digest.bytes != entry.at("bytes").get<uint64_t>()) {
        return damage(concat(name, " has ", digest.bytes, " bytes, not those written"));
      }
      if (digest.hex != entry.at("sha256").get<std::string>()) {
        return damage(name + " holds other bytes than were written");
      }
    }
    return {};
  } catch (const nlohmann::json::exception& error) {
    return damage("its manifest can't be read: " + printable(error.what()));
  } catch (const Error& error) {
    return {error.what(), false};
  }
}

// Refuses early what can't fit, so that a full disk costs no time.
void check_space(const fs::path& folder, const CheckpointContent& content) {
  uint64_t bytes = content.companion_bytes;
  for (const auto& part : content.parts) {
    for (const NamedTensor& item : part.tensors) bytes += item.tensor.nbytes();
  }
  struct statvfs info {};
  if (::statvfs(folder.c_str(), &info) != 0) return;  // then writing will tell
  const uint64_t available = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  if (available < bytes) {
    fail(shown(folder), ": a checkpoint takes ", bytes >> 20, " MiB, but only ", available >> 20, " MiB are free");
  }
}

// Whether a file of ours was being written under this name: NAME.tmp.PID or NAME.tmp.PID.NUMBER.
bool is_temporary(const std::string& name) {
  const size_t mark = name.rfind(kTemporary);
  if (mark == std::string::npos) return false;
  const std::string number = name.substr(mark + std::strlen(kTemporary));
  if (number.empty() || number.find_first_not_of("0123456789.") != std::string::npos) return false;
  constexpr const char* kOurs[] = {kPrefix, "vis_model_", ".mdm_", "config.yaml", "metrics.jsonl", "step_"};
  return std::any_of(std::begin(kOurs), std::end(kOurs), [&](const char* begin) { return name.rfind(begin, 0) == 0; });
}

void rename_folder(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail(shown(to), ": can't be put in place: ", std::strerror(errno));
}

// Gives a folder its final name; where one of that name is lying already, there is always one of both (but for the
// moment between two renames on a file system that can't exchange). Returns where the old one is then; empty: none was.
fs::path put_in_place(const fs::path& fresh, const fs::path& final_folder) {
  std::error_code absent;
  if (!fs::exists(fs::symlink_status(final_folder, absent))) {
    rename_folder(fresh, final_folder);
    return {};
  }
  if (::renameat2(AT_FDCWD, fresh.c_str(), AT_FDCWD, final_folder.c_str(), RENAME_EXCHANGE) == 0) return fresh;
  if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) {
    fail(shown(final_folder), ": can't be replaced: ", std::strerror(errno));
  }
  fs::path old = final_folder;
  old += concat(".old", kTemporary, ::getpid());
  rename_folder(final_folder, old);
  try {
    rename_folder(fresh, final_folder);
  } catch (const Error&) {
    rename_folder(old, final_folder);
    throw;
  }
  return old;
}

std::string companion_name(const std::string& pattern, uint64_t step) {
  char name[128];
  std::snprintf(name, sizeof name, pattern.c_str(), static_cast<unsigned long long>(step));
  return name;
}

}  // namespace

RunDirectory::RunDirectory(fs::path folder, const Options& options) : folder_(std::move(folder)) {
  keep(options);
  make_writable_folder(folder_);
  take_lock();
  remove_stale();
}

RunDirectory::~RunDirectory() {
  if (lock_ >= 0) ::close(lock_);
}

void RunDirectory::keep(const Options& options) {
  if (options.keep_last < 2) {
    fail<ConfigError>("keep_last: ", options.keep_last, "; at least 2 checkpoints are kept, because the newest may ",
                      "turn out to be damaged");
  }
  options_ = options;
}

void RunDirectory::take_lock() {
  const fs::path path = folder_ / "lock";
  lock_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0) fail(shown(path), ": ", std::strerror(errno));
  if (const int code = lock_file(lock_); code != 0) {
    if (code == ENOTSUP) {
      log_warning(shown(folder_), ": this file system has no locks; make sure that only one training writes here");
      return;
    }
    char holder[32] = {};
    const ssize_t size = ::read(lock_, holder, sizeof holder - 1);
    ::close(lock_);
    lock_ = -1;
    if (code != EWOULDBLOCK) fail(shown(path), ": can't be locked: ", std::strerror(code));
    fail(shown(folder_), ": another training writes to this folder (process ", size > 0 ? printable(holder) : "unknown",
         "); stop it, or choose another output_dir");
  }
  const std::string own = std::to_string(::getpid());
  if (::ftruncate(lock_, 0) != 0 || ::pwrite(lock_, own.data(), own.size(), 0) < 0) {
    log_warning(shown(path), ": can't be written: ", std::strerror(errno));  // only the number is missing then
  }
}

void RunDirectory::remove_stale() {
  std::error_code code;
  std::vector<fs::path> stale;
  for (const fs::path& folder : {folder_, folder_ / "train", folder_ / "samples"}) {
    for (fs::directory_iterator entry(folder, code), end; !code && entry != end; entry.increment(code)) {
      if (is_temporary(entry->path().filename().string())) stale.push_back(entry->path());
    }
  }
  for (const fs::path& path : stale) {
    fs::remove_all(path, code);
    if (code) log_warning(shown(path), ": what a crash left half written can't be removed: ", code.message());
  }
}

fs::path RunDirectory::folder_of(const fs::path& run, uint64_t step) {
  char name[40];
  std::snprintf(name, sizeof name, "%s%07llu", kPrefix, static_cast<unsigned long long>(step));
  return run / name;
}

std::vector<uint64_t> RunDirectory::steps_of_folders(const fs::path& run, bool with_manifest) {
  std::vector<uint64_t> steps;
  std::error_code code;
  for (fs::directory_iterator entry(run, code), end; !code && entry != end; entry.increment(code)) {
    const auto step = step_of(entry->path().filename().string());
    std::error_code absent;
    if (step && folder_of(run, *step) == entry->path() &&
        fs::is_regular_file(entry->path() / kManifest, absent) == with_manifest) {
      steps.push_back(*step);
    }
  }
  if (code) fail(shown(run), ": can't be read: ", code.message());
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::vector<uint64_t> RunDirectory::checkpoints() const { return steps_of_folders(folder_, true); }

std::optional<SavedCheckpoint> RunDirectory::peek(const fs::path& folder) {
  std::error_code absent;
  if (!fs::is_directory(folder, absent)) return std::nullopt;
  const std::vector<uint64_t> steps = steps_of_folders(folder, true);
  if (steps.empty()) return std::nullopt;
  const fs::path newest = folder_of(folder, steps.back());
  return SavedCheckpoint{steps.back(), newest, read_text_file(newest / kState, kMaxStateBytes)};
}

std::optional<SavedCheckpoint> RunDirectory::latest() {
  const std::vector<uint64_t> steps = checkpoints();
  std::string faults;
  for (const uint64_t step : steps_of_folders(folder_, false)) {
    faults += "\n  " + shown(folder_of(step)) + ": it has no " + kManifest;
    log_warning("THE CHECKPOINT ", shown(folder_of(step)), " HAS NO ", kManifest, " and is not used");
  }
  for (auto at = steps.rbegin(); at != steps.rend(); ++at) {
    const fs::path folder = folder_of(*at);
    const Fault fault = fault_of(folder, *at);
    if (fault.text.empty()) {
      verified_ = *at;
      return SavedCheckpoint{*at, folder, read_text_file(folder / kState, kMaxStateBytes)};
    }
    if (fault.damaged) damaged_.insert(*at);
    faults += "\n  " + shown(folder) + ": " + fault.text;
    log_warning("THE CHECKPOINT ", shown(folder), fault.damaged ? " IS DAMAGED (" : " CAN'T BE READ (", fault.text,
                "); going back to the one before it");
  }
  if (faults.empty()) return std::nullopt;
  fail<CheckpointError>(shown(folder_), ": none of the checkpoints can be used:", faults,
                        "\n  Remove them, or choose another output_dir, to start anew");
}

void RunDirectory::save(const CheckpointContent& content) {
  const fs::path final_folder = folder_of(content.step);
  fs::path temporary = final_folder;
  temporary += concat(kTemporary, ::getpid());
  fs::path replaced;
  std::error_code code;
  try {
    check_space(folder_, content);
    fs::remove_all(temporary, code);
    fs::create_directory(temporary, code);
    if (code) fail(shown(temporary), ": can't be made: ", code.message());
    nlohmann::ordered_json files;
    for (const auto& part : content.parts) {
      write_safetensors(temporary / part.file, part.tensors);
      files[part.file] = manifest_entry(temporary / part.file);
    }
    write_file(temporary / kState, content.state_json);
    files[kState] = manifest_entry(temporary / kState);
    nlohmann::ordered_json manifest;
    manifest["format"] = kManifestFormat;
    manifest["step"] = content.step;
    manifest["files"] = std::move(files);
    write_file(temporary / kManifest, manifest.dump(1) + "\n");
    flush(temporary);
    replaced = put_in_place(temporary, final_folder);
    flush(folder_);
  } catch (const fs::filesystem_error& error) {
    fs::remove_all(temporary, code);
    fail(shown(final_folder), ": can't be written: ", error.code().message());
  } catch (...) {
    fs::remove_all(temporary, code);
    throw;
  }
  verified_ = content.step;
  damaged_.erase(content.step);
  try {  // the checkpoint is there; what is still to do may fail
    if (!replaced.empty()) remove_folder(replaced);
    prune();
  } catch (const std::exception& error) {
    log_warning(shown(folder_), ": old checkpoints can't be removed: ", printable(error.what()));
  }
}

void RunDirectory::add_companion(std::string pattern) { companions_.push_back(std::move(pattern)); }

bool RunDirectory::remove_folder(const fs::path& folder) {
  // Renamed first: whatever happens next, it is no longer taken for a checkpoint.
  fs::path doomed = folder;
  if (folder.filename().string().find(kTemporary) == std::string::npos)
    doomed += concat(".old", kTemporary, ::getpid());
  std::error_code code;
  if (doomed != folder) fs::rename(folder, doomed, code);
  if (!code) fs::remove_all(doomed, code);
  if (code) log_warning(shown(folder), ": an old checkpoint can't be removed: ", code.message());
  return !code;
}

void RunDirectory::prune() {
  std::vector<uint64_t> steps = checkpoints();
  int64_t kept = 0;
  for (auto at = steps.rbegin(); at != steps.rend(); ++at) {
    const bool damaged = damaged_.count(*at) != 0;
    if (!damaged && kept < options_.keep_last) {
      ++kept;
      continue;
    }
    const bool milestone = options_.keep_every > 0 && *at % static_cast<uint64_t>(options_.keep_every) == 0;
    if ((milestone && !damaged) || verified_ == *at) continue;
    if (!remove_folder(folder_of(*at))) continue;
    damaged_.erase(*at);
    for (const std::string& pattern : companions_) {
      std::error_code code;
      fs::remove(folder_ / companion_name(pattern, *at), code);
      if (code) log_warning(companion_name(pattern, *at), ": can't be removed: ", code.message());
    }
  }
}

}  // namespace mdm
