// Tar archives: an index of the members for random access, and a writer. Nothing is ever extracted: names are only
// compared, so `..` and absolute names do no harm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mdm/core/files.h"

namespace mdm {

struct TarMember {
  std::string name;
  uint64_t offset = 0;  ///< of the content, in bytes from the archive's start
  uint64_t size = 0;    ///< in bytes
};

/// Where the regular files of an archive are.
///
/// Formats: v7, ustar (with prefix), pax (`path` and `size` of extended headers), GNU (long names, base-256 sizes).
/// Directories, links, devices, sparse files and what else is not a regular file are passed over and counted. Names
/// match byte by byte; of members with the same name the last one counts.
///
/// Damage (a header whose checksum is wrong, a length that leaves the archive, a cut file): the members before it
/// are usable and problem() says what is wrong, so that a download that was cut costs only its end. A missing end
/// mark (blocks of zeros) alone is no damage. DataError when not even the first header is sound (compressed
/// archives are named as such). Memory is bounded by the archive's size: names have at most kMaxNameBytes, extended
/// headers kMaxExtendedBytes.
class TarIndex {
 public:
  TarIndex(TarIndex&&) = default;
  TarIndex& operator=(TarIndex&&) = default;

  static constexpr size_t kMaxNameBytes = size_t{1} << 14;
  static constexpr size_t kMaxExtendedBytes = size_t{1} << 20;

  /// Copies `count` bytes at `offset` to `target`; false when the archive ends before, DataError when it can't be
  /// read.
  using ReadAt = std::function<bool(uint64_t offset, void* target, size_t count)>;

  static TarIndex build(const ReadAt& read_at, uint64_t size, const std::string& name);
  static TarIndex build(std::string_view bytes, const std::string& name);
  static TarIndex open(const std::filesystem::path& file);

  /// In the order of the archive, without those that a later one replaces.
  const std::vector<TarMember>& members() const { return members_; }
  /// The member, or null.
  const TarMember* find(std::string_view name) const;
  /// Empty when the archive is whole; else where and why the index ends.
  const std::string& problem() const { return problem_; }
  /// Whether a block of zeros ends the archive (the reference's reader refuses archives without one).
  bool ended() const { return ended_; }
  /// Where the index ends, in bytes from the archive's start: before the end mark or the damage.
  uint64_t end() const { return end_; }
  uint64_t skipped() const { return skipped_; }    ///< members that are no regular files
  uint64_t folders() const { return folders_; }    ///< of these, folders
  uint64_t replaced() const { return replaced_; }  ///< members that a later one replaces

 private:
  friend class TarIndexer;
  TarIndex() = default;

  std::vector<TarMember> members_;
  std::unordered_map<std::string_view, size_t> by_name_;  // views of members_: moving a vector moves no element
  std::string problem_;
  bool ended_ = false;
  uint64_t end_ = 0;
  uint64_t skipped_ = 0;
  uint64_t folders_ = 0;
  uint64_t replaced_ = 0;
};

/// Appends a member (headers, content, padding) to the bytes of an archive, as TarWriter writes it. Error when the name
/// is empty, holds NUL, or is longer than TarIndex::kMaxNameBytes.
void append_tar_member(std::string& archive, std::string_view name, std::string_view content);
/// The zeros that end an archive.
std::string_view tar_end();

/// Writes an archive that appears when finish() has run: ustar, with a pax header where a name is longer than ustar
/// allows (255 bytes with a '/' at the right place, else 100). The same calls give the same bytes: mode 0644, owner 0,
/// time 0.
class TarWriter {
 public:
  explicit TarWriter(const std::filesystem::path& file);
  ~TarWriter();

  /// Error as append_tar_member().
  void add(std::string_view name, std::string_view content);
  void finish();
  uint64_t bytes() const { return file_.size(); }

 private:
  AtomicFile file_;
  std::string member_;  // its memory is used again
};

}  // namespace mdm
