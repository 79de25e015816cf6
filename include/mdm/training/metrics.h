// What a run writes down about itself: TensorBoard event files and metrics.jsonl.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "mdm/media/image.h"

namespace mdm {

struct MetricsOptions {
  std::filesystem::path folder;  ///< gets events.out.tfevents.* and metrics.jsonl; made when it is absent
  /// The first step that this run will write. Of an earlier run's records, those of this step and later are
  /// taken back: metrics.jsonl is cut (atomically), TensorBoard is told by a SessionLog START.
  int64_t first_step = 0;
  double flush_seconds = 10;  ///< what is written is handed to the system at least this often
};

using HparamValue = std::variant<bool, double, std::string>;

/// Writes scalars, pictures, texts and hyperparameters. Nothing here throws once the object is made, and making
/// it throws Error only when the folder can't be made: a failed write (a full disk) is logged once and ends the
/// writing of that file, not the run. Not for use by several threads at a time.
class MetricsWriter {
 public:
  explicit MetricsWriter(const MetricsOptions& options);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;

  /// One event, and one line {"step": ..., "time": ..., name: value, ...} of metrics.jsonl. Values that are not
  /// finite are written as such in events and as null in JSON.
  void scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values);
  /// A picture, as PNG.
  void image(int64_t step, std::string_view tag, const Image& image);
  /// A text, which TensorBoard shows as Markdown.
  void text(int64_t step, std::string_view tag, std::string_view text);
  /// The run's settings, and the names of the scalars that it is judged by.
  void hparams(const std::map<std::string, HparamValue>& values, const std::vector<std::string>& metrics);

  /// Hands everything to the system now.
  void flush();
  /// Whether a write has failed since the start.
  bool failed() const;
  const std::filesystem::path& event_file() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
