#include "apps/workshop.h"

#include <fstream>
#include <sstream>

#include "mdm/media/decode.h"
#include "mdm/media/png.h"

namespace mdm::apps_test {
namespace {

namespace fs = std::filesystem;

// Kept for all tests of the process.
const Folder& shared_folder() {
  static const Folder folder;
  return folder;
}

std::string fresh(bool nested) {
  const std::string file = shared_folder().file(nested ? "nested.pth" : "flat.pth");
  const Outcome made = checkpoint({"init", file, "--config-path", demo_config(nested), "--randomize", "1"});
  if (made.code != 0) throw std::runtime_error("checkpoint init failed: " + made.err);
  return file;
}

}  // namespace

Folder::Folder() {
  std::string name = (fs::path(::testing::TempDir()) / "mdm_apps_XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no folder " + name);
  path_ = name;
}

Folder::~Folder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string Folder::write(const std::string& name, const std::string& bytes) const {
  std::ofstream(path_ / name, std::ios::binary) << bytes;
  return file(name);
}

fs::path project() { return fs::path(MDM_PROJECT_DIR); }

std::string demo_config(bool nested) {
  return (project() / "configs/demo" / (nested ? "tiny_nested_64.yaml" : "tiny_32.yaml")).string();
}

const std::string& flat_checkpoint() {
  static const std::string file = fresh(false);
  return file;
}

const std::string& nested_checkpoint() {
  static const std::string file = fresh(true);
  return file;
}

Outcome sample(const Words& arguments, const RunOptions& options) { return run(MDM_SAMPLE, arguments, options); }
Outcome checkpoint(const Words& arguments, const RunOptions& options) {
  return run(MDM_CHECKPOINT, arguments, options);
}

Words quick(const std::string& checkpoint, const std::string& folder, const Words& more) {
  Words all = {"--checkpoint", checkpoint, "--sample-dir", folder, "--num-inference-steps", "2", "--seed", "5"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::string bytes_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  EXPECT_TRUE(in) << file;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

Image picture(const fs::path& file) { return load_image(file); }

nlohmann::json settings_in(const fs::path& png) {
  const PngText text = read_png_text(png);
  const std::string* found = find_png_text(text, kPngSettingsKey);
  EXPECT_NE(found, nullptr) << png;
  return found == nullptr ? nlohmann::json() : nlohmann::json::parse(*found);
}

nlohmann::json json_of(const fs::path& file) { return nlohmann::json::parse(bytes_of(file)); }

std::vector<std::string> captions(const fs::path& folder) {
  std::vector<std::string> out;
  for (const auto& item : json_of(folder / "lst.json")) out.push_back(item.at(1).get<std::string>());
  return out;
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

void expect_failure(const Outcome& outcome, int code, const std::vector<std::string>& parts) {
  EXPECT_FALSE(outcome.timed_out);
  EXPECT_EQ(outcome.signal, 0);
  EXPECT_EQ(outcome.code, code) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_NE(outcome.err.find("error: "), std::string::npos) << outcome.err;
  for (const std::string& part : parts) {
    EXPECT_NE(outcome.err.find(part), std::string::npos) << "no '" << part << "' in: " << outcome.err;
  }
}

void expect_success(const Outcome& outcome) {
  EXPECT_FALSE(outcome.timed_out);
  EXPECT_EQ(outcome.signal, 0);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err.find("error: "), std::string::npos) << outcome.err;
}

}  // namespace mdm::apps_test
