#include "mdm/text/mdm_tokenizer.h"

#include <algorithm>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "text/byte_trie.h"
#include "text/lattice.h"
#include "text/spiece_model.h"
#include "text/vocabulary.h"

namespace mdm {

struct MdmTokenizer::Impl {
  Vocabulary vocabulary;
  ByteTrie trie;
  TokenizerCompat compat;
  int32_t pad = -1, eos = -1, unk = -1;

  Impl(Vocabulary from, const TokenizerCompat& how, const std::string& where)
      : vocabulary(std::move(from)), compat(how) {
    std::vector<std::string_view> pieces(vocabulary.size());
    for (size_t id = 0; id < pieces.size(); ++id) pieces[id] = vocabulary.piece(id);
    trie = ByteTrie(pieces);
    pad = required("<pad>", where);
    eos = required("</s>", where);
    unk = required("<unk>", where);
  }

  int32_t required(const char* piece, const std::string& where) const {
    const int32_t id = trie.find(piece);
    if (id < 0) fail<DataError>(where, ": the vocabulary lacks the piece ", piece);
    return id;
  }
};

namespace {

void refuse_huge_caption(std::string_view text) {
  if (text.size() > Tokenizer::kMaxCaptionBytes) {
    fail<DataError>("a caption has ", text.size(), " bytes; at most ", Tokenizer::kMaxCaptionBytes, " are allowed");
  }
}

}  // namespace

MdmTokenizer::MdmTokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MdmTokenizer::MdmTokenizer(MdmTokenizer&&) noexcept = default;
MdmTokenizer& MdmTokenizer::operator=(MdmTokenizer&&) noexcept = default;
MdmTokenizer::~MdmTokenizer() = default;

MdmTokenizer MdmTokenizer::from_vocab(const std::filesystem::path& file, const TokenizerCompat& compat) {
  return MdmTokenizer(std::make_unique<Impl>(read_vocab(file), compat, printable(file.string(), 1000)));
}

MdmTokenizer MdmTokenizer::from_spiece(const std::filesystem::path& file, const TokenizerCompat& compat) {
  return MdmTokenizer(std::make_unique<Impl>(vocabulary_from_spiece(file), compat, printable(file.string(), 1000)));
}

MdmTokenizer MdmTokenizer::from_vocab_text(std::string_view text, const std::string& where,
                                           const TokenizerCompat& compat) {
  return MdmTokenizer(std::make_unique<Impl>(parse_vocab(text, where), compat, where));
}

std::string MdmTokenizer::vocab_text() const { return mdm::vocab_text(impl_->vocabulary); }

MdmTokenizer MdmTokenizer::open(const std::filesystem::path& file, const TokenizerCompat& compat) {
  const bool spiece = looks_like_spiece_model(FileBytes::open(file)->view());
  return spiece ? from_spiece(file, compat) : from_vocab(file, compat);
}

std::vector<int32_t> MdmTokenizer::tokenize(std::string_view bytes, bool use_scores) const {
  refuse_huge_caption(bytes);
  const auto& vocabulary = impl_->vocabulary;
  auto ids = cheapest_path(impl_->trie, use_scores ? &vocabulary.costs : nullptr, bytes);
  if (!impl_->compat.keep_special_pieces) {
    const auto is_special = [&](int32_t id) { return vocabulary.special[static_cast<size_t>(id)] != 0; };
    ids.erase(std::remove_if(ids.begin(), ids.end(), is_special), ids.end());
  }
  return ids;
}

std::vector<int32_t> MdmTokenizer::encode_inference(std::string_view text, const TokenLimits& limits) const {
  std::string padded(limits.prepad_caption_with_space ? " " : "");
  padded += first_code_points(text, limits.max_caption_length);
  auto ids = tokenize(padded, limits.use_tokenizer_scores);
  if (limits.prepad_bos) ids.insert(ids.begin(), bos_id());
  if (limits.append_eos) ids.push_back(eos_id());
  if (limits.max_token_length >= 0) {
    ids.resize(std::min(ids.size(), static_cast<size_t>(limits.max_token_length)));
  } else if (impl_->compat.cut_last_when_unlimited && !ids.empty()) {
    ids.pop_back();
  }
  return ids;
}

TrainingTokens MdmTokenizer::encode_training(std::string_view text, const TokenLimits& limits) const {
  if (limits.max_caption_length >= 0 && text.size() + 2 > static_cast<size_t>(limits.max_caption_length)) {
    return {{}, false};
  }
  std::string padded(" ");
  padded += text;
  padded += ' ';
  TrainingTokens tokens{tokenize(padded, limits.use_tokenizer_scores), true};
  if (limits.prepad_bos) tokens.ids.insert(tokens.ids.begin(), bos_id());
  if (limits.append_eos) tokens.ids.push_back(eos_id());
  if (limits.max_token_length >= 0 && tokens.ids.size() > static_cast<size_t>(limits.max_token_length)) {
    return {{}, false};
  }
  return tokens;
}

int64_t MdmTokenizer::vocab_size() const { return static_cast<int64_t>(impl_->vocabulary.size()); }
int32_t MdmTokenizer::pad_id() const { return impl_->pad; }
int32_t MdmTokenizer::eos_id() const { return impl_->eos; }
int32_t MdmTokenizer::bos_id() const { return impl_->unk; }
std::string_view MdmTokenizer::piece(int32_t id) const { return impl_->vocabulary.piece(static_cast<size_t>(id)); }
double MdmTokenizer::cost(int32_t id) const { return impl_->vocabulary.costs[static_cast<size_t>(id)]; }
int32_t MdmTokenizer::id_of(std::string_view piece) const { return impl_->trie.find(piece); }

}  // namespace mdm
