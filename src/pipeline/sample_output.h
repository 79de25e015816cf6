// The files that a run of `sample` leaves.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mdm/media/animation.h"
#include "mdm/media/gallery.h"
#include "mdm/pipeline.h"

namespace mdm {

// Writes pictures as they come; finish() writes what shows all of them.
class SampleOutput {
 public:
  // Throws Error when the folder can't be written.
  SampleOutput(const Config& config, const SampleConfig& sample, std::string checkpoint_name);

  void add_frames(const GenerationStep& step);
  void add(const std::vector<Picture>& pictures);
  void finish();
  size_t count() const { return items_.size(); }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  const Config& config_;
  const SampleConfig& sample_;
  std::string checkpoint_name_;
  std::filesystem::path folder_;
  std::vector<GalleryItem> items_;
  std::vector<Image> for_grid_;
  std::map<size_t, std::unique_ptr<AnimationEncoder>> animations_;  // by picture, of the batch that is running
};

}  // namespace mdm
