#include <gtest/gtest.h>

#include <cstring>

#include "mdm/core/error.h"
#include "mdm/data/dataset.h"

namespace mdm {
namespace {

std::string npy(const std::string& header, const std::string& data, int version = 1) {
  std::string bytes = "\x93NUMPY";
  bytes += static_cast<char>(version);
  bytes += '\0';
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) bytes += static_cast<char>(header.size() >> (8 * i));
  return bytes + header + data;
}

const std::string kSound = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";

std::string six_floats() {
  const float values[6] = {0, 1, 2, 3, 4, -5.5f};
  return std::string(reinterpret_cast<const char*>(values), sizeof values);
}

std::string npy_refusal(const std::string& bytes) {
  try {
    read_npy_matrix(bytes, "e.npy");
    return "";
  } catch (const DataError& error) {
    EXPECT_EQ(std::string(error.what()).rfind("e.npy: ", 0), 0U);
    return error.what();
  }
}

TEST(Npy, ReadsMatrices) {
  for (int version = 1; version <= 3; ++version) {
    const at::Tensor matrix = read_npy_matrix(npy(kSound, six_floats(), version), "e.npy");
    ASSERT_EQ(matrix.sizes(), (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(matrix.data_ptr<float>()[5], -5.5f);
  }
}

TEST(Npy, RefusesWhatElseThereIs) {
  const auto with = [](const std::string& header) { return npy_refusal(npy(header, six_floats())); };
  EXPECT_NE(npy_refusal("").find("no .npy"), std::string::npos);
  EXPECT_NE(npy_refusal(npy(kSound, six_floats(), 4)).find("version 4"), std::string::npos);
  EXPECT_NE(npy_refusal(npy(kSound, six_floats().substr(1))).find("23 bytes for 2 x 3"), std::string::npos);
  EXPECT_NE(npy_refusal(npy(kSound, six_floats() + "x")).find("25 bytes"), std::string::npos);
  EXPECT_NE(npy_refusal(npy(kSound, "").substr(0, 20)).find("broken"), std::string::npos);
  EXPECT_NE(with("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }").find("float32"), std::string::npos);
  EXPECT_NE(with("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }").find("float32"), std::string::npos);
  EXPECT_NE(with("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }").find("C order"), std::string::npos);
  for (const std::string shape :
       {"(6,)", "()", "(1, 2, 3)", "(-2, 3)", "(2 3)", "(99999999999999999999, 1)", "(2, 3", ""}) {
    EXPECT_NE(with("{'descr': '<f4', 'fortran_order': False, 'shape': " + shape), "") << shape;
  }
  // A product that wraps around 64 bits must not fit by chance.
  EXPECT_NE(with("{'descr': '<f4', 'fortran_order': False, 'shape': (2147483647, 2147483647), }"), "");
  EXPECT_NE(with("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }"), "");
}

}  // namespace
}  // namespace mdm
