// From captions to padded embeddings: row lengths, independence of neighbours, the kinds of encoders,
// and where a text model is found.
#include "mdm/text/text_encoder.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <fstream>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "mdm/text/mdm_tokenizer.h"
#include "mdm/text/other_encoders.h"
#include "mdm/text/t5_text_encoder.h"
#include "mdm/text/text_model.h"
#include "text/random_t5.h"
#include "text/text_test_support.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;
using Captions = std::vector<std::string>;
using Lengths = std::vector<int64_t>;
using text_test::TemporaryFolder;

PadPolicy policy(PadPolicy::Mode mode, int64_t length = 0) {
  PadPolicy pad;
  pad.mode = mode;
  pad.length = length;
  return pad;
}
const PadPolicy kPair = policy(PadPolicy::Mode::kPair);
const PadPolicy kBatch = policy(PadPolicy::Mode::kBatch);

double largest_difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

template <typename ErrorType, typename Action>
void expect_error(const Action& action, const Captions& parts) {
  try {
    action();
    FAIL() << "no error; expected: " << parts[0];
  } catch (const ErrorType& error) {
    for (const auto& part : parts) EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

class TextEncoderTest : public testing::Test {
 protected:
  TextEncoderTest() : threads_(at::get_num_threads()) {
    at::set_num_threads(1);
    write_random_t5(folder_ / "t5", text_test::RandomT5());
    text_.text_model = (folder_ / "t5").string();
    text_.vocab_file = (text_test::own_golden() / "tokenizer/own.vocab").string();
    reader_.max_token_length = 32;
  }
  ~TextEncoderTest() override { at::set_num_threads(threads_); }

  std::unique_ptr<TextEncoder> make(const TextEncoderOptions& options = {}) const {
    return make_text_encoder(text_, reader_, options);
  }

  int threads_;
  TemporaryFolder folder_;
  TextConfig text_;
  ReaderConfig reader_;
};

TEST_F(TextEncoderTest, RowLengthsByPolicy) {
  const auto encoder = make();
  EXPECT_EQ(encoder->width(), 32);
  const Captions negatives = {"", "dog"}, prompts = {"a red dog in the snow", "a"};
  // Tokens with EOS: "" 2, " dog" 2, six words 7, " a" 2.
  auto pairs = encoder->encode_pairs(negatives, prompts, kPair);
  EXPECT_EQ(pairs.attended_lengths, (Lengths{7, 2, 7, 2}));
  EXPECT_EQ(pairs.lm_outputs.sizes(), (Lengths{4, 7, 32}));
  EXPECT_EQ(pairs.lm_mask.sum(1).to(at::kLong).equal(at::tensor(Lengths{2, 2, 7, 2})), true);
  EXPECT_EQ(encoder->encode_pairs(negatives, prompts, kBatch).attended_lengths, (Lengths{7, 7, 7, 7}));
  const auto fixed = encoder->encode_pairs(negatives, prompts, policy(PadPolicy::Mode::kFixed, 12));
  EXPECT_EQ(fixed.attended_lengths, (Lengths{12, 12, 12, 12}));
  EXPECT_EQ(fixed.lm_outputs.size(1), 12);
  const auto cut = encoder->encode_pairs(negatives, prompts, policy(PadPolicy::Mode::kFixed, 4));
  EXPECT_EQ(cut.lm_mask.sum(1).to(at::kLong).equal(at::tensor(Lengths{2, 2, 4, 2})), true);
  EXPECT_EQ(encoder->encode(prompts, kPair).attended_lengths, (Lengths{7, 2}));
  EXPECT_EQ(encoder->encode(prompts, kBatch).attended_lengths, (Lengths{7, 7}));
  EXPECT_EQ(encoder->encode(prompts, kPair, TextEncoder::Use::kTraining).attended_lengths, (Lengths{8, 3}))
      << "captions of a data set have a space behind them";
  EXPECT_EQ(encoder->encode({}, kBatch).batch(), 0);
  EXPECT_THROW(encoder->encode(prompts, policy(PadPolicy::Mode::kFixed, 0)), ConfigError);
  EXPECT_THROW(encoder->encode_pairs({"a"}, prompts, kPair), ConfigError);

  reader_.pad_to_max_length = true;
  EXPECT_EQ(make()->encode(prompts, kPair).attended_lengths, (Lengths{32, 32}));
}

TEST_F(TextEncoderTest, ARowDoesNotDependOnItsNeighbours) {
  const Captions prompts = {"a red dog", "the house by the sea", "", "x",
                            "a red dog in the garden of the old castle at night"};
  const auto together = make()->encode(prompts, kBatch);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto alone = make()->encode({prompts[i]}, kPair);
    const int64_t length = alone.lm_outputs.size(1);
    const auto row = static_cast<int64_t>(i);
    EXPECT_LT(largest_difference(together.lm_outputs.select(0, row).narrow(0, 0, length), alone.lm_outputs[0]), 1e-5);
    const auto rest = together.lm_outputs.select(0, row).narrow(0, length, together.lm_outputs.size(1) - length);
    EXPECT_EQ(rest.abs().sum().item<double>(), 0) << "padding is zero";
  }
}

TEST_F(TextEncoderTest, SamePromptIsEncodedOnce) {
  auto encoder = make();
  auto& t5 = dynamic_cast<T5TextEncoder&>(*encoder);
  encoder->encode_pairs({"", "", ""}, {"a dog", "a cat", "a dog"}, kPair);
  EXPECT_EQ(t5.captions_encoded(), 3);
  const auto again = encoder->encode_pairs({""}, {"a cat"}, kPair);
  EXPECT_EQ(t5.captions_encoded(), 3);
  EXPECT_TRUE(again.lm_outputs.equal(make()->encode_pairs({""}, {"a cat"}, kPair).lm_outputs));
  encoder->encode({"a bird"}, kPair, TextEncoder::Use::kTraining);
  encoder->encode({"a bird"}, kPair, TextEncoder::Use::kTraining);
  EXPECT_EQ(t5.captions_encoded(), 5) << "captions of a data set are not kept";
}

// What a run computes again after a crash must be the same, whatever else it computes at that time.
TEST_F(TextEncoderTest, TrainingRowsDependOnNothingElse) {
  const auto encoder = make();
  Captions all = {"", "a", "a red dog in the snow", "the old man and the sea went for a walk in the sea of the old"};
  for (int i = 0; i < 20; ++i) all.push_back(concat("dog ", i, i % 3 == 0 ? " in the snow" : ""));
  const auto together = encoder->encode(all, kPair, TextEncoder::Use::kTraining);
  for (size_t i = 0; i < all.size(); ++i) {
    const auto alone = encoder->encode({all[i]}, kPair, TextEncoder::Use::kTraining);
    const int64_t length = alone.lm_outputs.size(1);
    EXPECT_TRUE(together.lm_outputs[static_cast<int64_t>(i)].narrow(0, 0, length).equal(alone.lm_outputs[0])) << i;
  }
  // A dropped caption is encoded as sampling encodes no prompt.
  EXPECT_TRUE(
      encoder->encode({""}, kPair, TextEncoder::Use::kTraining).lm_mask.equal(encoder->encode({""}, kPair).lm_mask));
}

// Same numbers as the reference's way: all rows padded to the longest and encoded as one batch.
TEST_F(TextEncoderTest, EqualsOnePaddedBatch) {
  const Captions captions = {"", "a red dog", "the old man and the sea"};
  const auto ours = make()->encode(captions, kBatch);
  const auto tokenizer = MdmTokenizer::open(text_.vocab_file);
  std::vector<std::vector<int32_t>> rows;
  for (const auto& caption : captions) rows.push_back(tokenizer.encode_inference(caption, token_limits(reader_)));
  const auto batch = pad_tokens(rows, 0);
  const auto t5 = T5Encoder::load(find_text_model_files(text_.text_model));
  const auto expected = t5.forward(batch.tokens, batch.mask) * batch.mask.unsqueeze(-1);
  EXPECT_TRUE(ours.lm_mask.equal(batch.mask));
  EXPECT_LT(largest_difference(ours.lm_outputs, expected), 1e-5);
}

TEST_F(TextEncoderTest, StrangePrompts) {
  auto encoder = make();
  for (const std::string& prompt : {std::string(), std::string(10000, 'e'), std::string("\xFF\xC3(", 3),
                                    std::string("<pad></s>"), std::string("a\0b", 3)}) {
    const auto embedding = encoder->encode({prompt}, kPair);
    EXPECT_GE(embedding.lm_mask.sum().item<double>(), 1);
    EXPECT_LE(embedding.lm_mask.size(1), 32);
    EXPECT_TRUE(embedding.lm_mask.eq(1).all().item<bool>()) << "a hole in the mask";
    EXPECT_TRUE(embedding.lm_outputs.isfinite().all().item<bool>());
  }
  reader_.max_token_length = 0;
  EXPECT_THROW(make()->encode({"a dog"}, kPair), DataError);
  reader_ = {};
  EXPECT_EQ(make()->encode({"a dog"}, kPair).attended_lengths, Lengths{3}) << "without a limit the end token stays";
  reader_.prepad_caption_with_space = reader_.append_eos = false;
  EXPECT_THROW(make()->encode({""}, kPair), DataError) << "no tokens at all";
}

TEST_F(TextEncoderTest, ThingsThatDontBelongTogether) {
  text_test::RandomT5 small;
  small.vocab_size = 100;
  write_random_t5(folder_ / "small", small);
  text_.text_model = (folder_ / "small").string();
  expect_error<ConfigError>([&] { make(); }, {"the vocabulary has 365 pieces", "100 rows"});
  text_.text_model = (folder_ / "t5").string();
  reader_.padding_token = "[PAD]";
  expect_error<ConfigError>([&] { make(); }, {"padding_token '[PAD]'"});
  reader_ = {};
  text_.vocab_file = "data/t5.vocab";
  expect_error<ConfigError>([&] { make(); }, {"data/t5.vocab' is not there", "spiece.model"});
  text_.kind = TextKind::kJoint;
  expect_error<ConfigError>([&] { make(); }, {"joint", "data/t5.vocab' is not there"});
}

TEST_F(TextEncoderTest, DamagedWeightsAreSeen) {
  auto file = folder_ / "t5/model.safetensors";
  const auto size = fs::file_size(file);
  std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
  out.seekp(static_cast<std::streamoff>(size - 32 * 64 * 4));  // into the last matrix
  const std::vector<uint32_t> not_a_number(32 * 64, 0x7FC00000);
  out.write(reinterpret_cast<const char*>(not_a_number.data()), 32 * 64 * 4);
  out.close();
  expect_error<CheckpointError>([&] { make()->encode({"a dog"}, kPair); }, {"not finite"});
}

TEST_F(TextEncoderTest, VocabularyOfTheTextModelsFolder) {
  MDM_NEED_REFERENCE();
  text_test::RandomT5 model;
  model.vocab_size = 32128;
  write_random_t5(folder_ / "full", model);
  fs::copy_file(text_test::reference_folder() / "t5_from_vocab.model", folder_ / "full/spiece.model");
  text_.text_model = (folder_ / "full").string();
  for (const char* absent : {"", "data/t5.vocab"}) {
    text_.vocab_file = absent;
    text_.tokenizer = TokenizerKind::kMdm;
    EXPECT_EQ(make_tokenizer(text_, folder_ / "full")->encode_inference("", {}).size(), 2U);
    text_.tokenizer = TokenizerKind::kT5;
    EXPECT_EQ(make_tokenizer(text_, folder_ / "full")->encode_inference("", {}).size(), 1U);
  }
  text_.vocab_file = (text_test::reference_folder() / "data/t5.vocab").string();
  EXPECT_EQ(make_tokenizer(text_, folder_ / "full")->kind(), "t5")
      << "a .vocab won't do for it, the folder's model does";
  EXPECT_THROW(make_tokenizer(text_, {}), ConfigError);
  EXPECT_EQ(make()->encode({"a photo of a cat"}, kPair).lm_mask.size(1), 8);
}

// The text half of the reference's whole runs: ids, mask and outputs of [negatives; prompts] in one batch.
TEST_F(TextEncoderTest, TextOfTheReferencesRuns) {
  MDM_NEED_REFERENCE();
  text_.vocab_file = (text_test::reference_folder() / "data/t5.vocab").string();
  reader_.max_caption_length = 512;
  reader_.max_token_length = 128;
  for (const char* name : {"e01_unet_ddim", "e02_nested_ddpm"}) {
    const auto folder = text_test::shared_golden() / "end_to_end" / name;
    std::ifstream in(folder / "case.json");
    const auto outputs = TensorFile::open(folder / "outputs.safetensors");
    text_.text_model = (folder / "text_model").string();
    const auto encoder = make();
    const auto description = nlohmann::json::parse(in);
    for (const auto& run : description.at("runs")) {
      const auto prompts = run["prompts"].get<Captions>();
      const Captions negatives(prompts.size(), run["negative_prompt"].get<std::string>());
      const auto embedding = encoder->encode_pairs(negatives, prompts, kBatch);
      const auto prefix = run["name"].get<std::string>() + ".";
      EXPECT_TRUE(embedding.lm_mask.equal(outputs.tensor(prefix + "lm_mask").to(at::kFloat)));
      EXPECT_TRUE(at::allclose(embedding.lm_outputs, outputs.tensor(prefix + "lm_outputs"), 2e-4, 2e-5)) << name;
    }
  }
}

TEST_F(TextEncoderTest, ClassLabels) {
  text_.kind = TextKind::kClass;
  text_.vocab_file = (folder_ / "classes.txt").string();
  text_test::write_text(text_.vocab_file, "<unk>\t0\n<s>\t0\n</s>\t0\ncat\t0\nred fox\t0\nowl\n");
  const auto plain = make();
  EXPECT_EQ(plain->width(), 3);
  const auto rows = plain->encode({"owl", " red fox ", ""}, kBatch);
  EXPECT_TRUE(
      rows.lm_outputs.squeeze(1).equal(at::tensor({0., 0., 1., 0., 1., 0., 0., 0., 0.}, at::kFloat).view({3, 3})));
  EXPECT_TRUE(rows.lm_mask.equal(at::ones({3, 1})));
  for (const int64_t width : {6, 7}) {
    TextEncoderOptions options;
    options.class_width = width;
    EXPECT_EQ(make(options)->encode({"cat"}, kBatch).lm_outputs.argmax(-1).item<int64_t>(), 3)
        << "the reference's numbering";
  }
  TextEncoderOptions wrong;
  wrong.class_width = 5;
  expect_error<ConfigError>([&] { make(wrong); }, {"3 classes", "width 5"});
  expect_error<DataError>([&] { plain->encode({"red fx"}, kBatch); }, {"no class 'red fx'", "'red fox'"});
  const auto training = plain->encode({"owl", ""}, policy(PadPolicy::Mode::kFixed, 64), TextEncoder::Use::kTraining);
  EXPECT_EQ(training.lm_outputs.sizes(), at::IntArrayRef({2, 1, 3})) << "a label is one token, whatever the padding";
  EXPECT_EQ(training.attended_lengths, (Lengths{1, 1}));
  EXPECT_EQ(training.lm_outputs[1].abs().sum().item<double>(), 0) << "a dropped label is the zero vector";
  text_test::write_text(text_.vocab_file, "cat\ncat\n");
  expect_error<DataError>([&] { make(); }, {"'cat' is there twice"});
  text_test::write_text(text_.vocab_file, "<unk>\n");
  expect_error<DataError>([&] { make(); }, {"no classes"});
}

void write_embeddings(const fs::path& file, const std::vector<std::pair<std::string, std::vector<int64_t>>>& tensors) {
  nlohmann::json header = nlohmann::json::object();
  int64_t offset = 0;
  std::string data;
  for (const auto& [name, shape] : tensors) {
    int64_t numel = 1;
    for (const int64_t size : shape) numel *= size;
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {offset, offset + 4 * numel}}};
    for (int64_t i = 0; i < numel; ++i) {
      const auto value = static_cast<float>(i + offset);
      data.append(reinterpret_cast<const char*>(&value), 4);
    }
    offset += 4 * numel;
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  text_test::write_text(file, std::string(reinterpret_cast<const char*>(&length), 8) + text + data);
}

TEST_F(TextEncoderTest, PrecomputedEmbeddings) {
  text_.kind = TextKind::kPrecomputed;
  text_.text_model = (folder_ / "captions.safetensors").string();
  write_embeddings(text_.text_model, {{"a dog", {3, 4}}, {"", {1, 4}}});
  const auto encoder = make();
  EXPECT_EQ(encoder->width(), 4);
  const auto rows = encoder->encode_pairs({""}, {"a dog"}, kPair);
  EXPECT_EQ(rows.attended_lengths, (Lengths{3, 3}));
  EXPECT_TRUE(rows.lm_mask.sum(1).equal(at::tensor({1.F, 3.F})));
  EXPECT_TRUE(rows.lm_outputs[1].equal(at::arange(12, at::kFloat).view({3, 4})));
  EXPECT_EQ(encoder->encode({"a dog"}, policy(PadPolicy::Mode::kFixed, 2)).lm_mask.sum().item<double>(), 2);
  expect_error<DataError>([&] { encoder->encode({"a dg"}, kPair); }, {"no embedding of \"a dg\"", "'a dog'"});
  write_embeddings(text_.text_model, {{"a dog", {3, 4}}, {"", {1, 5}}});
  EXPECT_THROW(make(), CheckpointError);
  write_embeddings(text_.text_model, {{"a dog", {3}}});
  EXPECT_THROW(make(), CheckpointError);

  write_embeddings(text_.text_model, {{"", {2, 4}}});
  const auto stored = make();
  const at::Tensor own = at::arange(12, at::kFloat).view({3, 4}) + 100;
  const auto given = stored->encode_given({own.to(at::kBFloat16), at::Tensor()}, kPair);
  EXPECT_EQ(given.attended_lengths, (Lengths{3, 2}));
  EXPECT_TRUE(given.lm_outputs[0].equal(own)) << "100 to 111 are bfloat16 numbers";
  EXPECT_TRUE(given.lm_outputs[1].narrow(0, 0, 2).equal(stored->encode({""}, kPair).lm_outputs[0]))
      << "a dropped caption has the file's empty one";
  EXPECT_TRUE(given.lm_mask.equal(at::tensor({1.F, 1.F, 1.F, 1.F, 1.F, 0.F}).view({2, 3})));
  const auto fixed = stored->encode_given({own}, policy(PadPolicy::Mode::kFixed, 2));
  EXPECT_EQ(fixed.lm_outputs.sizes(), at::IntArrayRef({1, 2, 4}));
  for (const at::Tensor& bad : {at::ones({3, 5}), at::ones({4}), at::ones({0, 4}), at::ones({3, 4}, at::kLong)}) {
    EXPECT_THROW(stored->encode_given({bad}, kPair), DataError);
  }

  const auto beside = embedding_from_rows({at::ones({2, 3}), at::ones({1, 3})});
  EXPECT_EQ(beside.attended_lengths, (Lengths{2, 2}));
  EXPECT_TRUE(beside.lm_mask.equal(at::tensor({1.F, 1.F, 1.F, 0.F}).view({2, 2})));
  EXPECT_EQ(embedding_from_rows({at::ones({2, 3})}, 1).lm_outputs.size(1), 1);
  EXPECT_THROW(embedding_from_rows({at::ones({2, 3}), at::ones({2, 4})}), DataError);
  EXPECT_THROW(embedding_from_rows({}), DataError);
}

// A cache as the Hugging Face tools make it: snapshots of links into blobs.
class HubCacheTest : public testing::Test {
 protected:
  HubCacheTest() {
    write_random_t5(blobs_, text_test::RandomT5());
    fs::create_directories(snapshot_);
    for (const char* name : {"config.json", "model.safetensors"})
      fs::create_symlink(fs::path("../../blobs") / name, snapshot_ / name);
    text_test::write_text(home_ / "refs/main", kRevision);
  }
  static constexpr const char* kRevision = "0123456789abcdef0123456789abcdef01234567";
  TemporaryFolder folder_;
  fs::path cache_ = folder_ / "hub", home_ = cache_ / "models--google--flan-t5-tiny", blobs_ = home_ / "blobs",
           snapshot_ = home_ / "snapshots" / kRevision;
};

TEST_F(HubCacheTest, IdIsResolved) {
  EXPECT_EQ(resolve_text_model("google/flan-t5-tiny", cache_), snapshot_);
  text_test::write_text(home_ / "refs/main", std::string(kRevision) + "\n");
  EXPECT_EQ(resolve_text_model("google/flan-t5-tiny", cache_), snapshot_);
  const auto files = find_text_model_files(resolve_text_model("google/flan-t5-tiny", cache_));
  EXPECT_EQ(T5Encoder::load(files).width(), 32);
  EXPECT_TRUE(files.spiece_model.empty());
  EXPECT_EQ(resolve_text_model(snapshot_.string(), cache_), snapshot_) << "a folder is itself";
}

TEST_F(HubCacheTest, AbsentModelsSayHowToGetThem) {
  expect_error<ConfigError>(
      [&] { resolve_text_model("google/flan-t5-xl", cache_); },
      {"models--google--flan-t5-xl", "config.json", "spiece.model", "huggingface-cli download google/flan-t5-xl"});
  for (const char* name : {"", "../mdm_no_such_folder", "a/b/c", "a/..", "/no/such/folder", "-x/y", "a\nb"}) {
    expect_error<ConfigError>([&] { resolve_text_model(name, cache_); },
                              {"text_model", "A text model is a folder with config.json"});
  }
  fs::remove_all(snapshot_);
  expect_error<ConfigError>([&] { resolve_text_model("google/flan-t5-tiny", cache_); }, {"has no folder", kRevision});
}

TEST_F(HubCacheTest, HostileRefsAndLinks) {
  fs::create_directories(folder_ / "elsewhere");
  for (const char* ref : {"../../../elsewhere", "..", ".", "", "a/b", "x\ny", "/etc"}) {
    text_test::write_text(home_ / "refs/main", ref);
    EXPECT_THROW(resolve_text_model("google/flan-t5-tiny", cache_), ConfigError) << ref;
  }
  text_test::write_text(home_ / "refs/main", "linked");
  fs::create_directory_symlink(folder_ / "elsewhere", home_ / "snapshots/linked");
  EXPECT_THROW(resolve_text_model("google/flan-t5-tiny", cache_), ConfigError) << "a snapshot that is elsewhere";

  const auto secret = folder_ / "secret.safetensors";
  fs::copy_file(blobs_ / "model.safetensors", secret);
  fs::remove(snapshot_ / "model.safetensors");
  fs::create_symlink(secret, snapshot_ / "model.safetensors");
  expect_error<CheckpointError>([&] { find_text_model_files(snapshot_); }, {"leads out"});
  fs::remove(snapshot_ / "model.safetensors");
  expect_error<ConfigError>([&] { find_text_model_files(snapshot_); },
                            {"has no weights", "model.safetensors.index.json"});
}

TEST_F(HubCacheTest, IndexNamesBareFilesOnly) {
  const auto folder = folder_ / "sharded";
  fs::create_directories(folder);
  fs::copy_file(blobs_ / "config.json", folder / "config.json");
  fs::copy_file(blobs_ / "model.safetensors", folder / "part-1.safetensors");
  const auto with_index = [&](const std::string& text) {
    text_test::write_text(folder / "model.safetensors.index.json", text);
    return find_text_model_files(folder);
  };
  EXPECT_EQ(with_index(R"({"weight_map": {"shared.weight": "part-1.safetensors"}})").weights.size(), 1U);
  for (const char* name : {"../hub/x", "/etc/passwd", "a/b", "..", ".hidden", "a\\\\b", ""}) {
    expect_error<CheckpointError>([&] { with_index(concat(R"({"weight_map": {"shared.weight": ")", name, "\"}}")); },
                                  {"'shared.weight'", "name of a file in the same folder"});
  }
  expect_error<CheckpointError>([&] { with_index(R"({"weight_map": {"shared.weight": "part-2.safetensors"}})"); },
                                {"lacks part-2"});
  for (const char* text :
       {"", "[]", "{}", R"({"weight_map": 3})", R"({"weight_map": {}})", R"({"weight_map": {"a": 3}})"}) {
    EXPECT_THROW(with_index(text), CheckpointError) << text;
  }
}

TEST(HubCache, VariablesInOrder) {
  const auto set = [](const char* name, const char* value) {
    value == nullptr ? ::unsetenv(name) : ::setenv(name, value, 1);
  };
  const Captions names = {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"};
  std::vector<std::pair<std::string, std::string>> saved;
  for (const auto& name : names) {
    if (const char* value = std::getenv(name.c_str())) saved.emplace_back(name, value);
  }
  set("HF_HUB_CACHE", "/a");
  set("HF_HOME", "/b");
  set("XDG_CACHE_HOME", "/c");
  set("HOME", "/d");
  EXPECT_EQ(hugging_face_cache(), "/a");
  set("HF_HUB_CACHE", nullptr);
  EXPECT_EQ(hugging_face_cache(), "/b/hub");
  set("HF_HOME", nullptr);
  EXPECT_EQ(hugging_face_cache(), "/c/huggingface/hub");
  set("XDG_CACHE_HOME", nullptr);
  EXPECT_EQ(hugging_face_cache(), "/d/.cache/huggingface/hub");
  set("HOME", nullptr);
  EXPECT_EQ(hugging_face_cache(), "");
  for (const auto& [name, value] : saved) set(name.c_str(), value.c_str());
}

}  // namespace
}  // namespace mdm
