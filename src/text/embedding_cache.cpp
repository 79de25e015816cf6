// The file format of kept embeddings, and finding and adding records.
//
// A file: FileHead, then records one after the other: RecordHead, the token ids (int32), the values (row by row,
// as float32 or bfloat16), zeros up to a multiple of 8 bytes. All little-endian.
#include "mdm/text/embedding_cache.h"

#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>
#include <unordered_map>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"

namespace mdm {
namespace {

constexpr char kMagic[8] = {'m', 'd', 'm', 't', 'e', 'x', 't', '1'};
constexpr uint32_t kRecordMagic = 0x45424d45;  // "EMBE"
constexpr uint32_t kMostTokens = 1u << 20;
constexpr int kMostFiles = 256;
constexpr std::chrono::seconds kRefreshInterval{1};
constexpr uint64_t kAddedPerLook = 64;  // records between looks at the free space

enum class Stored : uint32_t { kFloat = 0, kBFloat16 = 1 };

struct FileHead {
  char magic[8];
  uint32_t width;
  uint32_t checksum;  // of what stands before it
};

struct RecordHead {
  uint32_t magic;
  uint32_t tokens;
  Stored stored;
  uint32_t body_checksum;
  uint64_t key;  // of the ids
  uint32_t reserved;
  uint32_t checksum;  // of what stands before it
};
static_assert(sizeof(FileHead) == 16 && sizeof(RecordHead) == 32, "written to files as they are");

uint32_t checksum_of(const void* bytes, size_t count) {
  return static_cast<uint32_t>(crc32_z(0, static_cast<const Bytef*>(bytes), count));
}

// FNV-1a, 64 bits; `basis` makes independent ones.
uint64_t hash_of(const void* bytes, size_t count, uint64_t basis = 0xcbf29ce484222325) {
  const auto* at = static_cast<const unsigned char*>(bytes);
  for (size_t i = 0; i < count; ++i) basis = (basis ^ at[i]) * 0x100000001b3;
  return basis;
}

uint64_t key_of(const std::vector<int32_t>& ids) { return hash_of(ids.data(), ids.size() * sizeof(int32_t)); }

uint64_t body_bytes(const RecordHead& head, uint64_t width) {
  const uint64_t value = head.stored == Stored::kFloat ? 4 : 2;
  const uint64_t bytes = head.tokens * (4 + width * value);
  return (bytes + 7) / 8 * 8;
}

bool sound(const RecordHead& head) {
  return head.magic == kRecordMagic && head.checksum == checksum_of(&head, offsetof(RecordHead, checksum)) &&
         head.tokens > 0 && head.tokens <= kMostTokens &&
         (head.stored == Stored::kFloat || head.stored == Stored::kBFloat16);
}

bool read_whole(int descriptor, void* bytes, size_t count, uint64_t offset) {
  return read_at(descriptor, bytes, count, offset) == static_cast<int64_t>(count);
}

uint64_t size_of(int descriptor) {
  struct stat facts {};
  return ::fstat(descriptor, &facts) == 0 ? static_cast<uint64_t>(facts.st_size) : 0;
}

}  // namespace

struct EmbeddingCache::Impl {
  struct File {
    std::filesystem::path path;
    int descriptor = -1;
    uint64_t scanned = 0;  // records before this offset are known
    bool usable = true;
  };
  struct Place {
    uint32_t file;
    uint64_t offset;
  };

  std::filesystem::path folder;
  std::string prefix;
  uint64_t width = 0;
  EmbeddingCacheLimits limits;
  std::vector<File> files;
  std::unordered_map<uint64_t, Place> places;
  int own = -1;  // index of the file that is written
  std::filesystem::path own_path;
  Counts counts;
  std::chrono::steady_clock::time_point refreshed;
  std::string buffer;

  ~Impl() {
    for (const File& file : files) {
      if (file.descriptor >= 0) ::close(file.descriptor);  // which gives up the lock
    }
  }

  std::filesystem::path name(int number) const { return folder / concat(prefix, number, ".embeddings"); }

  FileHead head() const {
    FileHead head{};
    std::memcpy(head.magic, kMagic, sizeof kMagic);
    head.width = static_cast<uint32_t>(width);
    head.checksum = checksum_of(&head, offsetof(FileHead, checksum));
    return head;
  }

  // Takes the first file that no other process writes. Where the file system has no locks, that is one that this
  // process makes itself.
  void claim_file() {
    bool warned = false;
    for (int number = 0; number < kMostFiles; ++number) {
      const auto path = name(number);
      int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
      const bool made = descriptor >= 0;
      if (!made && errno == EEXIST) descriptor = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
      if (descriptor < 0) return cannot_write(path, errno);
      const int code = lock_file(descriptor);
      if (code == ENOTSUP && !warned) {
        warned = true;
        log_warning(printable(folder.string(), 1000), ": the file system has no locks; each run adds embeddings to a ",
                    "file of its own");
      }
      if (code == 0 || (code == ENOTSUP && made)) return begin_file(path, descriptor);
      ::close(descriptor);
      if (code != EWOULDBLOCK && code != ENOTSUP) return cannot_write(path, code);
    }
    log_warning(printable(folder.string(), 1000), ": has ", kMostFiles,
                " files that other processes write or that can't be locked; this one only reads");
  }

  void cannot_write(const std::filesystem::path& path, int code) const {
    log_warning(printable(path.string(), 1000), ": can't be written (", std::generic_category().message(code),
                "); embeddings are only read from ", printable(folder.string(), 1000));
  }

  // Goes on behind the last whole record; what a crash has left behind it is cut off.
  void begin_file(const std::filesystem::path& path, int descriptor) {
    own = static_cast<int>(files.size());
    own_path = path;
    files.push_back({path, descriptor, 0, true});
    scan(static_cast<uint32_t>(own));
    File& file = files.back();
    const FileHead wanted = head();
    const bool fresh = file.scanned == 0;
    const bool cut = ::ftruncate(descriptor, static_cast<off_t>(file.scanned)) == 0;
    if (!cut || (fresh && !write_at(descriptor, &wanted, sizeof wanted, 0))) {
      stop_writing(std::generic_category().message(errno));
    }
    if (fresh) file.scanned = sizeof(FileHead);
    file.usable = true;
  }

  void stop_writing(const std::string& why) {
    log_warning(printable(own_path.string(), 1000), ": can't be written (", why, "); embeddings are no longer kept");
    own = -1;
    own_path.clear();
  }

  // Whether one more record may be written. Ends the writing when not.
  bool has_room() {
    if (places.size() >= limits.records) {
      stop_writing(concat("the cache has its ", limits.records, " records"));
      return false;
    }
    struct statvfs facts {};
    if (counts.added % kAddedPerLook != 0 || ::fstatvfs(files[static_cast<size_t>(own)].descriptor, &facts) != 0) {
      return true;
    }
    const uint64_t free = static_cast<uint64_t>(facts.f_bavail) * facts.f_frsize;
    if (free >= limits.free_bytes) return true;
    stop_writing(
        concat("only ", free >> 20, " MiB of the disk are free, ", limits.free_bytes >> 20, " are left to others"));
    return false;
  }

  // Learns of the records that came to the file since the last time.
  void scan(uint32_t index) {
    File& file = files[index];
    const uint64_t size = size_of(file.descriptor);
    if (size < file.scanned) file.scanned = 0;  // its writer has cut it
    if (file.scanned == 0) {
      FileHead found{};
      const FileHead wanted = head();
      if (size < sizeof found) return;
      file.usable =
          read_whole(file.descriptor, &found, sizeof found, 0) && std::memcmp(&found, &wanted, sizeof found) == 0;
      if (!file.usable) return;
      file.scanned = sizeof found;
    }
    RecordHead record{};
    while (file.scanned + sizeof record <= size && read_whole(file.descriptor, &record, sizeof record, file.scanned)) {
      if (!sound(record) || body_bytes(record, width) > size - file.scanned - sizeof record) return;
      // A later record of the same ids was written because the earlier one is damaged.
      const auto known = places.find(record.key);
      if (known != places.end()) {
        known->second = {index, file.scanned};
      } else if (places.size() < limits.records) {
        places.emplace(record.key, Place{index, file.scanned});
      }
      file.scanned += sizeof record + body_bytes(record, width);
    }
  }

  // Looks for files and records of other processes.
  void refresh() {
    refreshed = std::chrono::steady_clock::now();
    std::error_code code;
    for (const auto& entry : std::filesystem::directory_iterator(folder, code)) {
      const auto path = entry.path();
      const std::string leaf = path.filename().string();
      const std::string number = leaf.rfind(prefix, 0) == 0 ? path.stem().string().substr(prefix.size()) : "";
      const bool ours = !number.empty() && number.find_first_not_of("0123456789") == std::string::npos &&
                        path.extension() == ".embeddings" && entry.is_regular_file(code);
      const bool known = std::any_of(files.begin(), files.end(), [&](const File& file) { return file.path == path; });
      if (!ours || known || files.size() > 2 * kMostFiles) continue;
      const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
      if (descriptor >= 0) files.push_back({path, descriptor, 0, true});
    }
    for (size_t i = 0; i < files.size(); ++i) {
      if (static_cast<int>(i) != own && files[i].usable) scan(static_cast<uint32_t>(i));
    }
  }

  std::optional<at::Tensor> read(const Place& place, const std::vector<int32_t>& ids) {
    const int descriptor = files[place.file].descriptor;
    RecordHead record{};
    if (!read_whole(descriptor, &record, sizeof record, place.offset) || !sound(record)) return std::nullopt;
    if (record.tokens != ids.size()) return std::nullopt;
    buffer.resize(body_bytes(record, width));
    if (!read_whole(descriptor, buffer.data(), buffer.size(), place.offset + sizeof record)) return std::nullopt;
    if (checksum_of(buffer.data(), buffer.size()) != record.body_checksum) return std::nullopt;
    if (std::memcmp(buffer.data(), ids.data(), ids.size() * sizeof(int32_t)) != 0) return std::nullopt;
    at::Tensor values = at::empty({static_cast<int64_t>(ids.size()), static_cast<int64_t>(width)}, at::kFloat);
    const char* from = buffer.data() + ids.size() * sizeof(int32_t);
    if (record.stored == Stored::kFloat) {
      std::memcpy(values.data_ptr(), from, values.nbytes());
    } else {
      auto* out = static_cast<uint32_t*>(values.data_ptr());
      for (int64_t i = 0; i < values.numel(); ++i) {
        uint16_t high = 0;
        std::memcpy(&high, from + 2 * i, 2);
        out[i] = static_cast<uint32_t>(high) << 16;
      }
    }
    return values;
  }
};

EmbeddingCache::EmbeddingCache(const std::filesystem::path& folder, const std::string& identity, int64_t width,
                               const EmbeddingCacheLimits& limits)
    : impl_(new Impl) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  };
  if (identity.empty() || identity.size() > 100 || !std::all_of(identity.begin(), identity.end(), plain)) {
    fail("embedding cache: '", printable(identity), "' can't be part of a file's name");
  }
  if (width < 1 || width > (1 << 20)) fail("embedding cache: a width of ", width, " is not possible");
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (!std::filesystem::is_directory(folder, code)) {
    fail("embedding_cache: ", printable(folder.string(), 1000), " is no folder and can't be made");
  }
  impl_->folder = folder;
  impl_->prefix = identity + "-";
  impl_->width = static_cast<uint64_t>(width);
  impl_->limits = limits;
  impl_->claim_file();
  impl_->refresh();
}

EmbeddingCache::~EmbeddingCache() = default;
const EmbeddingCache::Counts& EmbeddingCache::counts() const { return impl_->counts; }
const std::filesystem::path& EmbeddingCache::own_file() const { return impl_->own_path; }

std::optional<at::Tensor> EmbeddingCache::find(const std::vector<int32_t>& ids) {
  const uint64_t key = key_of(ids);
  auto known = impl_->places.find(key);
  if (known == impl_->places.end() && std::chrono::steady_clock::now() - impl_->refreshed >= kRefreshInterval) {
    impl_->refresh();
    known = impl_->places.find(key);
  }
  if (known != impl_->places.end()) {
    if (auto values = impl_->read(known->second, ids)) {
      ++impl_->counts.hits;
      return values;
    }
    ++impl_->counts.damaged;
    impl_->places.erase(known);
  }
  ++impl_->counts.misses;
  return std::nullopt;
}

void EmbeddingCache::add(const std::vector<int32_t>& ids, const at::Tensor& values) {
  if (values.dim() != 2 || values.size(0) != static_cast<int64_t>(ids.size()) ||
      values.size(1) != static_cast<int64_t>(impl_->width) || values.scalar_type() != at::kFloat) {
    fail("embedding cache: ", ids.size(), " tokens of width ", impl_->width, " can't have values of shape ",
         values.sizes());
  }
  if (impl_->own < 0 || ids.empty() || ids.size() > kMostTokens || !impl_->has_room()) return;
  const at::Tensor host = values.to(at::kCPU).contiguous();
  const auto* bits = static_cast<const uint32_t*>(host.const_data_ptr());
  const auto count = static_cast<size_t>(host.numel());
  const bool narrow = std::all_of(bits, bits + count, [](uint32_t value) { return (value & 0xFFFF) == 0; });

  RecordHead record{};
  record.magic = kRecordMagic;
  record.tokens = static_cast<uint32_t>(ids.size());
  record.stored = narrow ? Stored::kBFloat16 : Stored::kFloat;
  record.key = key_of(ids);
  std::string& buffer = impl_->buffer;
  buffer.assign(sizeof record + body_bytes(record, impl_->width), '\0');
  char* at = buffer.data() + sizeof record;
  std::memcpy(at, ids.data(), ids.size() * sizeof(int32_t));
  at += ids.size() * sizeof(int32_t);
  if (narrow) {
    for (size_t i = 0; i < count; ++i) {
      const auto high = static_cast<uint16_t>(bits[i] >> 16);
      std::memcpy(at + 2 * i, &high, 2);
    }
  } else {
    std::memcpy(at, bits, host.nbytes());
  }
  record.body_checksum = checksum_of(buffer.data() + sizeof record, buffer.size() - sizeof record);
  record.checksum = checksum_of(&record, offsetof(RecordHead, checksum));
  std::memcpy(buffer.data(), &record, sizeof record);

  Impl::File& file = impl_->files[static_cast<size_t>(impl_->own)];
  if (!write_at(file.descriptor, buffer.data(), buffer.size(), file.scanned)) {
    const int reason = errno;
    // A part of a record is as good as none; the space may be wanted elsewhere.
    const bool cut = ::ftruncate(file.descriptor, static_cast<off_t>(file.scanned)) == 0;
    (void)cut;
    impl_->stop_writing(std::generic_category().message(reason));
    return;
  }
  const Impl::Place place{static_cast<uint32_t>(impl_->own), file.scanned};
  file.scanned += buffer.size();
  ++impl_->counts.added;
  impl_->places.insert_or_assign(record.key, place);
}

std::string embedding_identity(const TextModelFiles& files, const TextConfig& text, const std::string& padding_token,
                               at::Device device) {
  constexpr size_t kSample = 4096;
  std::string facts = concat("1;", static_cast<int>(text.text_precision), ";", padding_token, ";",
                             device.is_cpu() ? "cpu" : "cuda", ";");
  facts += read_text_file(files.config, size_t{1} << 20);
  for (const auto& path : files.weights) {
    std::error_code code;
    const auto target = std::filesystem::canonical(path, code);
    const auto bytes = FileBytes::open(code ? path : target);
    const auto changed = std::filesystem::last_write_time(bytes->path(), code).time_since_epoch().count();
    facts += concat(";", path.filename().string(), ";", bytes->size(), ";", changed, ";");
    const size_t sample = std::min(kSample, bytes->size());
    facts += bytes->view().substr(0, sample);
    facts += bytes->view().substr(bytes->size() - sample);
  }
  const uint64_t low = hash_of(facts.data(), facts.size());
  const uint64_t high = hash_of(facts.data(), facts.size(), 0x9e3779b97f4a7c15);
  char name[40];
  std::snprintf(name, sizeof name, "t5-%016llx%016llx", static_cast<unsigned long long>(low),
                static_cast<unsigned long long>(high));
  return name;
}

}  // namespace mdm
