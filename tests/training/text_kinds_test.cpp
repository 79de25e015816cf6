// Training with each kind of text that is not trained along: T5 as it goes, T5 through its cache, embeddings that lie
// beside the pictures, and classes.
#include <ATen/ATen.h>

#include <cstring>
#include <filesystem>

#include "mdm/core/error.h"
#include "mdm/data/tar.h"
#include "mdm/text/embedding_cache.h"
#include "text/random_t5.h"
#include "training/job_test.h"

namespace mdm::training_test {
namespace {

using Flags = std::vector<std::string>;

Flags joined(Flags a, const Flags& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::string npy_of(const at::Tensor& matrix) {
  const at::Tensor values = matrix.contiguous();
  const std::string header =
      concat("{'descr': '<f4', 'fortran_order': False, 'shape': (", values.size(0), ", ", values.size(1), "), }\n");
  std::string bytes("\x93NUMPY\x01\0", 8);
  bytes += static_cast<char>(header.size());
  bytes += '\0' + header;
  return bytes.append(static_cast<const char*>(values.const_data_ptr()), values.nbytes());
}

// A safetensors file of one matrix; ours are not written with empty names, which is what this one is for.
std::string safetensors_of(const std::string& name, const at::Tensor& matrix) {
  const at::Tensor values = matrix.contiguous();
  nlohmann::json header;
  header[name] = {{"dtype", "F32"}, {"shape", values.sizes().vec()}, {"data_offsets", {0, values.nbytes()}}};
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return (bytes + text).append(static_cast<const char*>(values.const_data_ptr()), values.nbytes());
}

class TextKindsTest : public JobTest {
 protected:
  void SetUp() override {
    JobTest::SetUp();
    text_test::write_random_t5(path("t5"), {});
  }

  Flags t5(const Flags& more = {}, const std::string& model = "t5") const {
    return joined(
        {"--text-kind", "t5", "--text-model", path(model), "--vocab-file", kT5Vocabulary, "--num-training-steps", "6"},
        more);
  }
  std::unique_ptr<TextEncoder> t5_encoder(const std::string& cache = "") const {
    Config config = load_config({path("flat.yaml")});
    config.text.kind = TextKind::kT5;
    config.text.text_model = path("t5");
    config.text.vocab_file = kT5Vocabulary;
    config.text.embedding_cache = cache;
    TextEncoderOptions options;
    options.training = true;
    return make_text_encoder(config.text, config.reader, options);
  }

  static constexpr const char* kT5Vocabulary = MDM_TEST_DATA "/golden/tokenizer/own.vocab";
};

TEST_F(TextKindsTest, T5StopsAndGoesOnToTheSameBits) {
  EXPECT_EQ(train("whole", t5()), 0);
  expect_finite_losses("whole", 6);
  EXPECT_EQ(train("parts", t5({"--num-training-steps", "3"})), 0);
  EXPECT_EQ(train("parts", t5()), 0);
  expect_same_bits("whole", "parts", "ckpt_0000006");

  text_test::RandomT5 other;
  other.seed = 2;
  text_test::write_random_t5(path("other"), other);
  EXPECT_EQ(train("other", t5({}, "other")), 0);
  EXPECT_NE(scalars("other").back(), scalars("whole").back()) << "the text must count";
}

TEST_F(TextKindsTest, TheCacheOfT5ChangesNoBit) {
  EXPECT_EQ(train("without", t5()), 0);
  const Flags cached = t5({"--embedding-cache", path("cache")});
  EXPECT_EQ(train("cold", joined(cached, {"--num-training-steps", "3"})), 0);
  EXPECT_EQ(train("cold", cached), 0);
  EXPECT_EQ(train("warm", cached), 0);
  expect_same_bits("without", "cold", "ckpt_0000006");
  expect_same_bits("without", "warm", "ckpt_0000006");
  expect_finite_losses("warm", 6);

  const auto encoder = t5_encoder(path("cache"));
  encoder->encode({small_job_caption(0), small_job_caption(1)}, {}, TextEncoder::Use::kTraining);
  const auto* from_cache = dynamic_cast<const CachedTextEncoder*>(encoder.get());
  ASSERT_NE(from_cache, nullptr);
  EXPECT_EQ(from_cache->cache().counts().hits, 2U) << "the trainings have filled it";
}

// What T5 says of each caption, put beside its picture, trains the same model as T5 itself.
TEST_F(TextKindsTest, EmbeddingsBesideThePicturesAreAsGoodAsT5) {
  const auto encoder = t5_encoder();
  const auto embedding_of = [&](const std::string& caption) {
    return encoder->encode({caption}, {}, TextEncoder::Use::kTraining).lm_outputs[0];
  };
  TarWriter tar(path("embeddings.tar"));
  std::string list = "tar\tfile\tcaption\ttext_tar\ttext_file\n";
  for (int i = 0; i < kSmallJobSamples; ++i) {
    tar.add(concat(i, ".npy"), npy_of(embedding_of(small_job_caption(i))));
    list += concat("train.tar\t", i, ".png\t", small_job_caption(i), "\tembeddings.tar\t", i, ".npy\n");
  }
  tar.finish();
  write_file(path("list.tsv"), list);
  write_file(path("empty.safetensors"), safetensors_of("", embedding_of("")));

  const Flags same = {"--file-list", path("list.tsv"), "--caption-dropout", "0.3"};
  EXPECT_EQ(train("computed", t5(same)), 0);
  const Flags given = joined(
      {"--text-kind", "precomputed", "--text-model", path("empty.safetensors"), "--num-training-steps", "6"}, same);
  EXPECT_EQ(train("given", joined(given, {"--num-training-steps", "4"})), 0);
  EXPECT_EQ(train("given", joined(given, {"--sample-freq", "2"})), 0) << "grids that can't be drawn end nothing";
  expect_same_bits("computed", "given", "ckpt_0000006");
  expect_finite_losses("given", 6);
}

TEST_F(TextKindsTest, ClassesStopAndGoOnToTheSameBits) {
  write_file(path("classes.vocab"), "bag and lace\na dragon\na red blue\n");
  const Flags classes = {"--text-kind", "class", "--vocab-file", path("classes.vocab"), "--num-training-steps", "6"};
  EXPECT_EQ(train("whole", joined(classes, {"--sample-freq", "3", "--sample-steps", "2"})), 0);
  expect_finite_losses("whole", 6);
  EXPECT_TRUE(std::filesystem::exists(path("whole/samples/step_0000006.png")));
  EXPECT_EQ(train("parts", joined(classes, {"--num-training-steps", "2"})), 0);
  EXPECT_EQ(train("parts", classes), 0);
  expect_same_bits("whole", "parts", "ckpt_0000006");
}

// A label that is no class is a broken sample like any other: a few are passed over, too many end the run.
TEST_F(TextKindsTest, LabelsThatAreNoClassAreBrokenSamples) {
  write_file(path("classes.vocab"), "bag and lace\na dragon\n");
  const Flags classes = {"--text-kind", "class", "--vocab-file", path("classes.vocab"), "--caption-dropout", "0"};
  EXPECT_EQ(train("some", joined(classes, {"--num-training-steps", "12", "--max-bad-fraction", "1"})), 0);
  EXPECT_EQ(scalars("some", "bad/label").back(), (std::pair<int64_t, double>{12, 24})) << "half of two epochs";
  EXPECT_EQ(scalars("some", "samples").back().second, 24);
  try {
    train("many", joined(classes, {"--num-training-steps", "100"}));
    FAIL() << "half of the samples had no label";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("label "), std::string::npos) << error.what();
  }
  EXPECT_TRUE(std::filesystem::exists(path("many/ckpt_0000024"))) << "what was learned from the first hundred is kept";
}

}  // namespace
}  // namespace mdm::training_test
