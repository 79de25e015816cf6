// Both tokenizers against the ids of the reference and of SentencePiece, with the reference's vocabulary.
#include <gtest/gtest.h>

#include <algorithm>

#include "mdm/text/mdm_tokenizer.h"
#include "mdm/text/t5_tokenizer.h"
#include "text/text_test_support.h"

namespace mdm {
namespace {

using text_test::json_lines;
using Ids = std::vector<int32_t>;

TokenizerCompat reference_behaviour() {
  TokenizerCompat compat;
  compat.keep_special_pieces = compat.cut_last_when_unlimited = true;
  return compat;
}

std::filesystem::path vocab_file() { return text_test::reference_folder() / "data/t5.vocab"; }
std::filesystem::path model_file() { return text_test::reference_folder() / "t5_from_vocab.model"; }

std::string decode_base64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int have = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(digits.find(c));
    have += 6;
    if (have >= 8) out += static_cast<char>(bits >> (have -= 8));
  }
  return out;
}

TEST(TokenizerGolden, InferenceIds) {
  MDM_NEED_REFERENCE();
  const auto tokenizer = MdmTokenizer::from_vocab(vocab_file(), reference_behaviour());
  TokenLimits limits;
  limits.max_caption_length = 512;
  limits.max_token_length = 128;
  int count = 0;
  for (const auto& line : json_lines(text_test::shared_golden() / "tokenizer/mdm_infer.jsonl")) {
    EXPECT_EQ(tokenizer.encode_inference(line["text"].get<std::string>(), limits), line["ids"].get<Ids>())
        << line["text"];
    ++count;
  }
  EXPECT_GE(count, 500);
}

TEST(TokenizerGolden, TrainingIds) {
  MDM_NEED_REFERENCE();
  const auto tokenizer = MdmTokenizer::from_vocab(vocab_file(), reference_behaviour());
  TokenLimits limited;
  limited.max_caption_length = 512;
  limited.max_token_length = 128;
  for (const auto& line : json_lines(text_test::shared_golden() / "tokenizer/mdm_train.jsonl")) {
    const auto text = line["text"].get<std::string>();
    EXPECT_EQ(tokenizer.encode_training(text, {}).ids, line["ids"].get<Ids>()) << line["text"];
    const auto kept = tokenizer.encode_training(text, limited);
    EXPECT_EQ(kept.kept, line["kept_512_128"].get<bool>()) << line["text"];
    EXPECT_EQ(kept.ids, kept.kept ? line["ids"].get<Ids>() : Ids());
  }
}

TEST(TokenizerGolden, BytesThatAreNoUtf8) {
  MDM_NEED_REFERENCE();
  const auto tokenizer = MdmTokenizer::from_vocab(vocab_file(), reference_behaviour());
  for (const auto& line : json_lines(text_test::shared_golden() / "tokenizer/mdm_bytes.jsonl")) {
    const auto bytes = decode_base64(line["b64"]);
    TokenLimits longest;
    longest.max_token_length = 1 << 20;
    EXPECT_EQ(tokenizer.encode_training(bytes, {}).ids, line["ids_train"].get<Ids>()) << line["b64"];
    EXPECT_EQ(tokenizer.encode_inference(bytes, longest), line["ids_infer"].get<Ids>()) << line["b64"];
  }
}

TEST(TokenizerGolden, SentencePieceIds) {
  MDM_NEED_REFERENCE();
  const auto tokenizer = T5Tokenizer::open(model_file());
  int count = 0;
  for (const auto& line : json_lines(text_test::shared_golden() / "tokenizer/t5_spm.jsonl")) {
    const auto ids = tokenizer.encode_inference(line["text"].get<std::string>(), {});
    const bool older = line.contains("ids_0_1_97") && ids == line["ids_0_1_97"].get<Ids>();
    EXPECT_TRUE(older || ids == line["ids"].get<Ids>()) << line["text"];
    ++count;
  }
  EXPECT_GE(count, 500);
}

TEST(TokenizerGolden, SpieceModelGivesTheSameVocabulary) {
  MDM_NEED_REFERENCE();
  const auto from_vocab = MdmTokenizer::open(vocab_file());
  const auto from_model = MdmTokenizer::open(model_file());
  ASSERT_EQ(from_vocab.vocab_size(), 32100);
  ASSERT_EQ(from_model.vocab_size(), from_vocab.vocab_size());
  for (int32_t id = 0; id < from_vocab.vocab_size(); ++id) {
    ASSERT_EQ(from_model.piece(id), from_vocab.piece(id));
    ASSERT_EQ(from_model.cost(id), from_vocab.cost(id)) << from_vocab.piece(id);
    ASSERT_EQ(from_vocab.id_of(from_vocab.piece(id)), id);
  }
}

TEST(TokenizerGolden, SpecialPiecesInTextAreDroppedAndNothingElseChanges) {
  MDM_NEED_REFERENCE();
  const auto ours = MdmTokenizer::from_vocab(vocab_file());
  for (const auto& line : json_lines(text_test::shared_golden() / "tokenizer/mdm_train.jsonl")) {
    Ids expected = line["ids"].get<Ids>();
    expected.pop_back();  // the EOS that belongs there
    expected.erase(std::remove_if(expected.begin(), expected.end(), [](int32_t id) { return id <= 2 || id >= 32000; }),
                   expected.end());
    expected.push_back(1);
    EXPECT_EQ(ours.encode_training(line["text"].get<std::string>(), {}).ids, expected) << line["text"];
  }
}

}  // namespace
}  // namespace mdm
