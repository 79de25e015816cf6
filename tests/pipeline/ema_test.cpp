// Files that hold plain and averaged weights.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "checkpoint/builders.h"
#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "pipeline/support.h"

namespace mdm {
namespace {

namespace make = checkpoint_tests;
using pipeline_test::Kind;
using pipeline_test::make_checkpoint;

using Storages = std::vector<std::pair<std::string, std::string>>;

// The tensors of a file as a pickled dictionary; their bytes go into `storages`.
std::string pickled_weights(const TensorFile& file, Storages& storages) {
  std::vector<std::pair<std::string, std::string>> items;
  for (const TensorEntry& entry : file.entries()) {
    const at::Tensor tensor = file.tensor(entry.name);
    std::vector<int64_t> strides(entry.shape.size(), 1);
    for (size_t i = strides.size(); i-- > 1;) strides[i - 1] = strides[i] * entry.shape[i];
    const std::string key = std::to_string(storages.size());
    storages.emplace_back(key, std::string(static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()));
    items.emplace_back(entry.name, make::pickle_tensor(make::pickle_storage("FloatStorage", key, tensor.numel()), 0,
                                                       entry.shape, strides));
  }
  return make::pickle_dict(items);
}

TEST(AveragedWeights, AreTakenWhereAFileHoldsBothUnlessPlainOnesAreAskedFor) {
  const std::string yaml = pipeline_test::model_yaml(Kind::kFlat);
  const std::string plain = make_checkpoint("plain", yaml, "", "1"),
                    averaged = make_checkpoint("averaged", yaml, "", "2");
  const TensorFile plain_file = TensorFile::open(plain);
  const auto config = nlohmann::json::parse(plain_file.metadata_json()).at("config").get<std::string>();
  const auto picture = [](const std::filesystem::path& file, const char* ema) {
    Pipeline pipeline = Pipeline::from_checkpoint(file, {}, {{"ema", ema}});
    return pipeline.generate({pipeline_test::request("a cat", 1)}, pipeline_test::quick_settings())[0].image.pixels;
  };
  const auto of_plain = picture(plain, "yes"), of_averaged = picture(averaged, "yes");
  ASSERT_NE(of_plain, of_averaged);
  EXPECT_EQ(picture(plain, "no"), of_plain);  // one kind alone is taken either way
  for (const char* name : {"ema_state_dict", "state_dict_ema", "model_ema", "ema"}) {
    Storages storages;
    const std::string both = make::pickle_dict({{"state_dict", pickled_weights(plain_file, storages)},
                                                {name, pickled_weights(TensorFile::open(averaged), storages)},
                                                {"config", make::pickle_text(config)}});
    const auto file =
        pipeline_test::scratch_file(concat("both_", name, ".pth"), make::pth(make::pickle(both), storages).bytes());
    EXPECT_EQ(picture(file, "yes"), of_averaged) << name;
    EXPECT_EQ(picture(file, "no"), of_plain) << name;
  }
}

}  // namespace
}  // namespace mdm
