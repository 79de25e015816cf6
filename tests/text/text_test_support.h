// Where the tests of text find their files, and how they read them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

namespace mdm::text_test {

/// tests/golden/ of the project.
inline std::filesystem::path own_golden() { return std::filesystem::path(MDM_TEST_DATA) / "golden"; }

/// The folder of the reference's data files (MDM_REFERENCE_DIR, or shared/reference beside the project);
/// empty when there is none.
inline std::filesystem::path reference_folder() {
  if (const char* set = std::getenv("MDM_REFERENCE_DIR")) return set;
  const auto beside = std::filesystem::path(MDM_TEST_DATA) / "../../shared/reference";
  return std::filesystem::is_directory(beside) ? beside : std::filesystem::path();
}

/// The folder of the full set of goldens, beside the reference's; empty when there is none.
inline std::filesystem::path shared_golden() {
  const auto reference = reference_folder();
  if (reference.empty() || !std::filesystem::is_directory(reference / "../golden")) return {};
  return reference / "../golden";
}

inline std::vector<nlohmann::json> json_lines(const std::filesystem::path& file) {
  std::ifstream in(file);
  EXPECT_TRUE(in) << file;
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) lines.push_back(nlohmann::json::parse(line));
  }
  return lines;
}

/// A folder that is gone when the test ends.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "mdm_text_XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void write_text(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

/// How many mutants a hostile-input test tries: the variable MDM_MUTANTS, else `standard`.
inline int mutant_count(int standard) {
  const char* set = std::getenv("MDM_MUTANTS");
  return set != nullptr ? std::atoi(set) : standard;
}

/// `bytes` with some bits flipped, cut, a part repeated, or a byte set to an extreme.
inline std::string mutate(std::string bytes, std::mt19937_64& random) {
  const auto any = [&](size_t bound) { return static_cast<size_t>(random() % std::max<size_t>(bound, 1)); };
  for (size_t changes = 1 + any(4); changes > 0 && !bytes.empty(); --changes) {
    const size_t at = any(bytes.size());
    switch (any(6)) {
      case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << any(8))); break;
      case 1: bytes.resize(at); break;
      case 2: bytes[at] = static_cast<char>(std::array<int, 4>{0, 0x7F, 0x80, 0xFF}[any(4)]); break;
      case 3: {
        const std::string part = bytes.substr(at, any(64));
        bytes.insert(any(bytes.size()), part);
        break;
      }
      case 4: bytes.erase(at, any(64)); break;
      default:
        for (size_t i = at; i < std::min(bytes.size(), at + 4); ++i) bytes[i] = static_cast<char>(random());
    }
  }
  return bytes;
}

#define MDM_NEED_REFERENCE()                                                                     \
  do {                                                                                           \
    if (mdm::text_test::shared_golden().empty()) {                                               \
      GTEST_SKIP() << "needs the reference's data files: set MDM_REFERENCE_DIR to their folder"; \
    }                                                                                            \
  } while (false)

}  // namespace mdm::text_test
