// What train_parallel needs for a training of milliseconds a step: pictures, captions, a vocabulary, two configs.
#pragma once

#include <filesystem>

namespace mdm::training_test {

constexpr int kSmallJobSamples = 24;

/// The caption of a sample of train.tar.
const char* small_job_caption(int sample);

/// Writes train.tar (24 pictures of 8 x 8, "0.png" to "23.png", with captions), train.tsv (the same as a list),
/// vocabulary.vocab (for the text encoder that is trained along), flat.yaml and nested.yaml (12 steps of 4 samples, a
/// checkpoint every 5; what is logged is logged in each step).
void write_small_job(const std::filesystem::path& folder);

}  // namespace mdm::training_test
