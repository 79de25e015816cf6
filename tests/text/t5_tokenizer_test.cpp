// The t5 tokenizer with models of our own making, and what a SentencePiece file may not hold.
#include "mdm/text/t5_tokenizer.h"

#include <ATen/ATen.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>

#include "mdm/core/error.h"
#include "mdm/text/mdm_tokenizer.h"
#include "text/spiece_model.h"
#include "text/text_test_support.h"
#include "text/vocabulary.h"

namespace mdm {
namespace {

using Ids = std::vector<int32_t>;
using text_test::TemporaryFolder;

void put_unit(std::string& units, size_t at, uint32_t unit) {
  for (int i = 0; i < 4; ++i) units[at * 4 + static_cast<size_t>(i)] = static_cast<char>(unit >> (8 * i));
}

// A character map that turns "A" into "a": three units of a double array of 1,024.
std::string small_charsmap() {
  std::string units(4096, '\0');
  put_unit(units, 0, 256U << 10);                                       // the root; its children are at 256 ^ byte
  put_unit(units, 256 ^ 'A', (0x141U ^ 0x200U) << 10 | 1U << 8 | 'A');  // a value hangs below, at 512
  put_unit(units, 512, 1U << 31 | 2);                                   // the string at byte 2
  std::string map = {0, 0x10, 0, 0};
  return map + units + std::string("x\0a\0", 4);
}

// The pieces of own.vocab as a SentencePiece model.
SpieceModel own_model() {
  const auto vocabulary = read_vocab(text_test::own_golden() / "tokenizer/own.vocab");
  auto bytes = std::make_shared<std::string>();
  std::vector<std::pair<size_t, size_t>> places;
  SpieceModel model;
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.piece(id).substr(0, 7) == "<extra_") continue;
    const size_t begin = bytes->size();
    for (const char c : vocabulary.piece(id)) *bytes += c == ' ' ? std::string("\xE2\x96\x81") : std::string(1, c);
    places.emplace_back(begin, bytes->size() - begin);
    SpiecePiece piece;
    piece.score = static_cast<float>(-vocabulary.costs[id]);
    piece.type = id < 2 ? SpieceType::kControl : id == 2 ? SpieceType::kUnknown : SpieceType::kNormal;
    model.pieces.push_back(piece);
  }
  for (size_t i = 0; i < places.size(); ++i) {
    model.pieces[i].text = std::string_view(*bytes).substr(places[i].first, places[i].second);
  }
  model.bytes = bytes;
  return model;
}

void save(const std::filesystem::path& file, const SpieceModel& model) {
  text_test::write_text(file, serialize(model));
}

TEST(T5Tokenizer, OwnModelBesideLibTorch) {
  TemporaryFolder folder;
  save(folder / "spiece.model", own_model());
  const auto tokenizer = T5Tokenizer::open(folder / "spiece.model");
  const auto mdm = MdmTokenizer::open(folder / "spiece.model");
  // One process, both libraries: they share symbols of protobuf.
  const auto product = at::matmul(at::ones({8, 8}), at::ones({8, 8}));
  EXPECT_EQ(product.sum().item<double>(), 512);
  const int32_t a = mdm.id_of(" a"), red = mdm.id_of(" red"), dog = mdm.id_of(" dog");
  EXPECT_EQ(tokenizer.encode_inference("a red dog", {}), (Ids{a, red, dog, 1}));
  EXPECT_EQ(tokenizer.encode_inference("  a   red dog ", {}), (Ids{a, red, dog, 1})) << "spaces are collapsed";
  EXPECT_EQ(tokenizer.encode_inference("", {}), Ids{1});
  EXPECT_EQ(mdm.encode_inference("a red dog", {}), (Ids{a, red, dog, 1}));
  EXPECT_EQ(mdm.vocab_size(), tokenizer.vocab_size() + 100) << "the extra ids are not in the file";
  EXPECT_EQ(mdm.id_of("<extra_id_0>"), mdm.vocab_size() - 1);
  EXPECT_EQ(tokenizer.id_of("<pad>"), 0);
  EXPECT_EQ(tokenizer.id_of("nowhere"), -1);

  TokenLimits limits;
  limits.max_token_length = 3;
  EXPECT_EQ(tokenizer.encode_inference("a red dog", limits), (Ids{a, red, 1})) << "the end token stays";
  limits.max_token_length = 0;
  EXPECT_EQ(tokenizer.encode_inference("a red dog", limits), Ids{});
  limits = {};
  limits.max_caption_length = 5;
  EXPECT_EQ(tokenizer.encode_inference("a red dog", limits), (Ids{a, red, 1}));
  EXPECT_FALSE(tokenizer.encode_training("a red dog", limits).kept);
  limits = {};
  limits.max_token_length = 4;
  EXPECT_EQ(tokenizer.encode_training("a red dog", limits).ids, (Ids{a, red, dog, 1}));
  EXPECT_FALSE(tokenizer.encode_training("a red dog dog", limits).kept);
}

// Debian's SentencePiece and LibTorch both define FLAGS_minloglevel, of different sizes: were they one
// variable, LibTorch's allocator would abort where it should throw.
TEST(T5TokenizerDeathTest, FailedAllocationOfLibTorchStillThrows) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "AddressSanitizer has an allocator of its own, and no RTLD_DEEPBIND";
#endif
  TemporaryFolder folder;
  save(folder / "spiece.model", own_model());
  const auto tokenizer = T5Tokenizer::open(folder / "spiece.model");
  ASSERT_FALSE(tokenizer.encode_inference("a red dog", {}).empty());
  const auto allocate_more_than_there_is = [] {
    try {
      at::empty({int64_t{1} << 50}, at::kByte);  // more than a process may address
    } catch (const c10::Error& error) {
      std::fputs(error.what(), stderr);
      std::_Exit(7);
    }
    std::_Exit(8);
  };
  EXPECT_EXIT(allocate_more_than_there_is(), testing::ExitedWithCode(7), "can't allocate memory");
}

// Sets a variable of the environment until the test ends.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    ::setenv(name, value.c_str(), 1);
  }
  ~Variable() { old_ ? ::setenv(name_, old_->c_str(), 1) : ::unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

// What is said when the variable names `module`, whatever the tests before have loaded.
std::string error_with_module(const std::string& module) {
  TemporaryFolder folder;
  save(folder / "spiece.model", own_model());
  const Variable set("MDM_SENTENCEPIECE_MODULE", module);
  try {
    T5Tokenizer::open(folder / "spiece.model");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(T5Tokenizer, ModuleThatCantBeUsed) {
  TemporaryFolder folder;
  const auto expect = [](const std::string& error, const std::string& module, const std::string& part) {
    EXPECT_NE(error.find(module), std::string::npos) << error;
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  const std::string missing = (folder / "missing.so").string();
  expect(error_with_module(missing), missing, "named by MDM_SENTENCEPIECE_MODULE) can't be loaded: ");
  expect(error_with_module("missing.so"), "./missing.so", "can't be loaded: ");
  const std::string text = (folder / "text.so").string();
  text_test::write_text(text, "no library");
  expect(error_with_module(text), text, "can't be loaded: ");
  Dl_info other{};
  ASSERT_NE(dladdr(dlsym(RTLD_DEFAULT, "deflate"), &other), 0);
  expect(error_with_module(other.dli_fname), other.dli_fname, "is no module mdm_sentencepiece.so of libmdm");
  EXPECT_EQ(error_with_module(""), "no error") << "an empty variable counts as unset";
}

// Another test of this file, in a copy of this program that has no module beside it.
TEST(T5Tokenizer, ModuleThatIsNowhere) {
  TemporaryFolder folder;
  std::filesystem::create_directories(folder / "bin");
  const std::string program = (folder / "bin/copy").string();
  std::filesystem::copy_file("/proc/self/exe", program);
  const std::string command =
      "env -u MDM_SENTENCEPIECE_MODULE '" + program + "' --gtest_filter=T5Tokenizer.OwnModelBesideLibTorch 2>&1";
  FILE* const pipe = ::popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string output;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) output += static_cast<char>(c);
  EXPECT_NE(::pclose(pipe), 0);
  for (const std::string& part :
       {std::string("needs libmdm's module mdm_sentencepiece.so, which is not in "), (folder / "lib/mdm").string(),
        (folder / "bin/mdm").string(), std::string("the environment variable MDM_SENTENCEPIECE_MODULE may name it")}) {
    EXPECT_NE(output.find(part), std::string::npos) << part << "\n" << output;
  }
}

TEST(T5Tokenizer, AnyBytesAreACaption) {
  TemporaryFolder folder;
  save(folder / "spiece.model", own_model());
  const auto tokenizer = T5Tokenizer::open(folder / "spiece.model");
  for (const std::string& text : {std::string("\xFF\xFE"), std::string("a\0b", 3), std::string(10000, 'a'),
                                  std::string("</s><pad>"), std::string(1 << 20, ' '), std::string(1 << 20, 'z')}) {
    const auto ids = tokenizer.encode_inference(text, {});
    ASSERT_FALSE(ids.empty());
    EXPECT_EQ(ids.back(), 1);
    for (size_t i = 0; i + 1 < ids.size(); ++i) ASSERT_GT(ids[i], 1) << "control pieces can't be written in text";
  }
}

TEST(T5Tokenizer, CharacterMapIsApplied) {
  TemporaryFolder folder;
  auto model = own_model();
  const std::string map = small_charsmap();
  model.precompiled_charsmap = map;
  save(folder / "spiece.model", model);
  const auto tokenizer = T5Tokenizer::open(folder / "spiece.model");
  EXPECT_EQ(tokenizer.encode_inference("A red dog", {}), tokenizer.encode_inference("a red dog", {}));
}

template <typename Change>
void expect_model_error(const std::string& part, const Change& change) {
  TemporaryFolder folder;
  auto model = own_model();
  change(model);
  save(folder / "spiece.model", model);
  try {
    T5Tokenizer::open(folder / "spiece.model");
    FAIL() << "accepted; expected: " << part;
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("spiece.model"), std::string::npos);
  }
}

TEST(T5Tokenizer, BadModels) {
  expect_model_error("score", [](SpieceModel& m) { m.pieces[5].score = std::numeric_limits<float>::quiet_NaN(); });
  expect_model_error("score", [](SpieceModel& m) { m.pieces[5].score = -std::numeric_limits<float>::infinity(); });
  expect_model_error("is empty", [](SpieceModel& m) { m.pieces[5].text = {}; });
  expect_model_error("NUL", [](SpieceModel& m) { m.pieces[5].text = std::string_view("a\0b", 3); });
  expect_model_error("twice", [](SpieceModel& m) { m.pieces[5].text = m.pieces[4].text; });
  expect_model_error("unknown pieces", [](SpieceModel& m) { m.pieces[5].type = SpieceType::kUnknown; });
  expect_model_error("unknown pieces", [](SpieceModel& m) { m.pieces[2].type = SpieceType::kNormal; });
  expect_model_error("is a byte", [](SpieceModel& m) { m.pieces[5].type = SpieceType::kByte; });
  expect_model_error("unknown type 7", [](SpieceModel& m) { m.pieces[5].type = static_cast<SpieceType>(7); });
  expect_model_error("no ordinary piece", [](SpieceModel& m) { m.pieces.resize(3); });
  expect_model_error("no piece <pad>", [](SpieceModel& m) { m.pieces[0].text = "<PAD>"; });
  expect_model_error("holds no pieces", [](SpieceModel& m) { m.pieces.clear(); });
}

TEST(T5Tokenizer, BadCharacterMaps) {
  const auto expect = [](const std::string& part, const std::string& map) {
    expect_model_error(part, [&](SpieceModel& m) { m.precompiled_charsmap = map; });
  };
  const std::string good = small_charsmap();
  EXPECT_NO_THROW(check_charsmap(good, "x"));
  expect("no length", good.substr(0, 3));
  expect("its length", good.substr(0, 100));
  expect("its length", good.substr(0, 4 + 4096));
  expect("no end", good.substr(0, good.size() - 1));
  const auto with_unit = [&](size_t at, uint32_t unit) {
    std::string units = good.substr(4, 4096);
    put_unit(units, at, unit);
    return good.substr(0, 4) + units + good.substr(4 + 4096);
  };
  expect("leads out", with_unit(0, 0x1FFFFFU << 10));
  expect("leads out", with_unit(0, 1U << 31 | 0x1FFFFFU << 10));  // the root is used whatever its top bit
  expect("leads out", with_unit(700, 0x800U << 10));
  expect("string lies outside", with_unit(512, 1U << 31 | 4));
  std::string bomb = good;
  bomb.insert(bomb.size() - 1, std::string(300, 'x'));
  expect("more than 256 bytes", bomb);
}

TEST(T5Tokenizer, OtherKindsOfModel) {
  TemporaryFolder folder;
  const std::string good = serialize(own_model());
  const auto with = [&](const std::string& tail) {
    text_test::write_text(folder / "spiece.model", good + tail);
    return T5Tokenizer::open(folder / "spiece.model");
  };
  EXPECT_NO_THROW(with(""));
  EXPECT_THROW(with(std::string("\x12\x02\x18\x02", 4)), DataError) << "BPE";
  EXPECT_THROW(with(std::string("\x12\x03\x98\x02\x01", 5)), DataError) << "byte fallback";
  EXPECT_THROW(with(std::string("\x12\x7F", 2)), DataError) << "a message longer than the file";
  EXPECT_THROW(with(std::string("\x0B", 1)), DataError) << "a group";
  EXPECT_THROW(with(std::string(11, '\xFF')), DataError) << "a number of more than ten bytes";
  text_test::write_text(folder / "spiece.model", "");
  EXPECT_THROW(T5Tokenizer::open(folder / "spiece.model"), DataError);
}

// Whatever the bytes: a tokenizer that works, or a DataError.
void try_mutants(const std::string& original, int count, uint64_t seed) {
  TemporaryFolder folder;
  std::mt19937_64 random(seed);
  int accepted = 0;
  for (int i = 0; i < count; ++i) {
    text_test::write_text(folder / "m.model", text_test::mutate(original, random));
    try {
      MdmTokenizer::from_spiece(folder / "m.model").tokenize(" a red dog");
    } catch (const DataError&) {
    }
    try {
      const auto tokenizer = T5Tokenizer::open(folder / "m.model");
      tokenizer.encode_inference("A red \xEF\xBC\xA1 dog \xF0\x9F\x98\x80\xE2\x84\xA2 caf\xC3\xA9 zzz", {});
      ++accepted;
    } catch (const DataError&) {
    }
  }
  testing::Test::RecordProperty("accepted", accepted);
}

TEST(T5Tokenizer, MutantsOfAModel) {
  auto model = own_model();
  const std::string map = small_charsmap();
  model.precompiled_charsmap = map;
  try_mutants(serialize(model), text_test::mutant_count(300), 3);
}

TEST(T5Tokenizer, MutantsOfTheCharacterMap) {
  const auto model = own_model();
  const std::string map = small_charsmap();
  TemporaryFolder folder;
  std::mt19937_64 random(17);
  for (int i = 0; i < text_test::mutant_count(300); ++i) {
    auto changed = model;
    std::string mutant = map;
    // Around the units in use, where a change matters.
    for (int k = 0; k < 3; ++k) {
      const size_t unit = std::array<size_t, 5>{0, 256 ^ 'A', 512, 256 ^ 'r', 700}[random() % 5];
      mutant[4 + unit * 4 + random() % 4] = static_cast<char>(random());
    }
    changed.precompiled_charsmap = mutant;
    save(folder / "m.model", changed);
    try {
      T5Tokenizer::open(folder / "m.model").encode_inference("A red dog AAA", {});
    } catch (const DataError&) {
    }
  }
}

TEST(T5Tokenizer, MutantsOfAFullSizeModel) {
  MDM_NEED_REFERENCE();
  std::ifstream in(text_test::reference_folder() / "t5_from_vocab.model", std::ios::binary);
  const std::string original((std::istreambuf_iterator<char>(in)), {});
  try_mutants(original, text_test::mutant_count(300) / 20, 5);
}

}  // namespace
}  // namespace mdm
