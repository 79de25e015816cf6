// The t5 tokenizer: checks of its model file, and T5's special pieces around SentencePiece's ids.
#include "mdm/text/t5_tokenizer.h"

#include <algorithm>
#include <unordered_map>

#include "mdm/core/error.h"
#include "text/sentencepiece_library.h"
#include "text/spiece_model.h"

namespace mdm {

struct T5Tokenizer::Impl {
  SentencepieceModel sentencepiece;
  std::unordered_map<std::string, int32_t> ids;  // of the pieces
  std::vector<std::string_view> pieces = {};     // by id; the texts are the keys of `ids`
  int32_t pad = -1, eos = -1, unk = -1;
};

namespace {

// SentencePiece trusts its model files; this is what it must not be given.
void check_unigram_model(const SpieceModel& model, const std::string& where) {
  if (model.model_type != 1 || model.byte_fallback || model.treat_whitespace_as_suffix) {
    fail<DataError>(where, ": is a SentencePiece model of another kind than T5's (unigram, without byte fallback)");
  }
  size_t unknowns = 0, usable = 0;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const auto& piece = model.pieces[id];
    if (piece.type == SpieceType::kByte) fail<DataError>(where, ": piece ", id, " is a byte; T5 has none");
    unknowns += piece.type == SpieceType::kUnknown ? 1 : 0;
    usable += piece.type == SpieceType::kNormal || piece.type == SpieceType::kUserDefined ? 1 : 0;
  }
  if (unknowns != 1) fail<DataError>(where, ": has ", unknowns, " unknown pieces; expected one");
  if (usable == 0) fail<DataError>(where, ": has no ordinary piece");
  check_charsmap(model.precompiled_charsmap, where);
}

std::unordered_map<std::string, int32_t> ids_of_pieces(const SpieceModel& model, const std::string& where) {
  std::unordered_map<std::string, int32_t> ids;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const auto text = model.pieces[id].text;
    if (!ids.emplace(text, static_cast<int32_t>(id)).second) {
      fail<DataError>(where, ": piece ", id, " (\"", printable(text, 40), "\") is there twice");
    }
  }
  for (const char* text : {"<pad>", "</s>", "<unk>"}) {
    if (ids.count(text) == 0) fail<DataError>(where, ": has no piece ", text, ", which T5's has");
  }
  return ids;
}

}  // namespace

T5Tokenizer::T5Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
T5Tokenizer::T5Tokenizer(T5Tokenizer&&) noexcept = default;
T5Tokenizer& T5Tokenizer::operator=(T5Tokenizer&&) noexcept = default;
T5Tokenizer::~T5Tokenizer() = default;

T5Tokenizer T5Tokenizer::open(const std::filesystem::path& spiece_model) {
  const SpieceModel model = read_spiece_model(spiece_model);
  const std::string where = printable(spiece_model.string(), 1000);
  check_unigram_model(model, where);
  auto ids = ids_of_pieces(model, where);
  auto impl = std::make_unique<Impl>(Impl{SentencepieceModel(serialize(model), where), std::move(ids)});
  impl->pieces.resize(model.pieces.size());
  for (const auto& [piece, id] : impl->ids) impl->pieces[static_cast<size_t>(id)] = piece;
  impl->pad = impl->ids.at("<pad>");
  impl->eos = impl->ids.at("</s>");
  impl->unk = impl->ids.at("<unk>");
  if (impl->sentencepiece.size() != model.pieces.size()) {
    fail<DataError>(where, ": has ", model.pieces.size(), " pieces, of which SentencePiece reads ",
                    impl->sentencepiece.size());
  }
  return T5Tokenizer(std::move(impl));
}

std::vector<int32_t> T5Tokenizer::encode_inference(std::string_view text, const TokenLimits& limits) const {
  const auto caption = first_code_points(text, limits.max_caption_length);
  if (caption.size() > kMaxCaptionBytes) {
    fail<DataError>("a caption has ", caption.size(), " bytes; at most ", kMaxCaptionBytes, " are allowed");
  }
  std::vector<int32_t> out = impl_->sentencepiece.encode(caption);
  if (limits.prepad_bos) out.insert(out.begin(), bos_id());
  const size_t room = limits.max_token_length < 0 ? out.size() + 1 : static_cast<size_t>(limits.max_token_length);
  const size_t reserved = limits.append_eos && room > 0 ? 1 : 0;
  out.resize(std::min(out.size(), room - reserved));
  if (reserved > 0) out.push_back(eos_id());
  return out;
}

TrainingTokens T5Tokenizer::encode_training(std::string_view text, const TokenLimits& limits) const {
  if (limits.max_caption_length >= 0 && text.size() + 2 > static_cast<size_t>(limits.max_caption_length)) {
    return {{}, false};
  }
  TokenLimits unlimited = limits;
  unlimited.max_caption_length = unlimited.max_token_length = -1;
  TrainingTokens tokens{encode_inference(text, unlimited), true};
  if (limits.max_token_length >= 0 && tokens.ids.size() > static_cast<size_t>(limits.max_token_length)) {
    return {{}, false};
  }
  return tokens;
}

int64_t T5Tokenizer::vocab_size() const { return static_cast<int64_t>(impl_->ids.size()); }
int32_t T5Tokenizer::id_of(std::string_view piece) const {
  const auto at = impl_->ids.find(std::string(piece));
  return at == impl_->ids.end() ? -1 : at->second;
}
std::string_view T5Tokenizer::piece(int32_t id) const { return impl_->pieces.at(static_cast<size_t>(id)); }
int32_t T5Tokenizer::pad_id() const { return impl_->pad; }
int32_t T5Tokenizer::eos_id() const { return impl_->eos; }
int32_t T5Tokenizer::bos_id() const { return impl_->unk; }

}  // namespace mdm
