// What the tests of this room share: a folder that is gone with the test, small pictures, and looks at what was
// written.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "mdm/core/files.h"
#include "mdm/data/tsv.h"
#include "mdm/media/jpeg.h"

namespace mdm::ingest_test {

namespace fs = std::filesystem;

class FolderTest : public testing::Test {
 protected:
  FolderTest() {
    std::string name = (fs::path(testing::TempDir()) / "mdm_ingest_XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~FolderTest() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  fs::path write(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }
  fs::path folder_;
};

/// A JPEG that no other number gives.
inline std::string jpeg(int number, int width = 48, int height = 32) {
  Image image(width, height, 3);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      uint8_t* pixel = image.row(y) + 3 * x;
      pixel[0] = static_cast<uint8_t>(x * 5 + number);
      pixel[1] = static_cast<uint8_t>(y * 7 + number / 256 * 11);
      pixel[2] = static_cast<uint8_t>(number * 13);
    }
  }
  std::string bytes = encode_jpeg(image, 90);
  const std::string text = std::to_string(number);
  const std::string comment = std::string("\xFF\xFE\x00", 3) + static_cast<char>(text.size() + 2) + text;
  return bytes.insert(2, comment);
}

/// Records of a TSV without its first line, all fields.
inline std::vector<std::vector<std::string>> records(const fs::path& file) {
  const std::string text = read_text_file(file);
  TsvReader reader(text, file.string());
  std::vector<std::vector<std::string>> all;
  std::vector<std::string> fields;
  for (auto result = reader.next(fields); result != TsvReader::Result::kEnd; result = reader.next(fields)) {
    EXPECT_EQ(result, TsvReader::Result::kRecord) << reader.problem();
    all.push_back(fields);
  }
  return all;
}

inline std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

}  // namespace mdm::ingest_test
