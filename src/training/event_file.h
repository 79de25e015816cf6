// TensorBoard's event files: protocol buffers of tensorflow.Event in TFRecord frames.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mdm/training/metrics.h"

namespace mdm::events {

/// CRC-32C (Castagnoli), continued from `crc` (0 at first).
uint32_t crc32c(std::string_view bytes, uint32_t crc = 0);

/// `message` as a TFRecord: its length, and both under their masked CRC-32C.
std::string framed(std::string_view message);

// Serialised tensorflow.Event messages. `time`: seconds since 1970.
std::string file_version(double time);
std::string session_start(double time, int64_t step);
std::string scalars(double time, int64_t step, const std::vector<std::pair<std::string, double>>& values);
std::string image(double time, int64_t step, std::string_view tag, const Image& image, std::string_view png);
std::string text(double time, int64_t step, std::string_view tag, std::string_view text);
/// The three events of the hparams plugin: what there is, this run's values, and (written at once, as a run may
/// be killed) that it is running.
std::vector<std::string> hparams(double time, const std::map<std::string, HparamValue>& values,
                                 const std::vector<std::string>& metrics);

}  // namespace mdm::events
