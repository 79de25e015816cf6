#include "mdm/training/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "mdm/checkpoint/write.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"
#include "training/sha256.h"

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

void flush_folder(const fs::path& folder) {
  const int handle = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (handle < 0) fail(shown(folder), ": ", std::strerror(errno));
  const int result = ::fsync(handle);
  const int code = errno;
  ::close(handle);
  // Some network file systems know no fsync of folders; renames are still atomic there.
  if (result != 0 && code != EINVAL) fail(shown(folder), ": can't be flushed to disk: ", std::strerror(code));
}

std::string digest_of(const fs::path& file, uint64_t* bytes) {
  const auto content = FileBytes::open(file);
  constexpr size_t kChunk = size_t{1} << 24;
  Sha256 hash;
  for (size_t at = 0; at < content->size(); at += kChunk) {
    const size_t count = std::min(kChunk, content->size() - at);
    hash.add(content->data() + at, count);
    content->release(content->data() + at, count);
  }
  *bytes = content->size();
  return hash.finish();
}

nlohmann::ordered_json manifest_entry(const fs::path& file) {
  uint64_t bytes = 0;
  const std::string digest = digest_of(file, &bytes);
  return {{"bytes", bytes}, {"sha256", digest}};
}

// The step that a folder's name says; nothing for other names.
std::optional<uint64_t> step_of(const std::string& name) {
  const std::string digits = name.rfind(kPrefix, 0) == 0 ? name.substr(std::strlen(kPrefix)) : "";
  if (digits.size() < 7 || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos) {
    return std::nullopt;
  }
  return std::stoull(digits);
}

// Why a checkpoint can't be used; empty when it is sound. The names in a manifest are compared, never opened
// elsewhere: all files lie in the folder itself.
std::string fault_of(const fs::path& folder, uint64_t step) {
  try {
    const auto manifest = nlohmann::json::parse(read_text_file(folder / kManifest, kMaxManifestBytes));
    if (manifest.at("format").get<int>() != kManifestFormat) return "its manifest has another format";
    if (manifest.at("step").get<uint64_t>() != step) return "its manifest is of another step";
    const auto& files = manifest.at("files");
    if (!files.is_object() || !files.contains(kState)) return "its manifest names no state";
    for (const auto& [name, entry] : files.items()) {
      if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos) {
        return "its manifest names '" + printable(name) + "'";
      }
      uint64_t bytes = 0;
      const std::string digest = digest_of(folder / name, &bytes);
      if (bytes != entry.at("bytes").get<uint64_t>()) return concat(name, " has ", bytes, " bytes, not those written");
      if (digest != entry.at("sha256").get<std::string>()) return name + " holds other bytes than were written";
    }
    return "";
  } catch (const nlohmann::json::exception& error) {
    return "its manifest can't be read: " + printable(error.what());
  } catch (const Error& error) {
    return error.what();
  }
}

// Refuses early what can't fit, so that a full disk costs no time.
void check_space(const fs::path& folder, const CheckpointContent& content) {
  uint64_t bytes = 0;
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

std::string companion_name(const std::string& pattern, uint64_t step) {
  char name[128];
  std::snprintf(name, sizeof name, pattern.c_str(), static_cast<unsigned long long>(step));
  return name;
}

}  // namespace

RunDirectory::RunDirectory(fs::path folder, const Options& options) : folder_(std::move(folder)), options_(options) {
  if (options_.keep_last < 2) {
    fail<ConfigError>("keep_last: ", options_.keep_last, "; at least 2 checkpoints are kept, because the newest may ",
                      "turn out to be damaged");
  }
  make_writable_folder(folder_);
  take_lock();
  remove_stale();
}

RunDirectory::~RunDirectory() {
  if (lock_ >= 0) ::close(lock_);
}

void RunDirectory::take_lock() {
  const fs::path path = folder_ / "lock";
  lock_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0) fail(shown(path), ": ", std::strerror(errno));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int code = errno;
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
  for (const auto& entry : fs::directory_iterator(folder_, code)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name.rfind(kPrefix, 0) == 0 || name.rfind("vis_model_", 0) == 0 || name.rfind(".mdm_", 0) == 0;
    if (ours && name.find(kTemporary) != std::string::npos) stale.push_back(entry.path());
  }
  for (const fs::path& path : stale) {
    fs::remove_all(path, code);
    if (code) log_warning(shown(path), ": a half-written checkpoint can't be removed: ", code.message());
  }
}

fs::path RunDirectory::folder_of(uint64_t step) const {
  char name[40];
  std::snprintf(name, sizeof name, "%s%07llu", kPrefix, static_cast<unsigned long long>(step));
  return folder_ / name;
}

std::vector<uint64_t> RunDirectory::checkpoints() const {
  std::vector<uint64_t> steps;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(folder_, code)) {
    const auto step = step_of(entry.path().filename().string());
    if (step && folder_of(*step) == entry.path() && fs::is_regular_file(entry.path() / kManifest, code)) {
      steps.push_back(*step);
    }
  }
  if (code) fail(shown(folder_), ": can't be read: ", code.message());
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::optional<SavedCheckpoint> RunDirectory::latest() {
  const std::vector<uint64_t> steps = checkpoints();
  std::string faults;
  for (auto at = steps.rbegin(); at != steps.rend(); ++at) {
    const fs::path folder = folder_of(*at);
    const std::string fault = fault_of(folder, *at);
    if (fault.empty()) {
      verified_ = *at;
      return SavedCheckpoint{*at, folder, read_text_file(folder / kState, kMaxStateBytes)};
    }
    damaged_.insert(*at);
    faults += "\n  " + shown(folder) + ": " + fault;
    log_warning("THE CHECKPOINT ", shown(folder), " IS DAMAGED (", fault, "); going back to the one before it");
  }
  if (steps.empty()) return std::nullopt;
  fail<CheckpointError>(shown(folder_), ": none of the checkpoints can be used:", faults,
                        "\n  Remove them, or choose another output_dir, to start anew");
}

void RunDirectory::save(const CheckpointContent& content) {
  const fs::path final_folder = folder_of(content.step);
  fs::path temporary = final_folder;
  temporary += concat(kTemporary, ::getpid());
  fs::path replaced = final_folder;
  replaced += concat(".old", kTemporary, ::getpid());
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
    flush_folder(temporary);
    if (fs::exists(fs::symlink_status(final_folder))) fs::rename(final_folder, replaced);
    if (::rename(temporary.c_str(), final_folder.c_str()) != 0) {
      fail(shown(final_folder), ": can't be put in place: ", std::strerror(errno));
    }
    flush_folder(folder_);
  } catch (const fs::filesystem_error& error) {
    fs::remove_all(temporary, code);
    fail(shown(final_folder), ": can't be written: ", error.code().message());
  } catch (...) {
    fs::remove_all(temporary, code);
    if (!fs::exists(final_folder)) fs::rename(replaced, final_folder, code);
    throw;
  }
  if (fs::exists(replaced)) remove_folder(replaced);
  verified_ = content.step;
  damaged_.erase(content.step);
  prune();
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
