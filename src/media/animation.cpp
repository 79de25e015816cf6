// APNG, put together from the frames' PNGs, and WebP by libwebpmux.
#include "mdm/media/animation.h"

#include <webp/encode.h>
#include <webp/mux.h>

#include <algorithm>
#include <cstring>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/media/png.h"
#include "media/png_chunks.h"

namespace mdm {
namespace {

constexpr int kMostWebpSide = 16383;

struct WebpPicture {
  WebPPicture value;
  WebpPicture() {
    if (WebPPictureInit(&value) == 0) fail<Error>("libwebp has another version than its headers");
  }
  ~WebpPicture() { WebPPictureFree(&value); }
  WebpPicture(const WebpPicture&) = delete;
  WebpPicture& operator=(const WebpPicture&) = delete;
};

// All IDAT data of a PNG.
std::string pixel_data(const std::string& png) {
  std::string data;
  detail::walk_png_chunks(
      {reinterpret_cast<const uint8_t*>(png.data()), png.size(), "a frame"}, [](std::string_view) { return false; },
      [&](std::string_view type, std::string_view body) {
        if (type == "IDAT") data += body;
      });
  return data;
}

}  // namespace

struct AnimationEncoder::Impl {
  struct WebpDeleter {
    void operator()(WebPAnimEncoder* encoder) const { WebPAnimEncoderDelete(encoder); }
  };

  AnimationOptions options;
  int width = 0;
  int height = 0;
  int channels = 0;
  size_t frames = 0;
  bool finished = false;

  // APNG: the file up to now. Counts and delays that are known last are patched at these places.
  std::string apng;
  uint32_t sequence = 0;
  size_t control_at = 0;
  size_t frame_control_at = 0;

  std::unique_ptr<WebPAnimEncoder, WebpDeleter> webp;
  int64_t time_ms = 0;

  void add_apng(const Image& frame);
  void start_webp();
  void add_webp(const Image& frame);
  std::string finish_apng();
  std::string finish_webp();

  // Rewrites a chunk that was appended at `at` with data of the same length.
  void patch_chunk(size_t at, std::string_view type, std::string_view data) {
    std::string chunk;
    detail::append_png_chunk(chunk, type, data);
    apng.replace(at, chunk.size(), chunk);
  }
  std::string animation_control() const {
    std::string data;
    detail::append_be32(data, static_cast<uint32_t>(frames));
    detail::append_be32(data, static_cast<uint32_t>(options.loop));
    return data;
  }
  std::string frame_control(uint32_t number, int delay_ms) const {
    std::string data;
    detail::append_be32(data, number);
    detail::append_be32(data, static_cast<uint32_t>(width));
    detail::append_be32(data, static_cast<uint32_t>(height));
    detail::append_be32(data, 0);  // place on the canvas
    detail::append_be32(data, 0);
    detail::append_be16(data, static_cast<uint16_t>(delay_ms));
    detail::append_be16(data, 1000);
    data.append(2, '\0');  // leave the frame, replace what was there
    return data;
  }
  int last_delay() const { return options.last_delay_ms > 0 ? options.last_delay_ms : options.delay_ms; }
};

void AnimationEncoder::Impl::add_apng(const Image& frame) {
  const std::string png = encode_png(frame);
  const std::string pixels = pixel_data(png);
  if (frames == 0) {
    apng = png.substr(0, 33);  // signature and IHDR
    control_at = apng.size();
    detail::append_png_chunk(apng, "acTL", animation_control());
  }
  frame_control_at = apng.size();
  detail::append_png_chunk(apng, "fcTL", frame_control(sequence++, options.delay_ms));
  if (frames == 0) {
    detail::append_png_chunk(apng, "IDAT", pixels);
    return;
  }
  std::string data;
  detail::append_be32(data, sequence++);
  detail::append_png_chunk(apng, "fdAT", data + pixels);
}

std::string AnimationEncoder::Impl::finish_apng() {
  patch_chunk(control_at, "acTL", animation_control());
  const uint32_t number = frames == 1 ? 0 : sequence - 2;
  patch_chunk(frame_control_at, "fcTL", frame_control(number, last_delay()));
  detail::append_png_chunk(apng, "IEND", {});
  return std::move(apng);
}

void AnimationEncoder::Impl::start_webp() {
  if (width > kMostWebpSide || height > kMostWebpSide) {
    fail<Error>("a WebP animation of ", width, " x ", height, " pixels is not possible, sides end at ", kMostWebpSide);
  }
  WebPAnimEncoderOptions settings;
  if (WebPAnimEncoderOptionsInit(&settings) == 0) fail<Error>("libwebp has another version than its headers");
  settings.anim_params.loop_count = options.loop;
  webp.reset(WebPAnimEncoderNew(width, height, &settings));
  if (!webp) fail<Error>("a WebP animation could not be started");
}

void AnimationEncoder::Impl::add_webp(const Image& frame) {
  if (!webp) start_webp();
  WebPConfig config;
  if (WebPConfigInit(&config) == 0) fail<Error>("libwebp has another version than its headers");
  config.lossless = options.webp_quality > 100 ? 1 : 0;
  config.quality = config.lossless != 0 ? 50 : options.webp_quality;
  config.method = 3;
  WebpPicture picture;
  picture.value.width = width;
  picture.value.height = height;
  picture.value.use_argb = 1;
  const Image rgb = frame.channels < 3 ? to_rgb(frame, AlphaRule::kOnWhite) : Image();
  const Image& source = frame.channels < 3 ? rgb : frame;
  const auto import = source.channels == 4 ? WebPPictureImportRGBA : WebPPictureImportRGB;
  if (import(&picture.value, source.pixels.data(), static_cast<int>(source.row_bytes())) == 0 ||
      WebPAnimEncoderAdd(webp.get(), &picture.value, static_cast<int>(time_ms), &config) == 0) {
    fail<Error>("frame ", frames, " of a WebP animation: ", WebPAnimEncoderGetError(webp.get()));
  }
  time_ms += options.delay_ms;
}

std::string AnimationEncoder::Impl::finish_webp() {
  const int64_t end = time_ms - options.delay_ms + last_delay();
  WebPData data;
  WebPDataInit(&data);
  if (WebPAnimEncoderAdd(webp.get(), nullptr, static_cast<int>(end), nullptr) == 0 ||
      WebPAnimEncoderAssemble(webp.get(), &data) == 0) {
    fail<Error>("a WebP animation: ", WebPAnimEncoderGetError(webp.get()));
  }
  const std::unique_ptr<WebPData, void (*)(WebPData*)> guard(&data, WebPDataClear);
  return std::string(reinterpret_cast<const char*>(data.bytes), data.size);
}

AnimationEncoder::AnimationEncoder(const AnimationOptions& options) : impl_(std::make_unique<Impl>()) {
  const auto check = [](const char* what, double value, double least, double most) {
    if (!(value >= least && value <= most)) {
      fail<ConfigError>("animation: ", what, " is ", value, ", allowed are ", least, " to ", most);
    }
  };
  check("the delay in ms", options.delay_ms, 1, 60000);
  check("the delay of the last frame in ms", options.last_delay_ms, 0, 60000);
  check("the number of loops", options.loop, 0, 65535);
  check("the WebP quality", options.webp_quality, 0, 1000);
  impl_->options = options;
}

AnimationEncoder::~AnimationEncoder() = default;
AnimationEncoder::AnimationEncoder(AnimationEncoder&&) noexcept = default;
AnimationEncoder& AnimationEncoder::operator=(AnimationEncoder&&) noexcept = default;

void AnimationEncoder::add(const Image& frame) {
  check_image(frame, "AnimationEncoder");
  if (impl_->finished) fail<Error>("animation: a frame after the end");
  if (impl_->frames == 0) {
    impl_->width = frame.width;
    impl_->height = frame.height;
    impl_->channels = frame.channels;
  }
  if (frame.width != impl_->width || frame.height != impl_->height || frame.channels != impl_->channels) {
    fail<Error>("animation: frame ", impl_->frames, " has ", frame.width, " x ", frame.height, " pixels with ",
                frame.channels, " channels, the first one ", impl_->width, " x ", impl_->height, " with ",
                impl_->channels);
  }
  if (impl_->options.format == AnimationOptions::Format::kApng) {
    impl_->add_apng(frame);
  } else {
    impl_->add_webp(frame);
  }
  ++impl_->frames;
}

size_t AnimationEncoder::frames() const { return impl_->frames; }

std::string AnimationEncoder::finish() {
  if (impl_->frames == 0 || impl_->finished) fail<Error>("animation: there are no frames");
  impl_->finished = true;
  return impl_->options.format == AnimationOptions::Format::kApng ? impl_->finish_apng() : impl_->finish_webp();
}

void write_animation(const std::filesystem::path& path, const std::vector<Image>& frames,
                     const AnimationOptions& options) {
  AnimationEncoder encoder(options);
  for (const Image& frame : frames) encoder.add(frame);
  write_file(path, encoder.finish());
}

}  // namespace mdm
