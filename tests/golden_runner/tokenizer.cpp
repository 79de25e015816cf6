// Golden cases of tokenizers: a .jsonl of texts and the ids that the reference (or SentencePiece) gives.
#include <ATen/Functions.h>

#include <algorithm>

#include "golden_runner/runner.h"
#include "mdm/core/error.h"
#include "mdm/text/mdm_tokenizer.h"
#include "mdm/text/t5_tokenizer.h"

namespace mdm::golden {
namespace {

using TokenIds = std::vector<int32_t>;
using TokenCase = nlohmann::json;

constexpr int64_t kReferenceCaptionLength = 512, kReferenceTokenLength = 128;  // of mdm_infer.jsonl

at::Tensor id_tensor(const TokenIds& ids) {
  at::Tensor out = at::empty({static_cast<int64_t>(ids.size())}, at::TensorOptions().dtype(at::kLong));
  std::copy(ids.begin(), ids.end(), out.data_ptr<int64_t>());
  return out;
}

void compare_ids(Report& report, size_t line, const std::string& what, const TokenIds& actual,
                 const TokenCase& expected) {
  report.exact(concat("line ", line, " ", what), id_tensor(actual), id_tensor(expected.get<TokenIds>()));
}

std::string base64_bytes(const std::string& text) {
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

// The limits in a field name such as kept_512_128.
bool kept_limits(const TokenCase& line, std::string& key, TokenLimits& limits) {
  for (const auto& [name, value] : line.items()) {
    const size_t first = name.find('_'), second = name.rfind('_');
    if (name.compare(0, 5, "kept_") != 0 || first == second) continue;
    key = name;
    limits.max_caption_length = std::stoll(name.substr(first + 1, second - first - 1));
    limits.max_token_length = std::stoll(name.substr(second + 1));
    return true;
  }
  return false;
}

TokenLimits token_limits_of(const TokenCase& config, std::string& padding_token) {
  TokenLimits limits;
  for (const auto& [name, value] : config.items()) {
    if (name == "max_caption_length")
      limits.max_caption_length = value;
    else if (name == "max_token_length")
      limits.max_token_length = value;
    else if (name == "prepad_caption_with_space")
      limits.prepad_caption_with_space = value;
    else if (name == "use_tokenizer_scores")
      limits.use_tokenizer_scores = value;
    else if (name == "prepad_bos")
      limits.prepad_bos = value;
    else if (name == "append_eos")
      limits.append_eos = value;
    else if (name == "pad_to_max_length")
      limits.pad_to_max_length = value;
    else if (name == "padding_token")
      padding_token = value;
    else
      fail<DataError>("config field ", name, " is not known here");
  }
  return limits;
}

at::Tensor token_matrix(const TokenCase& rows, at::ScalarType dtype) {
  const auto height = static_cast<int64_t>(rows.size());
  const auto width = height == 0 ? 0 : static_cast<int64_t>(rows[0].size());
  at::Tensor out = at::empty({height, width}, at::TensorOptions().dtype(at::kLong));
  int64_t* values = out.data_ptr<int64_t>();
  for (const auto& row : rows) {
    for (const auto& value : row) *values++ = value.get<int64_t>();
  }
  return out.to(dtype);
}

void check_inference_batch(const MdmTokenizer& tokenizer, const TokenCase& line, size_t number, Report& report) {
  std::string padding_token = "<pad>";
  const TokenLimits limits = token_limits_of(line["config"], padding_token);
  std::vector<TokenIds> rows;
  for (const auto& text : line["texts"]) rows.push_back(tokenizer.encode_inference(text.get<std::string>(), limits));
  if (line["ragged"].get<bool>()) {
    report.require(rows.size() == line["tokens"].size(), concat("line ", number, " rows"));
    for (size_t i = 0; i < std::min(rows.size(), line["tokens"].size()); ++i) {
      compare_ids(report, number, concat("row ", i), rows[i], line["tokens"][i]);
    }
    return;
  }
  const auto batch = pad_tokens(rows, tokenizer.id_of(padding_token), padded_length(rows, limits));
  report.exact(concat("line ", number, " tokens"), batch.tokens, token_matrix(line["tokens"], at::kLong));
  if (line.contains("lm_mask")) {
    report.exact(concat("line ", number, " lm_mask"), batch.mask, token_matrix(line["lm_mask"], at::kFloat));
  }
}

// The reference reads its rows num_epochs + 1 times, drops those over the limits, and joins passes.
void check_training_batches(const MdmTokenizer& tokenizer, const TokenCase& line, size_t number, Report& report) {
  struct Sample {
    int64_t row;
    TokenIds ids;
    int64_t bytes;
  };
  std::string padding_token = "<pad>";
  const TokenLimits limits = token_limits_of(line["config"], padding_token);
  std::vector<Sample> samples;
  for (int64_t pass = 0; pass <= line["num_epochs"].get<int64_t>(); ++pass) {
    for (size_t row = 0; row < line["texts"].size(); ++row) {
      const auto text = line["texts"][row].get<std::string>();
      auto tokens = tokenizer.encode_training(text, limits);
      if (tokens.kept)
        samples.push_back({static_cast<int64_t>(row), tokens.ids, static_cast<int64_t>(text.size()) + 2});
    }
  }
  const auto size = line["batch_size"].get<size_t>();
  const auto& batches = line["batches"];
  report.require(batches.size() == (samples.size() + size - 1) / size, concat("line ", number, " number of batches"));
  for (size_t b = 0; b < batches.size() && b * size < samples.size(); ++b) {
    const std::string what = concat("line ", number, " batch ", b, " ");
    std::vector<TokenIds> rows;
    std::vector<int64_t> numbers;
    int64_t longest = 0;
    for (size_t i = b * size; i < std::min(samples.size(), (b + 1) * size); ++i) {
      rows.push_back(samples[i].ids);
      numbers.push_back(samples[i].row);
      longest = std::max(longest, samples[i].bytes);
    }
    const bool fixed = limits.pad_to_max_length && limits.max_token_length >= 0;
    const auto batch = pad_tokens(rows, tokenizer.id_of(padding_token), fixed ? limits.max_token_length : -1);
    report.require(numbers == batches[b]["rows"].get<std::vector<int64_t>>(), what + "rows");
    report.exact(what + "tokens", batch.tokens, token_matrix(batches[b]["tokens"], at::kLong));
    report.exact(what + "lm_mask", batch.mask, token_matrix(batches[b]["lm_mask"], at::kFloat));
    report.require(batches[b]["caption_shape"] == TokenCase({rows.size(), longest}), what + "caption_shape");
  }
}

void check_mdm_line(const MdmTokenizer& tokenizer, const TokenCase& line, size_t number, Report& report) {
  TokenLimits limits;
  std::string kept_key;
  if (line.contains("path")) {
    if (line["path"] == "train") return check_training_batches(tokenizer, line, number, report);
    return check_inference_batch(tokenizer, line, number, report);
  }
  if (line.contains("b64")) {
    const std::string bytes = base64_bytes(line["b64"].get<std::string>());
    compare_ids(report, number, "training", tokenizer.encode_training(bytes, {}).ids, line["ids_train"]);
    auto ids = tokenizer.tokenize(" " + bytes);
    ids.push_back(tokenizer.eos_id());
    return compare_ids(report, number, "inference", ids, line["ids_infer"]);
  }
  const auto text = line["text"].get<std::string>();
  if (kept_limits(line, kept_key, limits)) {
    compare_ids(report, number, "training", tokenizer.encode_training(text, {}).ids, line["ids"]);
    const bool kept = tokenizer.encode_training(text, limits).kept;
    return report.require(kept == line[kept_key].get<bool>(), concat("line ", number, " ", kept_key));
  }
  limits.max_caption_length = kReferenceCaptionLength;
  limits.max_token_length = kReferenceTokenLength;
  compare_ids(report, number, "inference", tokenizer.encode_inference(text, limits), line["ids"]);
}

void check_sentencepiece_line(const T5Tokenizer& tokenizer, const TokenCase& line, size_t number, Report& report) {
  const auto ids = tokenizer.encode_inference(line["text"].get<std::string>(), {});
  // Score ties that two releases of SentencePiece break differently: either list is right.
  const bool other = line.contains("ids_0_1_97") && ids == line["ids_0_1_97"].get<TokenIds>();
  compare_ids(report, number, "ids", ids, line[other ? "ids_0_1_97" : "ids"]);
}

}  // namespace

void check_tokenizer(const std::filesystem::path& path, const Context& context, Report& report) {
  const bool sentencepiece = path.stem().string().find("spm") != std::string::npos;
  const std::string wanted = sentencepiece ? "t5_from_vocab.model" : "data/t5.vocab";
  const auto vocabulary = reference_file(context, wanted);
  if (vocabulary.empty()) return report.skip("needs " + wanted + " of the reference's data files");
  size_t number = 0;
  if (sentencepiece) {
    const auto tokenizer = T5Tokenizer::open(vocabulary);
    for (const auto& line : read_json_lines(path)) check_sentencepiece_line(tokenizer, line, ++number, report);
  } else {
    TokenizerCompat compat;
    compat.keep_special_pieces = compat.cut_last_when_unlimited = true;
    const auto tokenizer = MdmTokenizer::from_vocab(vocabulary, compat);
    for (const auto& line : read_json_lines(path)) check_mdm_line(tokenizer, line, ++number, report);
  }
  report.require(number > 0, "the file has no lines");
}

}  // namespace mdm::golden
