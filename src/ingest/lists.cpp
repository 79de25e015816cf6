#include "ingest/lists.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>

#include "ingest/scrape_folder.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/random.h"
#include "mdm/data/tsv.h"

namespace mdm::ingest {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kStatsEnding = "_stats.json";

// One process at a time; where the file system has no locks, the last one to write wins.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& file) : descriptor_(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0) fail(printable(file.string(), 1000), ": ", std::generic_category().message(errno));
    while (lock_file(descriptor_) == EWOULDBLOCK) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ~FolderLock() { ::close(descriptor_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

std::vector<uint64_t> finished_shards(const fs::path& folder) {
  std::vector<uint64_t> numbers;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const size_t mark = name.find(kStatsEnding);
    if (mark == std::string::npos || mark == 0 || mark + std::string(kStatsEnding).size() != name.size()) continue;
    if (name.find_first_not_of("0123456789") != mark) continue;
    numbers.push_back(std::strtoull(name.c_str(), nullptr, 10));
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// A row of a shard's list: the line as it stands there, and its key.
struct ListedPicture {
  std::string key;
  std::string line;
};

struct ShardList {
  std::string header;
  std::vector<ListedPicture> pictures;
};

ShardList read_list(const fs::path& file) {
  const std::string text = read_text_file(file);
  TsvReader reader(text, file.string());
  const size_t name = reader.require("file");
  ShardList list;
  for (const auto& column : reader.columns()) list.header += (list.header.empty() ? "" : "\t") + column;
  std::vector<std::string> fields;
  for (auto result = reader.next(fields); result != TsvReader::Result::kEnd; result = reader.next(fields)) {
    if (result == TsvReader::Result::kBad) fail<DataError>(reader.problem());
    ListedPicture picture;
    picture.key = fields[name].substr(0, fields[name].find('.'));
    for (const auto& field : fields) picture.line += (picture.line.empty() ? "" : "\t") + tsv_field(field);
    list.pictures.push_back(std::move(picture));
  }
  return list;
}

// In [0, 2^32): below share * 2^32 a picture is for validation.
uint32_t place_of(const std::string& key, uint64_t seed) {
  RandomAddress address;
  address.seed = seed;
  address.stream = RandomStream::kShuffle;
  const std::string hash = sha256_hex(key).substr(0, 16);
  address.sample = std::strtoull(hash.c_str(), nullptr, 16);
  uint32_t bits = 0;
  random_bits(address, 0, &bits, 1);
  return bits;
}

// A shard, and how its pictures divide.
struct Divided {
  uint64_t number = 0;
  uint64_t train = 0, validation = 0;
};

// The picture of a place, and the shard it is in.
struct Extreme {
  uint32_t place = 0;
  std::string key;
  size_t shard = 0;  // in Division::shards_
};

class Division {
 public:
  Division(const fs::path& folder, const SplitSettings& split) : folder_(folder), split_(split) {
    for (const uint64_t number : finished_shards(folder)) shards_.push_back({number, 0, 0});
  }

  WrittenLists write() {
    const Json before = previous();
    const bool same = before.is_object() && before.value("seed", uint64_t{0}) == split_.seed &&
                      before.value("validation_share", -1.0) == split_.validation_share;
    const std::string moved_before = same ? before.value("moved", std::string()) : std::string();
    for (size_t i = 0; i < shards_.size(); ++i) count(i);
    choose_moved();
    for (const Divided& shard : shards_) {
      const ShardFiles files(folder_, shard.number);
      std::error_code ignored;
      const bool there = fs::exists(files.train(), ignored) && fs::exists(files.validation(), ignored);
      if (!same || !there || moved_ != moved_before) write_parts(files);
    }
    const Json now = {{"seed", split_.seed}, {"validation_share", split_.validation_share}, {"moved", moved_}};
    write_file(folder_ / "split.json", now.dump(2) + '\n');
    write_index("index.tsv", &ShardFiles::list, [](const Divided& shard) { return shard.train + shard.validation; });
    WrittenLists lists;
    lists.train = write_index("train.tsv", &ShardFiles::train, [](const Divided& shard) { return shard.train; });
    lists.validation =
        write_index("validation.tsv", &ShardFiles::validation, [](const Divided& shard) { return shard.validation; });
    return lists;
  }

 private:
  Json previous() const {
    try {
      return Json::parse(read_text_file(folder_ / "split.json", size_t{1} << 20), nullptr, /*allow_exceptions=*/false);
    } catch (const DataError&) {
      return {};
    }
  }

  bool below_share(uint32_t place) const { return place < split_.validation_share * 4294967296.0; }

  void count(size_t i) {
    for (const ListedPicture& picture : read_list(ShardFiles(folder_, shards_[i].number).list()).pictures) {
      const uint32_t place = place_of(picture.key, split_.seed);
      ++(below_share(place) ? shards_[i].validation : shards_[i].train);
      if (lowest_.key.empty() || place < lowest_.place) lowest_ = {place, picture.key, i};
      if (highest_.key.empty() || place > highest_.place) highest_ = {place, picture.key, i};
    }
  }

  // So that neither part is empty: the picture that is nearest to the other part.
  void choose_moved() {
    uint64_t train = 0, validation = 0;
    for (const Divided& shard : shards_) {
      train += shard.train;
      validation += shard.validation;
    }
    if (split_.validation_share == 0 || train + validation < 2) return;
    if (validation == 0) {
      moved_ = lowest_.key;
      --shards_[lowest_.shard].train;
      ++shards_[lowest_.shard].validation;
    } else if (train == 0) {
      moved_ = highest_.key;
      ++shards_[highest_.shard].train;
      --shards_[highest_.shard].validation;
    }
  }

  void write_parts(const ShardFiles& files) const {
    const ShardList list = read_list(files.list());
    std::string train = list.header + '\n', validation = train;
    for (const ListedPicture& picture : list.pictures) {
      const bool chosen = below_share(place_of(picture.key, split_.seed)) != (picture.key == moved_);
      (chosen ? validation : train) += picture.line + '\n';
    }
    write_file(files.train(), train);
    write_file(files.validation(), validation);
  }

  // The index of the shards that have rows (a shard TSV without rows is an error for who opens it); empty: of none.
  fs::path write_index(const char* name, fs::path (ShardFiles::*file)() const, uint64_t (*rows)(const Divided&)) const {
    std::string text = "filename\n";
    bool any = false;
    for (const Divided& shard : shards_) {
      if (rows(shard) == 0) continue;
      any = true;
      text += tsv_field((ShardFiles(folder_, shard.number).*file)().filename().string()) + '\n';
    }
    if (!any) {
      std::error_code ignored;
      fs::remove(folder_ / name, ignored);
      return {};
    }
    write_file(folder_ / name, text);
    return folder_ / name;
  }

  fs::path folder_;
  SplitSettings split_;
  std::vector<Divided> shards_;
  Extreme lowest_, highest_;
  std::string moved_;
};

}  // namespace

WrittenLists write_lists(const fs::path& folder, const SplitSettings& split) {
  const FolderLock lock(folder / ".lists.lock");
  remove_cut_off(folder, 0, 1, /*lists=*/true);
  return Division(folder, split).write();
}

}  // namespace mdm::ingest
