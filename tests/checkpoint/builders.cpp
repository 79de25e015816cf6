// Building files for the tests of this room.
#include "checkpoint/builders.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>
#include <zlib.h>

#include <ctime>
#include <fstream>
#include <sstream>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"

namespace mdm::checkpoint_tests {
namespace {

// A line of /proc/self/status in bytes; 0 where there is none.
size_t memory_status(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stoull(line.substr(field.size() + 1)) * 1024;
  }
  return 0;
}

bool measures_memory() {
#if defined(__SANITIZE_ADDRESS__)
  return false;  // the sanitizer's own memory would be counted
#else
  return true;
#endif
}

double allowed_seconds() { return measures_memory() ? 1.0 : 10.0; }

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "mdm_checkpoint_XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw Error("no temporary folder");
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code code;
  std::filesystem::remove_all(path_, code);
}

std::filesystem::path TemporaryFolder::write(const std::string& name, const std::string& bytes) const {
  std::ofstream file(path_ / name, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path_ / name;
}

std::string little(uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> 8 * i & 0xFF);
  return out;
}

std::string pickle_text(const std::string& text) { return "X" + little(text.size(), 4) + text; }

std::string pickle_int(int64_t value) {
  if (value >= INT32_MIN && value <= INT32_MAX) return "J" + little(static_cast<uint64_t>(value), 4);
  return "\x8a\x08" + little(static_cast<uint64_t>(value), 8);
}

std::string pickle_global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}

std::string pickle_tuple(const std::vector<std::string>& items) {
  std::string out = "(";
  for (const auto& item : items) out += item;
  return out + "t";
}

std::string pickle_storage(const std::string& type, const std::string& key, int64_t numel) {
  return pickle_tuple({pickle_text("storage"), pickle_global("torch", type), pickle_text(key), pickle_text("cpu"),
                       pickle_int(numel)}) +
         "Q";
}

std::string pickle_tensor(const std::string& storage, int64_t offset, const std::vector<int64_t>& sizes,
                          const std::vector<int64_t>& strides) {
  const auto tuple = [](const std::vector<int64_t>& numbers) {
    std::vector<std::string> items;
    for (const int64_t number : numbers) items.push_back(pickle_int(number));
    return pickle_tuple(items);
  };
  return pickle_global("torch._utils", "_rebuild_tensor_v2") +
         pickle_tuple({storage, pickle_int(offset), tuple(sizes), tuple(strides), "\x89",
                       pickle_global("collections", "OrderedDict") + ")R"}) +
         "R";
}

std::string pickle_dict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string out = "}(";
  for (const auto& [key, value] : items) out += pickle_text(key) + value;
  return out + "u";
}

std::string pickle(const std::string& piece) { return "\x80\x02" + piece + "."; }

std::string ZipFile::bytes() const {
  std::string out;
  std::string directory;
  for (const auto& record : records) {
    uint32_t crc =
        static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(record.data.data()), record.data.size()));
    if (record.no_crc) crc = 0;
    if (record.wrong_crc) crc ^= 1;
    const std::string& local_name = record.local_name.empty() ? record.name : record.local_name;
    const auto stored = static_cast<uint64_t>(record.claimed_stored >= 0 ? record.claimed_stored
                                                                         : static_cast<int64_t>(record.data.size()));
    const auto size = static_cast<uint64_t>(record.claimed_size >= 0 ? record.claimed_size
                                                                     : static_cast<int64_t>(record.data.size()));
    const auto offset =
        static_cast<uint64_t>(record.header_offset >= 0 ? record.header_offset : static_cast<int64_t>(out.size()));
    const std::string common = little(record.flags, 2) + little(record.method, 2) + little(0, 4) + little(crc, 4) +
                               little(stored, 4) + little(size, 4);
    out +=
        "PK\x03\x04" + little(20, 2) + common + little(local_name.size(), 2) + little(0, 2) + local_name + record.data;
    directory += "PK\x01\x02" + little(record.made_by, 2) + little(20, 2) + common + little(record.name.size(), 2) +
                 little(0, 2) + little(0, 2) + little(0, 2) + little(0, 2) + little(record.attributes, 4) +
                 little(offset, 4) + record.name;
  }
  out += before_directory;
  const uint64_t begin = out.size();
  out += directory + after_directory;
  const uint64_t count =
      static_cast<uint64_t>(claimed_count >= 0 ? claimed_count : static_cast<int64_t>(records.size()));
  const auto place = static_cast<uint64_t>(claimed_directory >= 0 ? claimed_directory : static_cast<int64_t>(begin));
  if (zip64) {
    const uint64_t at = out.size();
    const auto count64 = static_cast<uint64_t>(zip64_count >= 0 ? zip64_count : static_cast<int64_t>(records.size()));
    const auto place64 = static_cast<uint64_t>(zip64_directory >= 0 ? zip64_directory : static_cast<int64_t>(begin));
    out += "PK\x06\x06" + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 4) + little(0, 4) +
           little(count64, 8) + little(count64, 8) + little(directory.size(), 8) + little(place64, 8);
    out += "PK\x06\x07" + little(0, 4) + little(zip64_record >= 0 ? static_cast<uint64_t>(zip64_record) : at, 8) +
           little(1, 4);
  }
  const uint64_t count16 = zip64 ? 0xFFFF : count;
  out += "PK\x05\x06" + little(0, 4) + little(count16, 2) + little(count16, 2) +
         little(zip64 ? 0xFFFFFFFF : directory.size() + after_directory.size(), 4) +
         little(zip64 ? 0xFFFFFFFF : place, 4) + little(comment.size(), 2) + comment;
  return out;
}

ZipFile pth(const std::string& pickle_bytes, const std::vector<std::pair<std::string, std::string>>& storages) {
  ZipFile file;
  const auto add = [&](const std::string& name, const std::string& data) {
    ZipRecord record;
    record.name = "model/" + name;
    record.data = data;
    file.records.push_back(record);
  };
  add("data.pkl", pickle_bytes);
  for (const auto& [key, data] : storages) add("data/" + key, data);
  add("version", "3\n");
  return file;
}

std::string legacy_pth(const std::string& pickle_bytes, const std::string& keys_pickle, const std::string& storages) {
  const std::string magic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  const std::string protocol("\x80\x02M\xe9\x03.", 6);
  const std::string system = pickle(pickle_dict({{"protocol_version", pickle_int(1001)}, {"little_endian", "\x88"}}));
  return magic + protocol + system + pickle_bytes + keys_pickle + storages;
}

std::string safetensors(const std::string& json, const std::string& data) {
  return little(json.size(), 8) + json + data;
}

Outcome try_open(const std::filesystem::path& path) {
  Outcome outcome;
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";  // forgets the peak so far
  const size_t before = memory_status("VmRSS");
  const std::clock_t start = std::clock();  // of this process alone: the machine may be busy
  try {
    const TensorFile file = TensorFile::open(path);
    outcome.opened = true;
    for (const auto& entry : file.entries()) {
      // Expanded tensors of a hostile file may claim any size: what is there is read, not what is claimed.
      const at::Tensor tensor = file.tensor(entry.name);
      if (tensor.numel() > 0 && tensor.numel() < (1 << 20)) (void)tensor.contiguous();
    }
  } catch (const CheckpointError& error) {
    outcome.error = error.what();
  }
  outcome.seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  const size_t peak = memory_status("VmHWM");
  outcome.grown = peak > before ? peak - before : 0;
  return outcome;
}

Outcome expect_bounded(const std::filesystem::path& path) {
  std::error_code code;
  const auto size = std::filesystem::is_regular_file(path, code) ? std::filesystem::file_size(path, code) : 0;
  const Outcome outcome = try_open(path);
  EXPECT_LT(outcome.seconds, allowed_seconds()) << path;
  if (measures_memory()) {
    // The mapped file itself is counted, too: 4 times in memory of our own, and once as pages of the cache.
    EXPECT_LE(outcome.grown, (size_t{64} << 20) + 5 * size) << path;
  }
  return outcome;
}

void expect_refused(const std::filesystem::path& path, const std::string& fragment) {
  const Outcome outcome = expect_bounded(path);
  EXPECT_FALSE(outcome.opened) << path << ": expected an error with '" << fragment << "'";
  EXPECT_NE(outcome.error.find(path.filename().string()), std::string::npos) << outcome.error;
  EXPECT_NE(outcome.error.find(fragment), std::string::npos) << outcome.error << "\nexpected: " << fragment;
}

}  // namespace mdm::checkpoint_tests
