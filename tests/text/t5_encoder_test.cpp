// The T5 encoder against the outputs of transformers, and what its files may and may not hold.
#include "mdm/text/t5_encoder.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "text/random_t5.h"
#include "text/text_test_support.h"

namespace mdm {
namespace {

double largest_share(const at::Tensor& actual, const at::Tensor& expected, double atol, double rtol) {
  EXPECT_EQ(actual.sizes(), expected.sizes());
  return ((actual - expected).abs() / (atol + rtol * expected.abs())).max().item<double>();
}

double rms(const at::Tensor& x) { return x.square().mean().sqrt().item<double>(); }

// Models this small lose more to waking threads than they win.
class T5OneThread : public testing::Test {
 protected:
  T5OneThread() : threads_(at::get_num_threads()) { at::set_num_threads(1); }
  ~T5OneThread() override { at::set_num_threads(threads_); }

 private:
  int threads_;
};

class T5Golden : public T5OneThread, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    const std::string name = GetParam();
    folder_ = text_test::own_golden() / "t5" / name;
    if (std::filesystem::exists(folder_)) return;
    MDM_NEED_REFERENCE();
    folder_ = text_test::shared_golden() / "t5" / name;
  }
  std::filesystem::path folder_;
};

TEST_P(T5Golden, Fp32) {
  const auto encoder = T5Encoder::load(find_text_model_files(folder_ / "model"));
  const auto io = TensorFile::open(folder_ / "io.safetensors");
  for (const char* length : {"L1", "L7", "L64", "L200"}) {
    const std::string prefix = concat(length, ".");
    const auto ids = io.tensor(prefix + "ids").to(at::kLong), mask = io.tensor(prefix + "mask");
    T5Trace trace;
    const auto masked = encoder.forward(ids, mask, &trace);
    const auto share = largest_share(masked, io.tensor(prefix + "last_hidden_state"), 2e-5, 2e-4);
    EXPECT_LT(share, 1) << length;
    RecordProperty(concat("share_", length), std::to_string(share));
    EXPECT_LT(largest_share(encoder.forward(ids, {}), io.tensor(prefix + "nomask_last_hidden_state"), 2e-5, 2e-4), 1);
    const auto lm_mask = ids.ne(0).to(at::kFloat);
    const auto outputs = encoder.forward(ids, lm_mask) * lm_mask.unsqueeze(-1);
    EXPECT_TRUE(lm_mask.equal(io.tensor(prefix + "wrapper_lm_mask")));
    EXPECT_LT(largest_share(outputs, io.tensor(prefix + "wrapper_lm_outputs"), 2e-5, 2e-4), 1);
    for (size_t i = 0; i < trace.hidden.size(); ++i) {
      const auto name = concat(prefix, "hidden_", i);
      if (io.find(name) == nullptr) continue;
      EXPECT_LT(largest_share(trace.hidden[i], io.tensor(name), 2e-5, 2e-4), 1) << name;
    }
    if (io.find(prefix + "position_bias") != nullptr) {
      EXPECT_TRUE(trace.position_bias.unsqueeze(0).equal(io.tensor(prefix + "position_bias")));
    }
  }
}

// bf16 rounds differently in every library: the error must be of the size that transformers' own is.
TEST_P(T5Golden, Bf16) {
  T5Encoder::Options options;
  options.dtype = at::kBFloat16;
  const auto encoder = T5Encoder::load(find_text_model_files(folder_ / "model"), options);
  const auto io = TensorFile::open(folder_ / "io.safetensors");
  for (const char* length : {"L1", "L7", "L64", "L200"}) {
    const std::string prefix = concat(length, ".");
    const auto ids = io.tensor(prefix + "ids").to(at::kLong), mask = io.tensor(prefix + "mask");
    const auto rows = mask.to(at::kBool).unsqueeze(-1);
    const auto exact = io.tensor(prefix + "last_hidden_state").masked_select(rows);
    const auto theirs = io.tensor(prefix + "bf16_last_hidden_state").to(at::kFloat).masked_select(rows);
    const auto ours = encoder.forward(ids, mask).masked_select(rows);
    EXPECT_LT(rms(ours - exact), 2 * rms(theirs - exact)) << length;
    EXPECT_GT(rms(ours - exact), 1e-4) << "this is not bf16";
  }
}

INSTANTIATE_TEST_SUITE_P(Folders, T5Golden, testing::Values("t5_a", "t5_b", "t5_c"));

TEST(T5Buckets, TableOfTransformers) {
  std::ifstream in(text_test::own_golden() / "t5/bucket_table.json");
  const auto table = nlohmann::json::parse(in)["bucket"].get<std::vector<int64_t>>();
  ASSERT_EQ(table.size(), 1201U);
  for (int64_t distance = -600; distance <= 600; ++distance) {
    EXPECT_EQ(t5_relative_bucket(distance, 32, 128), table[static_cast<size_t>(distance + 600)]) << distance;
  }
}

using T5EncoderTest = T5OneThread;
using text_test::RandomT5;
using text_test::TemporaryFolder;

at::Tensor random_ids(int64_t batch, int64_t length, int64_t bound, uint64_t seed) {
  std::mt19937_64 random(seed);
  at::Tensor ids = at::empty({batch, length}, at::TensorOptions().dtype(at::kLong));
  for (int64_t i = 0; i < ids.numel(); ++i)
    ids.data_ptr<int64_t>()[i] = static_cast<int64_t>(1 + random() % static_cast<uint64_t>(bound - 1));
  return ids;
}

T5Encoder load(const std::filesystem::path& folder, at::ScalarType dtype = at::kFloat) {
  T5Encoder::Options options;
  options.dtype = dtype;
  return T5Encoder::load(find_text_model_files(folder), options);
}

TEST_F(T5EncoderTest, PaddingDoesNotChangeRealRows) {
  TemporaryFolder folder;
  write_random_t5(folder.path(), RandomT5());
  const auto encoder = load(folder.path());
  const auto ids = random_ids(2, 20, 400, 5);
  const auto mask = at::ones({2, 20});
  const auto alone = encoder.forward(ids, mask);
  // 2100 pads: so many that queries are handled block by block.
  for (const int64_t pads : {1, 50, 2100}) {
    const auto padded = encoder.forward(at::constant_pad_nd(ids, {0, pads}), at::constant_pad_nd(mask, {0, pads}));
    EXPECT_LT((padded.narrow(1, 0, 20) - alone).abs().max().item<double>(), 1e-5) << pads;
  }
  const auto one = encoder.forward(ids.narrow(0, 1, 1), mask.narrow(0, 1, 1));
  EXPECT_LT((one - alone.narrow(0, 1, 1)).abs().max().item<double>(), 1e-5);
}

// fp16 files are common; the values must arrive, the arithmetic must not be fp16.
TEST_F(T5EncoderTest, EveryDtypeOfFileAndArithmetic) {
  TemporaryFolder folder;
  RandomT5 model;
  model.dtype = "F32";
  write_random_t5(folder / "F32", model);
  const auto ids = random_ids(2, 12, 400, 1);
  const auto exact = load(folder / "F32").forward(ids, {});
  for (const char* dtype : {"F16", "BF16"}) {
    model.dtype = dtype;
    write_random_t5(folder / dtype, model);
    const double error = rms(load(folder / dtype).forward(ids, {}) - exact) / rms(exact);
    EXPECT_LT(error, std::string(dtype) == "F16" ? 3e-3 : 3e-2) << dtype;
  }
  for (const char* dtype : {"F32", "F16", "BF16"}) {
    const double error = rms(load(folder / dtype, at::kBFloat16).forward(ids, {}) - exact) / rms(exact);
    EXPECT_LT(error, 4e-2) << dtype;
  }
  EXPECT_EQ(load(folder / "F32").resident_bytes(), 0) << "weights that fit are used where the file is mapped";
  EXPECT_THROW(load(folder / "F32", at::kHalf), ConfigError);
}

// Pages of mapped files that this process has in memory, in bytes; 0 where the kernel does not say.
int64_t mapped_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != "RssFile:") continue;
    int64_t kib = 0;
    status >> kib;
    return kib * 1024;
  }
  return 0;
}

// Loading takes what the encoder takes, not that and the file: views of its norms keep the mapping, not its pages.
TEST_F(T5EncoderTest, ConvertedWeightsLeaveTheMapping) {
  TemporaryFolder folder;
  RandomT5 model;
  model.d_model = 512;
  model.d_ff = 1024;
  model.num_layers = 4;
  model.vocab_size = 8000;
  model.dtype = "F32";
  write_random_t5(folder.path(), model);
  const auto size = static_cast<int64_t>(std::filesystem::file_size(folder / "model.safetensors"));
  ASSERT_GT(size, int64_t{40} << 20);
  const int64_t before = mapped_bytes();
  const auto encoder = load(folder.path(), at::kBFloat16);
  EXPECT_LT(mapped_bytes() - before, size / 4);
  EXPECT_NEAR(static_cast<double>(encoder.resident_bytes()), 0.5 * static_cast<double>(size),
              0.01 * static_cast<double>(size));
}

// Activations that leave the range of fp16 (why T5 never runs in it).
TEST_F(T5EncoderTest, LargeActivationsStayFinite) {
  TemporaryFolder folder;
  RandomT5 model;
  model.scale = 100;
  write_random_t5(folder.path(), model);
  const auto ids = random_ids(2, 12, 400, 1);
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    T5Trace trace;
    const auto out = load(folder.path(), dtype).forward(ids, {}, &trace);
    EXPECT_GT(trace.hidden[1].abs().max().item<double>(), 65504);
    EXPECT_TRUE(out.isfinite().all().item<bool>());
  }
}

TEST_F(T5EncoderTest, IdsBeyondTheEmbedding) {
  TemporaryFolder folder;
  write_random_t5(folder.path(), RandomT5());
  const auto encoder = load(folder.path());
  EXPECT_THROW(encoder.forward(at::full({1, 2}, 400, at::kLong), {}), ConfigError);
  EXPECT_THROW(encoder.forward(at::full({1, 2}, -1, at::kLong), {}), ConfigError);
  EXPECT_EQ(encoder.forward(at::empty({0, 2}, at::kLong), {}).sizes(), (std::vector<int64_t>{0, 2, 32}));
}

template <typename ErrorType>
void expect_load_error(const std::filesystem::path& folder, const std::vector<std::string>& parts) {
  try {
    load(folder);
    FAIL() << "accepted; expected: " << parts[0];
  } catch (const ErrorType& error) {
    for (const auto& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << part << "\n" << error.what();
  }
}

TEST_F(T5EncoderTest, AllProblemsOfTheWeightsAtOnce) {
  TemporaryFolder folder;
  RandomT5 model;
  write_random_t5(folder.path(), model);
  std::ifstream in(folder / "config.json");
  auto config = nlohmann::json::parse(in);
  config["num_layers"] = 3;
  config["d_ff"] = 48;
  text_test::write_text(folder / "config.json", config.dump());
  expect_load_error<CheckpointError>(
      folder.path(),
      {"missing: encoder.block.2.layer.0.SelfAttention.q.weight", "missing: encoder.block.2.layer.1.layer_norm.weight",
       "encoder.block.0.layer.1.DenseReluDense.wi_0.weight is [64, 32], config.json asks for [48, 32]"});
  config["num_layers"] = 1;
  config["d_ff"] = 64;
  text_test::write_text(folder / "config.json", config.dump());
  expect_load_error<CheckpointError>(folder.path(), {"unexpected: encoder.block.1.layer.0.SelfAttention.k.weight"});
  config["num_layers"] = 2;
  config["vocab_size"] = 401;
  text_test::write_text(folder / "config.json", config.dump());
  expect_load_error<CheckpointError>(folder.path(), {"shared.weight is [400, 32], config.json asks for [401, 32]"});
}

TEST_F(T5EncoderTest, BadConfigs) {
  TemporaryFolder folder;
  write_random_t5(folder.path(), RandomT5());
  std::ifstream in(folder / "config.json");
  const auto good = nlohmann::json::parse(in);
  const auto expect = [&](const char* field, const nlohmann::json& value, const std::string& part) {
    auto config = good;
    if (value.is_discarded()) {
      config.erase(field);
    } else {
      config[field] = value;
    }
    text_test::write_text(folder / "config.json", config.dump());
    expect_load_error<ConfigError>(folder.path(), {"config.json", part});
  };
  const auto absent = nlohmann::json(nlohmann::json::value_t::discarded);
  expect("model_type", "bert", "'model_type' is \"bert\"; expected \"t5\"");
  expect("feed_forward_proj", "relu", "'feed_forward_proj' is \"relu\"; expected \"gated-gelu\"");
  expect("dense_act_fn", "relu", "dense_act_fn");
  for (const char* field : {"d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size"}) {
    expect(field, absent, concat("lacks '", field, "'"));
    expect(field, 0, field);
    expect(field, -5, field);
    expect(field, "32", field);
    expect(field, 3.5, field);
    expect(field, uint64_t{18446744073709551615U}, field);
    expect(field, nlohmann::json::array({nlohmann::json::array()}), "is an array");
  }
  expect("relative_attention_num_buckets", 30, "relative_attention_num_buckets");
  expect("relative_attention_max_distance", 8, "relative_attention_max_distance");
  expect("layer_norm_epsilon", "small", "layer_norm_epsilon");
  expect("layer_norm_epsilon", -1, "layer_norm_epsilon");
  for (const char* text : {"", "{", "[]", "null", "\xff\xfe", "{\"model_type\": "}) {
    text_test::write_text(folder / "config.json", text);
    expect_load_error<ConfigError>(folder.path(), {"config.json"});
  }
  text_test::write_text(folder / "config.json",
                        "{\"model_type\":" + std::string(200000, '[') + std::string(200000, ']') + "}");
  expect_load_error<ConfigError>(folder.path(), {"'model_type' is an array"});
}

TEST_F(T5EncoderTest, MutantsOfAConfig) {
  TemporaryFolder folder;
  write_random_t5(folder.path(), RandomT5());
  std::ifstream in(folder / "config.json", std::ios::binary);
  const std::string original((std::istreambuf_iterator<char>(in)), {});
  std::mt19937_64 random(11);
  for (int i = 0; i < text_test::mutant_count(300); ++i) {
    text_test::write_text(folder / "config.json", text_test::mutate(original, random));
    try {
      T5Config::read(folder / "config.json");
    } catch (const ConfigError&) {
    }
  }
}

}  // namespace
}  // namespace mdm
