// The pictures that are to be scored, wherever they lie; read one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace mdm {

/// Immutable but for set_captions(); functions may be called by several threads at a time.
///
/// What can be opened:
/// - a folder with a `lst.json` as `sample` writes it, or that file: [[path, caption], ...], paths relative to it;
/// - a folder of pictures (.jpg, .jpeg, .png, .webp, .bmp, .tga, .ppm, .pgm, .pnm), in the order of their names;
/// - a tar, or a folder of `*.tar`: their members with such names; captions where each has a KEY.txt beside it;
/// - a TSV as `train_parallel --file-list` takes it (data/dataset.h), with captions.
class PictureSet {
 public:
  /// DataError when there is no such thing, or no picture in it.
  static PictureSet open(const std::filesystem::path& where);
  PictureSet(PictureSet&&) noexcept;
  PictureSet& operator=(PictureSet&&) noexcept;
  ~PictureSet();

  size_t size() const;
  std::string name(size_t picture) const;  ///< safe for a log
  /// The picture's file. DataError when it can't be read.
  void read(size_t picture, std::vector<uint8_t>& bytes) const;

  bool has_captions() const;
  std::string caption(size_t picture) const;
  /// A caption for every picture, or for so many in a row each that all have one: 3 captions of 6 pictures are those of
  /// two pictures each. DataError when that doesn't come out even.
  void set_captions(std::vector<std::string> captions, const std::string& from);

 private:
  struct Impl;
  explicit PictureSet(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
