// The text encoder that is trained with the model: what its network computes, that gradients pass, how it
// travels in checkpoints, and that it learns which word belongs to which object.
#include "mdm/text/joint_encoder.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "mdm/checkpoint/inspect.h"
#include "mdm/checkpoint/write.h"
#include "mdm/core/error.h"
#include "text/text_test_support.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;
using Captions = std::vector<std::string>;
using text_test::TemporaryFolder;
using Use = TextEncoder::Use;

const PadPolicy kOwn;  // pair

PadPolicy fixed(int64_t length) {
  PadPolicy pad;
  pad.mode = PadPolicy::Mode::kFixed;
  pad.length = length;
  return pad;
}

at::Generator seeded(uint64_t seed) { return at::detail::createCPUGenerator(seed); }
double joint_difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

class JointEncoderTest : public testing::Test {
 protected:
  JointEncoderTest() : threads_(at::get_num_threads()) {
    at::set_num_threads(1);
    std::string vocabulary = "<pad>\t0\n</s>\t0\n<unk>\t0\n\xE2\x96\x81\t-5\n";
    for (const char* word : {"a", "red", "green", "blue", "circle", "square", "star", "left", "right", "of", "above"}) {
      vocabulary += concat("\xE2\x96\x81", word, "\t-1.25\n");
    }
    text_.vocab_file = (folder_ / "words.vocab").string();
    text_test::write_text(text_.vocab_file, vocabulary);
    text_.kind = TextKind::kJoint;
    text_.joint_width = 16;
    text_.joint_layers = 2;
    text_.joint_heads = 4;
    text_.joint_tokens = 12;
  }
  ~JointEncoderTest() override { at::set_num_threads(threads_); }

  std::unique_ptr<JointTextEncoder> fresh(uint64_t seed = 1) const {
    auto encoder = JointTextEncoder::make(text_, reader_);
    encoder->network()->init(seeded(seed));
    return encoder;
  }
  // Weights of which none is small, so that every part of the network shows in its outputs.
  std::unique_ptr<JointTextEncoder> rough(uint64_t seed = 1) const {
    auto encoder = fresh(seed);
    const c10::NoGradGuard no_grad;
    auto generator = seeded(seed + 100);
    for (const auto& item : encoder->tensors()) {
      at::Tensor tensor = item.tensor;
      tensor.normal_(0, 0.4, generator);
    }
    return encoder;
  }

  int threads_;
  TemporaryFolder folder_;
  TextConfig text_;
  ReaderConfig reader_;
};

// The network in double precision from the formulas, word by word, without batches or masks.
at::Tensor by_the_book(const JointTextEncoder& encoder, const std::vector<int32_t>& ids) {
  std::map<std::string, at::Tensor> weights;
  for (const auto& item : encoder.tensors()) weights[item.name] = item.tensor.detach().to(at::kDouble);
  const auto norm = [&](const at::Tensor& x, const std::string& name) {
    const at::Tensor centred = x - x.mean(-1, true);
    const at::Tensor variance = centred.square().mean(-1, true);
    return centred / (variance + 1e-5).sqrt() * weights.at(name + ".weight") + weights.at(name + ".bias");
  };
  const auto linear = [&](const at::Tensor& x, const std::string& name) {
    return at::matmul(x, weights.at(name + ".weight").t()) + weights.at(name + ".bias");
  };
  const auto count = static_cast<int64_t>(ids.size());
  const auto shape = encoder.network()->shape();
  const int64_t head = shape.width / shape.heads;
  at::Tensor x = at::empty({count, shape.width}, at::kDouble);
  for (int64_t i = 0; i < count; ++i) {
    x[i] = weights.at("token_embedding")[ids[static_cast<size_t>(i)]] + weights.at("position_embedding")[i];
  }
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    const std::string at = "layers." + std::to_string(layer) + ".";
    const at::Tensor qkv = linear(norm(x, at + "norm1"), at + "qkv");
    at::Tensor mixed = at::empty({count, shape.width}, at::kDouble);
    for (int64_t h = 0; h < shape.heads; ++h) {
      const auto part = [&](int64_t third) { return qkv.narrow(1, third * shape.width + h * head, head); };
      const at::Tensor scores = at::matmul(part(0), part(1).t()) / std::sqrt(static_cast<double>(head));
      mixed.narrow(1, h * head, head).copy_(at::matmul(scores.softmax(-1), part(2)));
    }
    x = x + linear(mixed, at + "proj_out");
    const at::Tensor inner = linear(norm(x, at + "norm2"), at + "up");
    x = x + linear(inner * 0.5 * (1 + at::erf(inner / std::sqrt(2.0))), at + "down");
  }
  return norm(x, "norm_out");
}

TEST_F(JointEncoderTest, ComputesTheFormulas) {
  const auto encoder = rough();
  EXPECT_EQ(encoder->kind(), TextKind::kJoint);
  EXPECT_EQ(encoder->width(), 16);
  const Captions captions = {"a red circle left of a blue square", "a star", ""};
  const auto embedding = encoder->encode(captions, kOwn);
  EXPECT_EQ(embedding.attended_lengths, (std::vector<int64_t>{9, 3, 2}));
  for (size_t i = 0; i < captions.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    const auto ids = encoder->tokens_of(captions[i], -1, Use::kSampling);
    const auto length = static_cast<int64_t>(ids.size());
    const at::Tensor expected = by_the_book(*encoder, ids).to(at::kFloat);
    EXPECT_LT(joint_difference(embedding.lm_outputs[row].narrow(0, 0, length), expected), 2e-5) << captions[i];
    EXPECT_EQ(embedding.lm_outputs[row].narrow(0, length, 9 - length).count_nonzero().item<int64_t>(), 0);
    EXPECT_EQ(embedding.lm_mask[row].sum().item<int64_t>(), length);
  }
}

TEST_F(JointEncoderTest, RowsDontDependOnNeighboursOrPadding) {
  const auto encoder = rough();
  const Captions captions = {"a red circle left of a blue square", "a star", "", "red", "a blue star above a circle"};
  const auto together = encoder->encode(captions, fixed(12));
  EXPECT_EQ(together.lm_outputs.sizes(), at::IntArrayRef({5, 12, 16}));
  for (size_t i = 0; i < captions.size(); ++i) {
    const auto alone = encoder->encode({captions[i]}, kOwn);
    const auto row = static_cast<int64_t>(i), length = alone.lm_outputs.size(1);
    EXPECT_LT(joint_difference(together.lm_outputs[row].narrow(0, 0, length), alone.lm_outputs[0]), 2e-6);
  }
  const auto cut = encoder->encode({captions[0]}, fixed(4));
  EXPECT_EQ(cut.lm_mask.sum().item<double>(), 4);
}

TEST_F(JointEncoderTest, TrainingReadsCaptionsAsSamplingDoes) {
  const auto encoder = rough();
  const Captions captions = {"a red circle", ""};
  const auto sampling = encoder->encode(captions, kOwn), training = encoder->encode(captions, kOwn, Use::kTraining);
  EXPECT_TRUE(sampling.lm_outputs.equal(training.lm_outputs));
  const auto pairs = encoder->encode_pairs({""}, {"a red circle"}, kOwn);
  EXPECT_EQ(pairs.attended_lengths, (std::vector<int64_t>{4, 4}));
}

TEST_F(JointEncoderTest, LimitsAndWrongSettings) {
  const std::string long_caption = "a red circle left of a blue square above a green star left of a circle";
  EXPECT_EQ(fresh()->encode({long_caption}, kOwn).lm_mask.size(1), 12) << "joint_tokens";
  reader_.max_token_length = 5;
  EXPECT_EQ(fresh()->encode({long_caption}, kOwn).lm_mask.size(1), 5);
  reader_.pad_to_max_length = true;
  EXPECT_EQ(fresh()->encode({"a"}, kOwn).attended_lengths, (std::vector<int64_t>{5}));
  reader_ = {};
  reader_.append_eos = reader_.prepad_caption_with_space = false;
  EXPECT_THROW(fresh()->encode({""}, kOwn), DataError);
  reader_ = {};
  reader_.padding_token = "[PAD]";
  EXPECT_THROW(fresh(), ConfigError);
  reader_ = {};
  text_.joint_heads = 3;
  EXPECT_THROW(fresh(), ConfigError);
  text_.joint_heads = 4;
  text_.tokenizer = TokenizerKind::kT5;
  EXPECT_THROW(fresh(), ConfigError);
  text_.tokenizer = TokenizerKind::kMdm;
  text_.vocab_file = "";
  EXPECT_THROW(fresh(), ConfigError);
}

TEST_F(JointEncoderTest, InitIsAFunctionOfTheSeed) {
  const auto a = fresh(7), b = fresh(7), c = fresh(8);
  const auto first = a->tensors(), second = b->tensors(), third = c->tensors();
  EXPECT_EQ(first.size(), 4u + 12u * 2u);
  int64_t differ = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].name, second[i].name);
    EXPECT_TRUE(first[i].tensor.equal(second[i].tensor)) << first[i].name;
    EXPECT_TRUE(first[i].tensor.isfinite().all().item<bool>()) << first[i].name;
    differ += first[i].tensor.equal(third[i].tensor) ? 0 : 1;
  }
  EXPECT_GE(differ, 2 + 4 * 2);  // norms and some biases begin the same
}

// The gradient along a direction equals the difference quotient, and gradients of rows add up.
TEST_F(JointEncoderTest, GradientsAreRight) {
  const auto encoder = rough();
  const Captions captions = {"a red circle left of a blue square", "a star"};
  auto generator = seeded(5);
  const at::Tensor weights = at::empty({2, 9, 16}).normal_(0, 1, generator);
  const auto loss_of = [&](const Captions& some, const at::Tensor& weight) {
    return (encoder->encode(some, fixed(9), Use::kTraining).lm_outputs * weight).sum();
  };
  loss_of(captions, weights).backward();
  std::vector<at::Tensor> together;
  for (const auto& item : encoder->tensors()) {
    ASSERT_TRUE(item.tensor.grad().defined()) << item.name;
    together.push_back(item.tensor.grad().clone());
    at::Tensor grad = item.tensor.grad();
    grad.zero_();
  }
  loss_of({captions[0]}, weights.narrow(0, 0, 1)).backward();
  loss_of({captions[1]}, weights.narrow(0, 1, 1)).backward();
  const auto tensors = encoder->tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const double scale = together[i].abs().max().item<double>();
    EXPECT_LT(joint_difference(tensors[i].tensor.grad(), together[i]), 1e-5 * scale + 1e-6) << tensors[i].name;
  }
  // Words that stand in no caption have no part in it.
  const int32_t unused = encoder->tokenizer().id_of(" green");
  EXPECT_EQ(together[0][unused].abs().sum().item<double>(), 0);

  const c10::NoGradGuard no_grad;
  for (size_t i = 0; i < tensors.size(); ++i) {
    at::Tensor tensor = tensors[i].tensor;
    const at::Tensor kept = tensor.detach().clone(), direction = at::empty_like(kept).normal_(0, 1, generator);
    constexpr double kStep = 2e-3;
    tensor.copy_(kept + kStep * direction);
    const double above = loss_of(captions, weights).item<double>();
    tensor.copy_(kept - kStep * direction);
    const double below = loss_of(captions, weights).item<double>();
    tensor.copy_(kept);
    const double expected = (above - below) / (2 * kStep);
    const double found = (together[i] * direction).sum().item<double>();
    const double size = together[i].norm().item<double>() * direction.norm().item<double>();
    EXPECT_NEAR(found, expected, 0.01 * size + 0.05) << tensors[i].name;
  }
}

TEST_F(JointEncoderTest, GradModeDecides) {
  const auto encoder = fresh();
  EXPECT_TRUE(encoder->encode({"a star"}, kOwn, Use::kTraining).lm_outputs.requires_grad());
  const c10::NoGradGuard no_grad;
  EXPECT_FALSE(encoder->encode({"a star"}, kOwn, Use::kTraining).lm_outputs.requires_grad());
}

TEST_F(JointEncoderTest, WorksInBFloat16) {
  const auto wide = rough(), narrow = rough();
  narrow->network()->to(at::kBFloat16);
  const Captions captions = {"a red circle left of a blue square", "a star", ""};
  const auto exact = wide->encode(captions, kOwn, Use::kTraining);
  const auto rounded = narrow->encode(captions, kOwn, Use::kTraining);
  EXPECT_EQ(rounded.lm_outputs.scalar_type(), at::kFloat);
  EXPECT_LT((rounded.lm_outputs - exact.lm_outputs).norm().item<double>(),
            0.03 * exact.lm_outputs.norm().item<double>());
  auto generator = seeded(3);
  const at::Tensor weights = at::empty(exact.lm_outputs.sizes()).normal_(0, 1, generator);
  (exact.lm_outputs * weights).sum().backward();
  (rounded.lm_outputs * weights).sum().backward();
  const auto a = wide->tensors(), b = narrow->tensors();
  for (size_t i = 0; i < a.size(); ++i) {
    const at::Tensor expected = a[i].tensor.grad(), found = b[i].tensor.grad().to(at::kFloat);
    EXPECT_LT((found - expected).norm().item<double>(), 0.06 * expected.norm().item<double>() + 0.05) << a[i].name;
  }
}

// A file with a model of one tensor and the encoder beside it.
void write_with_encoder(const fs::path& path, const JointTextEncoder& encoder) {
  const std::vector<NamedTensor> model = {{"w", at::arange(4, at::kFloat)}};
  const std::vector<TensorSection> sections = {{kTextEncoderSection, encoder.tensors()}};
  if (path.extension() == ".pth") {
    const nlohmann::json items = {{"batch_num", 3}, {kTextVocabularyItem, encoder.vocabulary()}};
    write_pth(path, model, items.dump(), {}, sections);
  } else {
    write_safetensors(path, with_sections(model, sections), {{kTextVocabularyItem, encoder.vocabulary()}});
  }
}

TEST_F(JointEncoderTest, TravelsInCheckpoints) {
  const auto original = rough();
  const Captions captions = {"a red circle left of a blue square", "a star", ""};
  const at::Tensor expected = original->encode(captions, kOwn).lm_outputs.detach();
  write_with_encoder(folder_ / "a.pth", *original);
  write_with_encoder(folder_ / "b.safetensors", *original);
  convert_checkpoint(folder_ / "a.pth", folder_ / "c.safetensors");
  convert_checkpoint(folder_ / "b.safetensors", folder_ / "d.pth");
  convert_checkpoint(folder_ / "c.safetensors", folder_ / "e.pth");
  convert_checkpoint(folder_ / "e.pth", folder_ / "f.pth");
  ConvertOptions half;
  half.dtype = at::kBFloat16;
  convert_checkpoint(folder_ / "a.pth", folder_ / "g.pth", half);
  ConvertOptions shards;
  shards.max_shard_bytes = 4096;
  convert_checkpoint(folder_ / "a.pth", folder_ / "h", shards);
  text_.vocab_file = "/gone/words.vocab";  // the checkpoint has its own
  for (const char* name : {"a.pth", "b.safetensors", "c.safetensors", "d.pth", "e.pth", "f.pth", "g.pth", "h"}) {
    EXPECT_TRUE(holds_text_encoder(folder_ / name)) << name;
    TextEncoderOptions options;
    options.checkpoint = folder_ / name;
    const auto loaded = make_text_encoder(text_, reader_, options);
    const double tolerance = std::string(name) == "g.pth" ? 0.1 : 0;
    EXPECT_LE(joint_difference(loaded->encode(captions, kOwn).lm_outputs.detach(), expected), tolerance) << name;
    // The model beside it is what it was.
    const auto file = TensorFile::open(folder_ / name);
    const std::vector<NamedTensor> model = {{"w", at::zeros({4})}};
    LoadOptions strict;
    strict.ignored_prefix = concat(kTextEncoderSection, ".");
    EXPECT_EQ(load_state_dict(file, model, strict).loaded, 1u) << name;
    EXPECT_TRUE(model[0].tensor.equal(at::arange(4, at::kFloat)));
    EXPECT_TRUE(verify_checkpoint(folder_ / name).sound());
  }
  const auto items = nlohmann::json::parse(TensorFile::open(folder_ / "f.pth").metadata_json());
  EXPECT_EQ(items.at("batch_num"), 3) << "other items are carried along";
}

TEST_F(JointEncoderTest, CheckpointsThatDontFit) {
  const auto original = fresh();
  write_with_encoder(folder_ / "a.pth", *original);
  TextEncoderOptions options;
  options.checkpoint = folder_ / "a.pth";
  text_.joint_width = 32;
  EXPECT_THROW(make_text_encoder(text_, reader_, options), CheckpointError);
  text_.joint_width = 16;
  text_.joint_layers = 1000;
  EXPECT_THROW(make_text_encoder(text_, reader_, options), CheckpointError);
  text_.joint_layers = 2;
  text_.joint_tokens = 13;
  EXPECT_THROW(make_text_encoder(text_, reader_, options), CheckpointError);
  text_.joint_tokens = 12;
  write_pth(folder_ / "none.pth", {{"w", at::zeros({4})}});
  EXPECT_FALSE(holds_text_encoder(folder_ / "none.pth"));
  options.checkpoint = folder_ / "none.pth";
  EXPECT_THROW(make_text_encoder(text_, reader_, options), CheckpointError);
  // Without a vocabulary of its own the config's is taken, and must fit.
  write_pth(folder_ / "bare.pth", {{"w", at::zeros({4})}}, "{}", {}, {{kTextEncoderSection, original->tensors()}});
  options.checkpoint = folder_ / "bare.pth";
  EXPECT_NO_THROW(make_text_encoder(text_, reader_, options));
  text_test::write_text(folder_ / "short.vocab", "<pad>\t0\n</s>\t0\n<unk>\t0\n");
  text_.vocab_file = (folder_ / "short.vocab").string();
  EXPECT_THROW(make_text_encoder(text_, reader_, options), CheckpointError);
  const nlohmann::json damaged = {{kTextVocabularyItem, "no vocabulary"}};
  write_pth(folder_ / "bad.pth", {{"w", at::zeros({4})}}, damaged.dump(), {},
            {{kTextEncoderSection, original->tensors()}});
  options.checkpoint = folder_ / "bad.pth";
  EXPECT_THROW(make_text_encoder(text_, reader_, options), DataError);
  EXPECT_THROW(write_pth(folder_ / "twice.pth", {}, R"({"text_encoder": 1})", {}, {{kTextEncoderSection, {}}}),
               CheckpointError);
}

TEST_F(JointEncoderTest, IsCarriedOverToTheNextStage) {
  const auto original = rough(1);
  write_with_encoder(folder_ / "a.pth", *original);
  const auto next = fresh(2);
  next->load(folder_ / "a.pth");
  const Captions captions = {"a red circle left of a blue square"};
  EXPECT_TRUE(next->encode(captions, kOwn).lm_outputs.equal(original->encode(captions, kOwn).lm_outputs));
  // The same number of words, two of them exchanged.
  std::string other = original->vocabulary();
  const size_t red = other.find("red"), star = other.find("star");
  other.replace(star, 4, "red").replace(red, 3, "star");
  text_test::write_text(text_.vocab_file, other);
  const auto exchanged = fresh(2);
  EXPECT_THROW(exchanged->load(folder_ / "a.pth"), CheckpointError);
  write_pth(folder_ / "none.pth", {{"w", at::zeros({4})}});
  EXPECT_THROW(next->load(folder_ / "none.pth"), CheckpointError);
}

TEST_F(JointEncoderTest, VocabularyAsTextIsTheSame) {
  const auto encoder = fresh();
  const auto again = MdmTokenizer::from_vocab_text(encoder->vocabulary(), "here");
  ASSERT_EQ(again.vocab_size(), encoder->tokenizer().vocab_size());
  for (int32_t id = 0; id < again.vocab_size(); ++id) {
    EXPECT_EQ(again.piece(id), encoder->tokenizer().piece(id));
    EXPECT_EQ(again.cost(id), encoder->tokenizer().cost(id));
  }
  EXPECT_EQ(again.vocab_text(), encoder->vocabulary());
  text_test::write_text(folder_ / "bytes.vocab", "<pad>\t0\n</s>\t0\n<unk>\t0\n\xC3\t-1\n");
  EXPECT_THROW(MdmTokenizer::open(folder_ / "bytes.vocab").vocab_text(), ConfigError);
}

TEST_F(JointEncoderTest, BigVocabularyAsTextIsTheSame) {
  MDM_NEED_REFERENCE();
  const auto file = MdmTokenizer::open(text_test::reference_folder() / "data/t5.vocab");
  const auto again = MdmTokenizer::from_vocab_text(file.vocab_text(), "here");
  ASSERT_EQ(again.vocab_size(), file.vocab_size());
  for (int32_t id = 0; id < again.vocab_size(); ++id) {
    ASSERT_EQ(again.piece(id), file.piece(id));
    ASSERT_EQ(again.cost(id), file.cost(id));
  }
}

}  // namespace
}  // namespace mdm
