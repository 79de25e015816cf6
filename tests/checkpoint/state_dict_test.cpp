// Strict loading of a file of tensors into a model's parameters.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "checkpoint/builders.h"
#include "mdm/checkpoint/state_dict.h"
#include "mdm/checkpoint/write.h"
#include "mdm/core/error.h"

namespace mdm::checkpoint_tests {
namespace {

class StateDictTest : public testing::Test {
 protected:
  TensorFile file(const std::vector<NamedTensor>& tensors) {
    write_safetensors(folder_.path() / "x.safetensors", tensors);
    return TensorFile::open(folder_.path() / "x.safetensors");
  }
  std::string refusal(const TensorFile& from, const std::vector<NamedTensor>& to, const LoadOptions& options = {}) {
    try {
      load_state_dict(from, to, options);
    } catch (const CheckpointError& error) {
      return error.what();
    }
    return "loaded";
  }
  TemporaryFolder folder_;
};

TEST_F(StateDictTest, CopiesIntoTheLayoutAndTypeThatIsThere) {
  const at::Tensor weight = at::randn({3, 4, 5, 6}), bias = at::randn({3}), steps = at::scalar_tensor(7, at::kLong);
  const TensorFile from = file({{"w", weight}, {"b", bias}, {"n", steps}});
  at::Tensor last = at::zeros({3, 4, 5, 6}).contiguous(at::MemoryFormat::ChannelsLast).requires_grad_();
  at::Tensor half = at::zeros({3}, at::kBFloat16), count = at::zeros({}, at::kInt);
  const void* before = last.data_ptr();
  const LoadReport report = load_state_dict(from, {{"b", half}, {"n", count}, {"w", last}});
  EXPECT_EQ(report.loaded, 3U);
  EXPECT_TRUE(last.equal(weight));
  EXPECT_TRUE(last.is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_EQ(last.data_ptr(), before);
  EXPECT_TRUE(last.is_leaf() && last.requires_grad());
  EXPECT_TRUE(half.equal(bias.to(at::kBFloat16)));
  EXPECT_EQ(count.item<int>(), 7);
  EXPECT_TRUE(from.tensor("w").equal(weight));  // what was copied can be read again
}

TEST_F(StateDictTest, ListsEverythingThatDoesNotFitAtOnce) {
  const TensorFile from =
      file({{"a", at::ones({2})}, {"b", at::ones({2, 3})}, {"extra", at::ones({1})}, {"i", at::arange(2)}});
  at::Tensor a = at::zeros({2}), b = at::zeros({3, 2}), c = at::zeros({1}), i = at::zeros({2});
  const std::string text = refusal(from, {{"a", a}, {"b", b}, {"c", c}, {"i", i}});
  for (const char* part :
       {"x.safetensors", "1 missing", "\n    c", "1 unexpected", "\n    extra", "2 of another shape or type",
        "b: (2, 3) in the file, (3, 2) in the model", "i: Long in the file, Float in the model"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
  }
  EXPECT_EQ(a.sum().item<float>(), 0);  // nothing is copied

  LoadOptions partial;
  partial.allow_partial = true;
  const LoadReport report = load_state_dict(from, {{"a", a}, {"b", b}, {"c", c}, {"i", i}}, partial);
  EXPECT_EQ(report.loaded, 1U);
  EXPECT_EQ(report.missing, std::vector<std::string>{"c"});
  EXPECT_EQ(report.unexpected, std::vector<std::string>{"extra"});
  EXPECT_EQ(report.mismatched.size(), 2U);
  EXPECT_EQ(a.sum().item<float>(), 2);
}

// What is brought into another layout next need not be copied first.
TEST_F(StateDictTest, SharesTheFileWithTensorsOfItsType) {
  const at::Tensor values = at::arange(3 * 4 * 3 * 3, at::kFloat).view({3, 4, 3, 3});
  at::Tensor same = at::zeros({3, 4, 3, 3}).contiguous(at::MemoryFormat::ChannelsLast);
  at::Tensor other = at::zeros({2}, at::kBFloat16), owner = same;
  const void* const before = same.const_data_ptr();
  {
    const TensorFile from = file({{"same", values}, {"other", at::ones({2})}});
    LoadOptions share;
    share.share = true;
    EXPECT_EQ(load_state_dict(from, {{"same", same}, {"other", other}}, share).loaded, 2U);
    EXPECT_EQ(same.const_data_ptr(), from.tensor("same").const_data_ptr());
  }
  EXPECT_TRUE(owner.equal(values)) << "the mapping lives as long as what looks at it";
  EXPECT_NE(owner.const_data_ptr(), before);
  EXPECT_TRUE(other.equal(at::ones({2}, at::kBFloat16)));
  const void* const mapped = same.const_data_ptr();
  own_tensors({{"same", same}});
  EXPECT_NE(same.const_data_ptr(), mapped);
  same.add_(1);  // a mapping would not take it
  EXPECT_TRUE(owner.equal(values + 1));
}

TEST_F(StateDictTest, ListsAllOfAWholeModelButNotWithoutEnd) {
  std::vector<NamedTensor> many;
  for (int i = 0; i < 5000; ++i) many.push_back({"p" + std::to_string(i), at::zeros({1})});
  const TensorFile other = file({{"x", at::zeros({1})}});
  const std::string all = refusal(other, {many.begin(), many.begin() + 2000});
  EXPECT_NE(all.find("2000 missing"), std::string::npos);
  EXPECT_NE(all.find("\n    p1999\n"), std::string::npos);
  EXPECT_EQ(all.find("more"), std::string::npos);
  const std::string cut = refusal(other, many);
  EXPECT_NE(cut.find("and 1000 more"), std::string::npos);
  EXPECT_LT(cut.size(), 100000U);
}

TEST_F(StateDictTest, PrefixesAreSuggestedAndTaken) {
  const TensorFile from = file({{"module.a", at::ones({2})}, {"module.b", at::ones({2})}, {"ema.a", at::zeros({2})}});
  at::Tensor a = at::zeros({2}), b = at::zeros({2});
  EXPECT_NE(refusal(from, {{"a", a}, {"b", b}}).find("begin with 'module.'"), std::string::npos);
  LoadOptions options;
  options.prefix = "module.";
  EXPECT_EQ(load_state_dict(from, {{"a", a}, {"b", b}}, options).loaded, 2U);
  EXPECT_EQ(a.sum().item<float>(), 2);
}

TEST_F(StateDictTest, ChoosesOneOfSeveralDictionaries) {
  const std::string one = pickle_tensor(pickle_storage("FloatStorage", "0", 1), 0, {1}, {1});
  const std::string two = pickle_tensor(pickle_storage("FloatStorage", "1", 1), 0, {1}, {1});
  const std::string dots = pickle_dict({{"shadow.params", pickle_dict({{"w", two}})}});
  const float values[] = {1, 2};
  const std::string bytes(reinterpret_cast<const char*>(values), sizeof values);
  const auto path =
      folder_.write("both.pth", pth(pickle(pickle_dict({{"model", pickle_dict({{"w", one}})}, {"ema", dots}})),
                                    {{"0", bytes.substr(0, 4)}, {"1", bytes.substr(4)}})
                                    .bytes());
  EXPECT_EQ(TensorFile::open(path).tensor("w").item<float>(), 1);
  TensorFile::Options options;
  options.state_dict_path = "ema.shadow.params";
  EXPECT_EQ(TensorFile::open(path, options).tensor("w").item<float>(), 2);
  options.state_dict_path = "emma";
  try {
    TensorFile::open(path, options);
    FAIL();
  } catch (const CheckpointError& error) {
    EXPECT_NE(std::string(error.what()).find("'ema.shadow.params'"), std::string::npos) << error.what();
  }
  // Without a usual name there is no guessing.
  const auto unusual =
      folder_.write("unusual.pth", pth(pickle(pickle_dict({{"ema", dots}})), {{"1", bytes.substr(4)}}).bytes());
  try {
    TensorFile::open(unusual);
    FAIL();
  } catch (const CheckpointError& error) {
    EXPECT_NE(std::string(error.what()).find("state_dict_path"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace mdm::checkpoint_tests
