// What the tests of the programs share: folders, checkpoints made by the programs themselves, and a look
// at what was written.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "apps/child.h"
#include "mdm/media/image.h"

namespace mdm::apps_test {

/// A folder of its own, gone with the object.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& bytes) const;

 private:
  std::filesystem::path path_;
};

/// The checkout; its configs/demo is what the programs are tried with.
std::filesystem::path project();
std::string demo_config(bool nested);

/// A checkpoint with fresh weights of the demo's models, made once by `checkpoint init --randomize 1`.
const std::string& flat_checkpoint();
const std::string& nested_checkpoint();

using Words = std::vector<std::string>;
Outcome sample(const Words& arguments, const RunOptions& options = {});
Outcome checkpoint(const Words& arguments, const RunOptions& options = {});
/// `sample` with this checkpoint into this folder, two steps, seed 5, and further arguments.
Words quick(const std::string& checkpoint, const std::string& folder, const Words& more = {});

inline bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
std::string bytes_of(const std::filesystem::path& file);
Image picture(const std::filesystem::path& file);
/// The settings in a PNG of ours.
nlohmann::json settings_in(const std::filesystem::path& png);
nlohmann::json json_of(const std::filesystem::path& file);
/// Captions of a folder's lst.json.
std::vector<std::string> captions(const std::filesystem::path& folder);
std::set<std::string> names_in(const std::filesystem::path& folder);

/// Expects this exit code and all these parts in stderr, one line "error: ..." and nothing on stdout.
void expect_failure(const Outcome& outcome, int code, const std::vector<std::string>& parts);
void expect_success(const Outcome& outcome);

}  // namespace mdm::apps_test
