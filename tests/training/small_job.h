// What train_parallel needs for a training of milliseconds a step: pictures, captions, a vocabulary, two configs.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace mdm::training_test {

constexpr int kSmallJobSamples = 24;

/// The caption of a sample of train.tar.
const char* small_job_caption(int sample);

/// Writes train.tar (24 pictures of 8 x 8, "0.png" to "23.png", with captions), train.tsv (the same as a list),
/// vocabulary.vocab (for the text encoder that is trained along), flat.yaml and nested.yaml (12 steps of 4 samples, a
/// checkpoint every 5; what is logged is logged in each step).
void write_small_job(const std::filesystem::path& folder);

/// The command that trains on it: `program` is train_parallel, `config` "flat.yaml" or "nested.yaml"; flags may follow.
std::vector<std::string> small_job_command(const std::string& program, const std::filesystem::path& folder,
                                           const std::string& config, const std::filesystem::path& run);

}  // namespace mdm::training_test
