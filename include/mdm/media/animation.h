// Moving pictures: APNG (every browser, no loss) and WebP (smaller).
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "mdm/media/image.h"

namespace mdm {

struct AnimationOptions {
  enum class Format { kApng, kWebp } format = Format::kApng;
  int delay_ms = 100;       ///< how long a frame stays, 1 to 60000
  int last_delay_ms = 0;    ///< the last frame's; 0 = delay_ms
  int loop = 0;             ///< how often it plays; 0 = for ever
  float webp_quality = 90;  ///< 0 to 100; above 100 = no loss
};

/// Takes frames one by one, so that only their compressed form is kept.
class AnimationEncoder {
 public:
  /// ConfigError when an option is out of range.
  explicit AnimationEncoder(const AnimationOptions& options);
  ~AnimationEncoder();
  AnimationEncoder(AnimationEncoder&&) noexcept;
  AnimationEncoder& operator=(AnimationEncoder&&) noexcept;

  /// Error when the size or the channels differ from the first frame's. For WebP gray becomes RGB (its alpha
  /// over white), and a side is at most 16383 pixels.
  void add(const Image& frame);
  size_t frames() const;
  /// The file as bytes; the encoder can't be used afterwards. Error when there was no frame.
  std::string finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// All frames into a file that appears complete or not at all.
void write_animation(const std::filesystem::path& path, const std::vector<Image>& frames,
                     const AnimationOptions& options);

}  // namespace mdm
