// Files written by the reference and by torch.save: every tensor bit for bit, in order, and the other items.
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"

namespace mdm {
namespace {

using nlohmann::json;

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(MDM_TEST_DATA) / "golden" / "checkpoint" / name;
}

json golden_json(const std::string& name) { return json::parse(read_text_file(golden(name))); }

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const at::Tensor x = a.contiguous(), y = b.contiguous();
  return x.nbytes() == y.nbytes() && (x.nbytes() == 0 || std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0);
}

void expect_same_tensors(const TensorFile& actual, const TensorFile& expected) {
  EXPECT_EQ(actual.entries().size(), expected.entries().size());
  for (const auto& entry : expected.entries()) {
    ASSERT_NE(actual.find(entry.name), nullptr) << entry.name;
    EXPECT_EQ(actual.find(entry.name)->shape, entry.shape) << entry.name;
    EXPECT_TRUE(same_bits(actual.tensor(entry.name), expected.tensor(entry.name))) << entry.name;
  }
}

// The names of NAME.keys.tsv, or of odd_tensors.json, in order.
std::vector<std::string> expected_order(const std::string& model) {
  std::vector<std::string> names;
  if (model == "odd_tensors") {
    const json list = golden_json("odd_tensors.json");
    for (const auto& item : list) names.push_back(item.at("name"));
    return names;
  }
  std::istringstream lines(read_text_file(golden(model + ".keys.tsv")));
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line)) names.push_back(line.substr(0, line.find('\t')));
  return names;
}

std::string model_of(const std::string& safetensors) {
  for (const char* model : {"nested", "odd_tensors"}) {
    if (safetensors.rfind(model, 0) == 0) return model;
  }
  return "unet";
}

std::vector<std::string> golden_files() {
  std::vector<std::string> names;
  const json manifest = golden_json("manifest.json");
  for (const auto& item : manifest.at("files")) names.push_back(item.at("file"));
  return names;
}

class GoldenCheckpoint : public testing::TestWithParam<std::string> {};

TEST_P(GoldenCheckpoint, HoldsTheSameTensorsInOrder) {
  json entry;
  const json manifest = golden_json("manifest.json");
  for (const auto& item : manifest.at("files")) {
    if (item.at("file") == GetParam()) entry = item;
  }
  const bool containers = entry.at("same_tensors_as").is_null();
  const std::string same = containers ? "unet.safetensors" : entry.at("same_tensors_as").get<std::string>();
  const TensorFile expected = TensorFile::open(golden(same));
  for (const bool map : {true, false}) {
    TensorFile::Options options;
    options.map = map;
    if (containers) options.state_dict_path = "model.state_dict";
    const TensorFile file = TensorFile::open(golden(GetParam()), options);
    expect_same_tensors(file, expected);
    std::vector<std::string> names;
    for (const auto& tensor : file.entries()) names.push_back(tensor.name);
    EXPECT_EQ(names, expected_order(model_of(same)));

    if (!entry.at("values").is_object()) continue;
    const json items = json::parse(file.metadata_json());
    for (const auto& [key, value] : entry.at("values").items()) {
      const json wanted = key == "args" ? golden_json(model_of(same) + ".args.json") : value;
      EXPECT_EQ(items.at(key), wanted) << key;
    }
    EXPECT_EQ(items.size(), entry.at("values").size());
  }
}

INSTANTIATE_TEST_SUITE_P(Files, GoldenCheckpoint, testing::ValuesIn(golden_files()),
                         [](const auto& name) { return name.param.substr(0, name.param.find('.')); });

TEST(TensorFileTest, KeepsContainersAroundTheStateDict) {
  const TensorFile file = TensorFile::open(golden("nested_containers.pth"));  // finds model.state_dict by itself
  const json items = json::parse(file.metadata_json());
  EXPECT_FALSE(items.contains("model") && items.at("model").contains("state_dict"));
  EXPECT_EQ(items.at("big").at("__int__"), "1000000000000000000000000000000");
  EXPECT_EQ(items.at("unicode"), "gr\u00f6\u00dfe \u2603");
  const json& tuple = items.at("list").at(1);
  EXPECT_EQ(tuple.at(0), 1);
  EXPECT_EQ(tuple.at(1), "two");
  EXPECT_EQ(tuple.at(2), 3.0);
  EXPECT_TRUE(tuple.at(2).is_number_float());
  EXPECT_TRUE(tuple.at(3).is_null());
  EXPECT_EQ(tuple.at(4), true);
  EXPECT_EQ(tuple.at(5), int64_t{1} << 40);
  EXPECT_EQ(tuple.at(6), -5);
  EXPECT_EQ(tuple.at(7), 1e-300);
  EXPECT_EQ(tuple.at(8).at("__bytes__"), "6279746573");
  EXPECT_EQ(tuple.at(9).at("k").at("__set__"), json::array({1, 2}));
  EXPECT_EQ(items.at("list").at(0).at("shape"), json::array({2}));
}

TEST(TensorFileTest, ViewsKeepTheMappingAlive) {
  at::Tensor kept;
  {
    const TensorFile file = TensorFile::open(golden("unet_ref.pth"));
    kept = file.tensor("temb_layer1.weight");
  }
  const TensorFile again = TensorFile::open(golden("unet.safetensors"));
  EXPECT_TRUE(same_bits(kept, again.tensor("temb_layer1.weight")));
}

TEST(TensorFileTest, MappedTensorsAreViewsOfTheFile) {
  const TensorFile file = TensorFile::open(golden("unet_ref.pth"));
  const at::Tensor first = file.tensor("temb_layer1.weight"), second = file.tensor("temb_layer1.weight");
  EXPECT_EQ(first.data_ptr(), second.data_ptr());
}

TEST(TensorFileTest, NamesTheNearestKey) {
  const TensorFile file = TensorFile::open(golden("unet.safetensors"));
  try {
    file.tensor("temb_layer1.wieght");
    FAIL();
  } catch (const CheckpointError& error) {
    EXPECT_NE(std::string(error.what()).find("temb_layer1.weight"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace mdm
