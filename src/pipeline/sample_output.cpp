#include "pipeline/sample_output.h"

#include <cstdio>

#include "mdm/core/files.h"
#include "mdm/media/decode.h"
#include "mdm/media/grid.h"
#include "mdm/media/png.h"
#include "mdm/media/resize.h"
#include "pipeline/settings.h"

namespace mdm {
namespace {

constexpr size_t kMaxGridPictures = 64;
constexpr int kMaxGridSide = 256;  // larger pictures stand in the grid smaller
constexpr int kLastFrameMs = 2000;

std::string numbered(size_t index, const char* suffix) {
  char name[64];
  std::snprintf(name, sizeof name, "sample_%06zu%s", index, suffix);
  return name;
}

}  // namespace

SampleOutput::SampleOutput(const Config& config, const SampleConfig& sample, std::string checkpoint_name,
                           std::vector<size_t> numbers)
    : config_(config),
      sample_(sample),
      checkpoint_name_(std::move(checkpoint_name)),
      folder_(sample.output_dir),
      numbers_(std::move(numbers)) {
  make_writable_folder(folder_);
}

void SampleOutput::add_frames(const GenerationStep& step) {
  if (sample_.animation == AnimationKind::kNone) return;
  if (step.step % sample_.animation_every != 0 && step.step != step.steps) return;
  for (size_t i = 0; i < step.count; ++i) {
    auto& encoder = animations_[step.first + i];
    if (!encoder) {
      AnimationOptions options;
      options.format =
          sample_.animation == AnimationKind::kWebp ? AnimationOptions::Format::kWebp : AnimationOptions::Format::kApng;
      options.last_delay_ms = kLastFrameMs;
      encoder = std::make_unique<AnimationEncoder>(options);
    }
    encoder->add(step.predicted(i));
  }
}

void SampleOutput::add(const std::vector<Picture>& pictures) {
  for (const Picture& picture : pictures) {
    const PngText text = sample_.metadata ? settings_text(picture, sample_, config_, checkpoint_name_) : PngText();
    const size_t number = numbers_.at(picture.index);
    const std::string name = numbered(number, ".png");
    write_png(folder_ / name, picture.image, text);
    if (picture.levels.width > 0) write_png(folder_ / numbered(number, "_levels.png"), picture.levels, text);
    const auto animation = animations_.find(picture.index);
    if (animation != animations_.end()) {
      const char* suffix = sample_.animation == AnimationKind::kWebp ? "_path.webp" : "_path.png";
      write_file(folder_ / numbered(number, suffix), animation->second->finish());
      animations_.erase(animation);
    }
    items_[number] = {name, picture.request.prompt};
    keep_for_grid(number, picture.image);
  }
}

void SampleOutput::keep_for_grid(size_t number, const Image& image) {
  if (!sample_.grid || number >= kMaxGridPictures) return;
  const int side = std::min(image.width, kMaxGridSide);
  for_grid_[number] = side == image.width ? image : resize(image, side, side);
}

void SampleOutput::add_of_others(size_t number, const std::string& caption) {
  const std::string name = numbered(number, ".png");
  items_[number] = {name, caption};
  if (sample_.grid && number < kMaxGridPictures) keep_for_grid(number, load_image(folder_ / name));
}

void SampleOutput::finish() {
  if (items_.empty()) return;
  std::vector<GalleryItem> items;
  for (const auto& [number, item] : items_) items.push_back(item);
  if (sample_.gallery) {
    write_gallery(folder_, items, "libmdm samples");
  } else {
    write_file(folder_ / "lst.json", gallery_json(items));
  }
  // Last, because it is the largest: on a full disk the list is there.
  if (for_grid_.size() < 2) return;
  std::vector<Image> images;
  for (const auto& [number, image] : for_grid_) images.push_back(image);
  write_png(folder_ / "grid.png", make_grid(images));
}

std::vector<size_t> SampleOutput::numbers() const {
  std::vector<size_t> out;
  for (const auto& [number, item] : items_) out.push_back(number);
  return out;
}

}  // namespace mdm
