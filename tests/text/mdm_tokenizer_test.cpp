// The mdm tokenizer against an independent enumeration of all paths, with a vocabulary of our own.
#include "mdm/text/mdm_tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <random>
#include <set>

#include "mdm/core/error.h"
#include "text/text_test_support.h"

namespace mdm {
namespace {

using Ids = std::vector<int32_t>;

std::filesystem::path own_vocab() { return text_test::own_golden() / "tokenizer/own.vocab"; }

// Reads the file its own way, keeps prefixes as strings, builds the lattice of the rules in the header of
// MdmTokenizer with string comparisons, and tries every path.
class AllPaths {
 public:
  explicit AllPaths(const std::filesystem::path& file) {
    std::ifstream in(file);
    int32_t id = 0;
    for (std::string line; std::getline(in, line); ++id) {
      std::string piece = line.substr(0, line.find('\t'));
      for (size_t at; (at = piece.find("\xE2\x96\x81")) != std::string::npos;) piece.replace(at, 3, " ");
      pieces_[piece] = {id, -std::stod(line.substr(line.find('\t') + 1))};
      for (size_t length = 0; length <= piece.size(); ++length) prefixes_.insert(piece.substr(0, length));
    }
  }

  struct Best {
    double cost = 0;
    int paths = 0;  // that have this cost
    Ids ids;
  };
  Best best(const std::string& text, bool use_scores) {
    struct Begun {
      size_t node;
      std::string bytes;
    };
    edges_ = {{}};
    std::vector<Begun> begun = {{0, ""}};
    for (const char c : text) {
      std::vector<Begun> next;
      std::vector<Edge> arrivals;
      for (const auto& hypothesis : begun) {
        const std::string bytes = hypothesis.bytes + c;
        if (prefixes_.count(bytes) == 0) continue;
        next.push_back({hypothesis.node, bytes});
        const auto piece = pieces_.find(bytes);
        if (piece != pieces_.end()) {
          arrivals.push_back({hypothesis.node, piece->second.id, use_scores ? piece->second.cost : 1.0});
        }
      }
      if (next.empty()) next = {{edges_.size() - 1, ""}};
      if (!arrivals.empty()) {
        edges_.push_back(arrivals);
        next.push_back({edges_.size() - 1, ""});
      }
      begun = next;
    }
    best_ = {};
    Ids backwards;
    walk(edges_.size() - 1, {}, backwards);
    return best_;
  }

 private:
  struct Piece {
    int32_t id;
    double cost;
  };
  struct Edge {
    size_t from;
    int32_t id;
    double cost;
  };

  void walk(size_t node, std::vector<double> costs, Ids& backwards) {
    if (node == 0) {
      double sum = 0;  // in the order of the text, as the tokenizer adds
      for (auto cost = costs.rbegin(); cost != costs.rend(); ++cost) sum += *cost;
      if (best_.paths == 0 || sum < best_.cost) best_ = {sum, 0, Ids(backwards.rbegin(), backwards.rend())};
      best_.paths += sum == best_.cost ? 1 : 0;
      return;
    }
    for (const auto& edge : edges_[node]) {
      costs.push_back(edge.cost);
      backwards.push_back(edge.id);
      walk(edge.from, costs, backwards);
      costs.pop_back();
      backwards.pop_back();
    }
  }

  std::map<std::string, Piece> pieces_;
  std::set<std::string> prefixes_;
  std::vector<std::vector<Edge>> edges_;  // into each node
  Best best_;
};

std::string random_text(std::mt19937_64& random) {
  static const std::vector<std::string> parts = {
      "a", "e", "i",  "n",  "er",  "ing", " ",  " ",        "the", " dog", "aa", "zz",
      "z", "q", "qq", "st", "th",  "o",   "\t", "\xE2",     "é",   "<",    "<p", "</s>",
      "B", "7", ".",  "ch", "jjj", "l",   "le", "\xF0\x9F", "re",  "d",    "-",  std::string(1, '\0')};
  std::string text;
  const size_t target = 1 + random() % 13;
  while (text.size() < target) text += parts[random() % parts.size()];
  return text;
}

TEST(MdmTokenizer, CheapestOfAllPaths) {
  TokenizerCompat keep;
  keep.keep_special_pieces = true;
  const auto tokenizer = MdmTokenizer::from_vocab(own_vocab(), keep);
  AllPaths all(own_vocab());
  std::mt19937_64 random(20240501);
  int unique = 0, tied = 0;
  for (int i = 0; i < text_test::mutant_count(2000); ++i) {
    const std::string text = random_text(random);
    for (const bool scores : {true, false}) {
      const auto best = all.best(text, scores);
      const Ids ids = tokenizer.tokenize(text, scores);
      double cost = 0;
      for (const int32_t id : ids) cost += scores ? tokenizer.cost(id) : 1.0;
      ASSERT_EQ(cost, best.cost) << testing::PrintToString(text);
      if (best.paths == 1) {
        ASSERT_EQ(ids, best.ids) << testing::PrintToString(text);
      }
      (best.paths == 1 ? unique : tied) += 1;
    }
  }
  EXPECT_GT(unique, tied);
  EXPECT_GT(tied, 0);
}

TEST(MdmTokenizer, PiecesOfCleanTextSpellIt) {
  const auto tokenizer = MdmTokenizer::from_vocab(own_vocab());
  std::mt19937_64 random(7);
  const std::string letters = "abcdefghijklmnopqrstuvwxyz  ABC019.,-";
  for (int i = 0; i < 500; ++i) {
    std::string text;
    for (size_t length = random() % 80; length > 0; --length) text += letters[random() % letters.size()];
    std::string spelled;
    for (const int32_t id : tokenizer.tokenize(text)) spelled += tokenizer.piece(id);
    ASSERT_EQ(spelled, text);
  }
}

TEST(MdmTokenizer, LimitsOfInference) {
  const auto tokenizer = MdmTokenizer::from_vocab(own_vocab());
  const auto ids = [&](const TokenLimits& limits) { return tokenizer.encode_inference("a red dog", limits); };
  const int32_t a = tokenizer.id_of(" a"), red = tokenizer.id_of(" red"), dog = tokenizer.id_of(" dog");
  ASSERT_GT(dog, 3);
  TokenLimits limits;
  EXPECT_EQ(ids(limits), (Ids{a, red, dog, 1}));
  limits.prepad_bos = true;
  EXPECT_EQ(ids(limits), (Ids{2, a, red, dog, 1}));
  limits.prepad_bos = limits.append_eos = false;
  EXPECT_EQ(ids(limits), (Ids{a, red, dog}));
  limits = {};
  limits.max_token_length = 3;
  EXPECT_EQ(ids(limits), (Ids{a, red, dog})) << "cutting takes the end token, as the reference does";
  limits.max_token_length = 0;
  EXPECT_EQ(ids(limits), Ids{});
  limits = {};
  limits.max_caption_length = 5;
  EXPECT_EQ(ids(limits), (Ids{a, red, 1}));
  limits.max_caption_length = 0;
  EXPECT_EQ(ids(limits), (Ids{3, 1}));
}

TEST(MdmTokenizer, LimitsOfTraining) {
  const auto tokenizer = MdmTokenizer::from_vocab(own_vocab());
  TokenLimits limits;
  EXPECT_EQ(tokenizer.encode_training("a", limits).ids, (Ids{tokenizer.id_of(" a"), 3, 1}));
  limits.max_caption_length = 3;
  EXPECT_TRUE(tokenizer.encode_training("a", limits).kept);
  EXPECT_FALSE(tokenizer.encode_training("é", limits).kept) << "bytes count, the two spaces too";
  limits = {};
  limits.max_token_length = 3;
  EXPECT_TRUE(tokenizer.encode_training("a", limits).kept);
  EXPECT_FALSE(tokenizer.encode_training("a a", limits).kept);
}

TEST(MdmTokenizer, SpecialStringsInCaptions) {
  const auto ours = MdmTokenizer::from_vocab(own_vocab());
  TokenizerCompat keep;
  keep.keep_special_pieces = true;
  const auto reference = MdmTokenizer::from_vocab(own_vocab(), keep);
  const std::string text = "a<pad></s> dog<extra_id_3>";
  const int32_t a = ours.id_of(" a"), dog = ours.id_of(" dog");
  EXPECT_EQ(reference.encode_inference(text, {}), (Ids{a, 0, 1, dog, reference.id_of("<extra_id_3>"), 1}));
  EXPECT_EQ(ours.encode_inference(text, {}), (Ids{a, dog, 1}));
  // Taking one out must not put another together.
  for (const char* nested : {"<p<pad>ad>", "<</s>/s>", "<extra_id_<unk>1>"}) {
    for (const int32_t id : ours.tokenize(nested)) EXPECT_GT(id, 2) << nested;
  }
}

TEST(MdmTokenizer, CutsByCodePoints) {
  EXPECT_EQ(first_code_points("aéb", 2), "aé");
  EXPECT_EQ(first_code_points("aéb", -1), "aéb");
  EXPECT_EQ(first_code_points("aéb", 9), "aéb");
  EXPECT_EQ(first_code_points("\xF0\x9F\x98\x80x", 1), "\xF0\x9F\x98\x80");
  EXPECT_EQ(first_code_points("\xF0\x9F", 1), "\xF0") << "a byte that begins nothing counts alone";
  EXPECT_EQ(first_code_points("\xED\xA0\x80", 2), "\xED\xA0") << "surrogates are not UTF-8";
  EXPECT_EQ(first_code_points("", 3), "");
}

TEST(MdmTokenizer, LongAndStrangeTexts) {
  const auto tokenizer = MdmTokenizer::from_vocab(own_vocab());
  TokenLimits limits;
  limits.max_token_length = 128;
  EXPECT_EQ(tokenizer.encode_inference(std::string(10000, 'a'), limits).size(), 128U);
  EXPECT_EQ(tokenizer.encode_inference("", limits), (Ids{3, 1}));
  EXPECT_EQ(tokenizer.encode_inference(std::string("\0\xFF\xC3\x28", 4), limits).back(), 1);
  // Ten megabytes: of one word over and over, of ties all through, of unknown bytes.
  std::string words, ties(10 << 20, 'z'), unknown(10 << 20, '\x01');
  while (words.size() < (10 << 20)) words += "a red dog in the snow, ";
  EXPECT_GT(tokenizer.tokenize(words).size(), 1000000U);
  EXPECT_EQ(tokenizer.tokenize(ties).size(), ties.size() / 2);
  EXPECT_TRUE(tokenizer.tokenize(unknown).empty());
  EXPECT_THROW(tokenizer.tokenize(std::string(Tokenizer::kMaxCaptionBytes + 1, ' ')), DataError);
}

TEST(MdmTokenizer, PadsLikeTheReference) {
  const auto batch = pad_tokens({{5, 0, 1}, {7}}, 0);
  EXPECT_EQ(batch.lengths, (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(batch.tokens.sizes(), (std::vector<int64_t>{2, 3}));
  const auto* tokens = batch.tokens.data_ptr<int64_t>();
  EXPECT_EQ(std::vector<int64_t>(tokens, tokens + 6), (std::vector<int64_t>{5, 0, 1, 7, 0, 0}));
  const auto* mask = batch.mask.data_ptr<float>();
  EXPECT_EQ(std::vector<float>(mask, mask + 6), (std::vector<float>{1, 0, 1, 1, 0, 0}));
  EXPECT_EQ(pad_tokens({{5, 6}}, 0, 4).tokens.size(1), 4);
  EXPECT_EQ(pad_tokens({{5, 6}}, 0, 1).lengths, std::vector<int64_t>{1});
  EXPECT_EQ(pad_tokens({}, 0).tokens.size(0), 0);
}

void expect_vocab_error(const std::string& content, const std::string& part) {
  text_test::TemporaryFolder folder;
  text_test::write_text(folder / "x.vocab", content);
  try {
    MdmTokenizer::open(folder / "x.vocab");
    FAIL() << "accepted: " << part;
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("x.vocab"), std::string::npos) << error.what();
  }
}

TEST(MdmTokenizer, BadVocabularies) {
  const std::string good = "<pad>\t0\n</s>\t0\n<unk>\t0\n";
  expect_vocab_error("", "empty");
  expect_vocab_error(good + "no tab\n", "line 4");
  expect_vocab_error(good + "\n", "line 4");
  expect_vocab_error(good + "two\t1\ttabs\n", "line 4");
  expect_vocab_error(good + "word\tnan\n", "line 4");
  expect_vocab_error(good + "word\t-inf\n", "line 4");
  expect_vocab_error(good + "word\t-1e999\n", "line 4");
  expect_vocab_error(good + "word\t-1x\n", "line 4");
  expect_vocab_error(good + "word\t\n", "line 4");
  expect_vocab_error(good + "word\t2\n", "positive");
  expect_vocab_error(good + "\t-1\n", "line 4: the piece is empty");
  expect_vocab_error(good + "a\t-1\nb\t-2\na\t-3\n", "line 6: piece \"a\" is there already, at line 4");
  expect_vocab_error(good + std::string(5000, 'x') + "\t-1\n", "more than");
  expect_vocab_error("a\t-1\n", "lacks the piece <pad>");
  expect_vocab_error("a\x1B[31m\n", "\\x1b");
  EXPECT_THROW(MdmTokenizer::open("no/such/file.vocab"), DataError);
  EXPECT_THROW(MdmTokenizer::open(std::filesystem::temp_directory_path()), DataError);
}

TEST(MdmTokenizer, LinesMayEndInCrLfOrNotAtAll) {
  text_test::TemporaryFolder folder;
  text_test::write_text(folder / "x.vocab",
                        "<pad>\t0\r\n</s>\t0\r\n<unk>\t0\r\n\xE2\x96\x81"
                        "a\t-1.5");
  const auto tokenizer = MdmTokenizer::open(folder / "x.vocab");
  EXPECT_EQ(tokenizer.vocab_size(), 4);
  EXPECT_EQ(tokenizer.piece(3), " a");
  EXPECT_EQ(tokenizer.cost(3), 1.5);
}

// Whatever the bytes: a tokenizer or a DataError.
TEST(MdmTokenizer, MutantsOfAVocabulary) {
  std::ifstream in(own_vocab(), std::ios::binary);
  const std::string original((std::istreambuf_iterator<char>(in)), {});
  text_test::TemporaryFolder folder;
  std::mt19937_64 random(99);
  int accepted = 0;
  for (int i = 0; i < text_test::mutant_count(300); ++i) {
    std::string bytes = text_test::mutate(original, random);
    text_test::write_text(folder / "m.vocab", bytes);
    try {
      const auto tokenizer = MdmTokenizer::open(folder / "m.vocab");
      tokenizer.encode_inference("a red dog </s> \xF0\x9F\x98\x80 zzz", {});
      ++accepted;
    } catch (const DataError&) {
    }
  }
  RecordProperty("accepted", accepted);
}

}  // namespace
}  // namespace mdm
