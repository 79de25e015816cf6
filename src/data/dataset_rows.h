// How a data set is kept in memory: 32 bytes a sample, and the texts behind each other.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/archive_file.h"
#include "mdm/data/dataset.h"

namespace mdm {

inline constexpr uint32_t kMissingMember = UINT32_MAX;
inline constexpr uint32_t kLargeMember = UINT32_MAX - 1;
inline constexpr uint64_t kMostMemberBytes = uint64_t{256} << 20;

/// Where the bytes of a member are.
struct MemberPlace {
  uint64_t offset = 0;
  uint32_t size = kMissingMember;
  uint32_t archive = 0;
};

/// Why the member can't be read; empty when it can.
std::string problem_of(const MemberPlace& place);

struct DatasetRow {
  MemberPlace image;
  uint64_t text = 0;  ///< in Impl::texts: the file name and behind it the caption
  uint32_t file_bytes = 0;
  uint32_t caption_bytes = 0;
};

struct Dataset::Impl {
  std::vector<DatasetRow> rows;
  std::string texts;
  std::vector<std::string> archives;                  ///< as the lists name them
  std::map<std::string, std::vector<float>> numbers;  ///< one a row
  std::vector<MemberPlace> embeddings;                ///< one a row, or none
  size_t largest_embedding = 0;                       ///< in bytes
  std::map<std::string, uint64_t> bad_rows;
  std::unique_ptr<detail::ArchivePool> pool;

  std::string_view file(const DatasetRow& row) const { return {texts.data() + row.text, row.file_bytes}; }
  std::string_view caption(const DatasetRow& row) const {
    return {texts.data() + row.text + row.file_bytes, row.caption_bytes};
  }
};

/// A sample of a webdataset archive.
struct WebSample {
  std::string file;
  std::string caption;
  MemberPlace image;
  std::vector<float> numbers;  ///< as many as asked for
};

struct WebSamples {
  std::vector<WebSample> samples;
  std::vector<std::pair<const char*, std::string>> bad;  ///< kind and text
};

class TarIndex;
struct TarMember;

/// Members that share a key: the first of each kind. They point into the index.
struct WebParts {
  std::string_view key;
  const TarMember* image = nullptr;
  const TarMember* text = nullptr;
  const TarMember* json = nullptr;
  uint32_t images = 0;  ///< how many are pictures by their names
};

/// The name up to the first dot of its last part.
std::string_view web_key(std::string_view name);

/// Whether the part behind the key is that of a picture.
bool is_web_image(std::string_view name);

/// In the order of the archive; keys without a picture, too.
std::vector<WebParts> web_parts(const TarIndex& index);

/// Takes caption and numbers. Why there is no caption; empty when there is one.
std::string read_web_sample(const WebParts& part, const detail::ArchiveFile& file,
                            const std::vector<std::string>& numbers, WebSample& sample);

/// Groups the members of an archive by key.
WebSamples read_webdataset(const TarIndex& index, const detail::ArchiveFile& file, uint32_t archive,
                           const std::string& name, const std::vector<std::string>& numbers);

/// The number in a field, or NaN when it is none or not finite.
float number_of(std::string_view text);

}  // namespace mdm
