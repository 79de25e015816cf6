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
  // `numbers`: which pictures of the whole run this process makes, in the order of its requests. Throws Error when the
  // folder can't be written.
  SampleOutput(const Config& config, const SampleConfig& sample, std::string checkpoint_name,
               std::vector<size_t> numbers);

  void add_frames(const GenerationStep& step);
  void add(const std::vector<Picture>& pictures);
  // A picture that another process has written into the same folder.
  void add_of_others(size_t number, const std::string& caption);
  void finish();
  // Of the pictures added so far, ascending.
  std::vector<size_t> numbers() const;
  size_t count() const { return items_.size(); }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  void keep_for_grid(size_t number, const Image& image);

  const Config& config_;
  const SampleConfig& sample_;
  std::string checkpoint_name_;
  std::filesystem::path folder_;
  std::vector<size_t> numbers_;
  std::map<size_t, GalleryItem> items_;  // by number, as the next
  std::map<size_t, Image> for_grid_;
  std::map<size_t, std::unique_ptr<AnimationEncoder>> animations_;  // by request, of the batch that is running
};

}  // namespace mdm
