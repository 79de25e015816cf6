// A set of captioned images: which there are, where each lies, and its bytes. Captions and places are in memory,
// images stay in their tar files.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace mdm {

struct DatasetOptions {
  /// Makes `http(s)://` and `s3://` names in lists readable: gives the local copy of a file. Called by one thread.
  /// Empty: such names are a DataError.
  std::function<std::filesystem::path(const std::string& url)> resolve_url;
  /// Columns of the shards (or numbers of webdataset JSON files) whose values are kept.
  std::vector<std::string> numbers;
  /// The columns text_tar and text_file name a .npy for each sample (webdataset archives have none: DataError).
  bool embeddings = false;
  /// As the reference's reader: bad lines, archives without their end mark and lists without rows are errors, and
  /// samples whose member is missing stay in the order (reading one is a DataError).
  bool mlx = false;
  double max_bad_fraction = 0.01;  ///< a larger share of bad rows (of 100 or more) is a DataError, [0, 1]
  int threads = 0;                 ///< that index archives; 0: as many as the machine has, at most 16
  int64_t max_open_files = -1;     ///< archives held open; -1, and at most: half of what the system allows
};

/// Immutable after open(); functions may be called by several threads at a time.
///
/// What can be opened:
/// - an index TSV (column `filename`): the shards that it names, in its order;
/// - a shard TSV (columns `tar`, `file`, `caption`, and others): see tsv.h;
/// - a webdataset archive (`NAME.tar`), a folder of these (`*.tar`, by name), or an index TSV that names such
///   archives: members `KEY.jpg|jpeg|png|webp|bmp|tga|ppm|pgm|pnm` with `KEY.txt`, or `KEY.json` with the text
///   "caption". KEY ends at the first dot of the last part of the name.
/// Names in lists are relative to the working directory, as in the reference, or to the list's own folder where
/// only that has them (to the list's URL when it has one).
///
/// A list or archive that is missing or empty is a DataError. Bad rows are counted by kind and left out, the first
/// 20 are logged: "line" (no record of the dialect), "member" (the archive lacks the file, or it has more than
/// 256 MiB), "caption" (webdataset: none, or not to be read).
class Dataset {
 public:
  static std::shared_ptr<const Dataset> open(const std::string& list, const DatasetOptions& options = {});
  ~Dataset();

  size_t size() const;
  /// As the list has it: any bytes, meant to be UTF-8.
  std::string_view caption(size_t sample) const;
  /// Name of the image in its archive.
  std::string_view file(size_t sample) const;
  /// The archive as the list names it.
  const std::string& archive(size_t sample) const;
  /// "ARCHIVE: FILE", safe for a log.
  std::string where(size_t sample) const;

  /// The image's file. DataError when the archive can't be read (any more).
  void read_image(size_t sample, std::vector<uint8_t>& bytes) const;
  /// (L, D) float32; DataError.
  at::Tensor read_embedding(size_t sample) const;
  /// Size of the largest file that read_embedding() reads; 0 without embeddings.
  size_t largest_embedding_bytes() const;

  /// Whether any row has a value for the column (one of DatasetOptions::numbers).
  bool has_number(const std::string& column) const;
  /// The value, or NaN where the row has none or no number.
  float number(const std::string& column, size_t sample) const;

  /// Rows that were left out, by kind.
  const std::map<std::string, uint64_t>& bad_rows() const;

 private:
  friend class DatasetBuilder;
  Dataset();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The matrix in a .npy file (version 1 to 3, '<f4', C order, two dimensions); DataError that names `name`.
at::Tensor read_npy_matrix(std::string_view bytes, const std::string& name);

}  // namespace mdm
