// Tokenizers and text encoders from a config.
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"
#include "mdm/text/embedding_cache.h"
#include "mdm/text/joint_encoder.h"
#include "mdm/text/mdm_tokenizer.h"
#include "mdm/text/other_encoders.h"
#include "mdm/text/t5_text_encoder.h"
#include "mdm/text/t5_tokenizer.h"
#include "mdm/text/text_encoder.h"
#include "mdm/text/text_model.h"
#include "text/spiece_model.h"

namespace mdm {
namespace {

bool is_file(const std::filesystem::path& path) {
  std::error_code ignored;
  return !path.empty() && std::filesystem::exists(path, ignored) && !std::filesystem::is_directory(path, ignored);
}

// vocab_file if it is there and will do, else the text model's spiece.model; empty when there is neither.
std::filesystem::path vocabulary_of(const TextConfig& text, const std::filesystem::path& spiece_model) {
  if (is_file(text.vocab_file)) {
    const bool will_do =
        text.tokenizer == TokenizerKind::kMdm || looks_like_spiece_model(FileBytes::open(text.vocab_file)->view());
    if (will_do) return text.vocab_file;
  }
  if (spiece_model.empty()) return {};
  if (!text.vocab_file.empty()) {
    log_info("vocab_file ", printable(text.vocab_file),
             is_file(text.vocab_file) ? " is no SentencePiece model" : " is not there", "; using ",
             printable(spiece_model.string()));
  }
  return spiece_model;
}

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer(const TextConfig& text, const std::filesystem::path& text_model_folder,
                                          const TokenizerCompat& compat) {
  if (text.kind == TextKind::kJoint) {
    if (text.tokenizer != TokenizerKind::kMdm) fail<ConfigError>("text_kind joint: tokenizer must be mdm");
    if (!is_file(text.vocab_file)) {
      fail<ConfigError>(
          "text_kind joint: vocab_file '", printable(text.vocab_file),
          "' is not there; expected a .vocab file (lines of a piece, a tab and a score) or a spiece.model");
    }
    return std::make_unique<MdmTokenizer>(MdmTokenizer::open(text.vocab_file, compat));
  }
  const auto spiece_model =
      text_model_folder.empty() ? std::filesystem::path() : find_text_model_files(text_model_folder).spiece_model;
  const auto vocabulary = vocabulary_of(text, spiece_model);
  if (vocabulary.empty()) {
    fail<ConfigError>("no vocabulary for the ", text.tokenizer == TokenizerKind::kMdm ? "mdm" : "t5",
                      " tokenizer: vocab_file '", printable(text.vocab_file), "' ",
                      is_file(text.vocab_file) ? "is no SentencePiece model" : "is not there",
                      ", and the text model's folder '", printable(text_model_folder.string()),
                      "' has no spiece.model. Give the reference's t5.vocab (tokenizer mdm) or T5's spiece.model "
                      "(either tokenizer) as vocab_file, or put spiece.model into that folder.");
  }
  if (text.tokenizer == TokenizerKind::kT5) return std::make_unique<T5Tokenizer>(T5Tokenizer::open(vocabulary));
  return std::make_unique<MdmTokenizer>(MdmTokenizer::open(vocabulary, compat));
}

std::unique_ptr<TextEncoder> make_text_encoder(const TextConfig& text, const ReaderConfig& reader,
                                               const TextEncoderOptions& options) {
  if (text.kind == TextKind::kPrecomputed || text.use_precomputed_text_embeddings) {
    return std::make_unique<PrecomputedTextEncoder>(text.text_model, options.device);
  }
  if (text.kind == TextKind::kClass || text.categorical_conditioning) {
    return std::make_unique<ClassLabelEncoder>(text.vocab_file, options.class_width, options.device);
  }
  if (text.kind == TextKind::kJoint) {
    auto encoder = options.checkpoint.empty() ? JointTextEncoder::make(text, reader)
                                              : JointTextEncoder::from_checkpoint(options.checkpoint, text, reader);
    encoder->network()->to(options.device);
    return encoder;
  }
  const auto folder = resolve_text_model(text.text_model);
  auto tokenizer = make_tokenizer(text, folder, options.compat);
  T5Encoder::Options how;
  how.device = options.device;
  how.dtype = text.text_precision == TextPrecision::kBf16 ? at::kBFloat16 : at::kFloat;
  const TextModelFiles files = find_text_model_files(folder);
  auto t5 = std::make_unique<T5TextEncoder>(std::move(tokenizer), T5Encoder::load(files, how), token_limits(reader),
                                            reader.padding_token);
  if (!options.training || text.embedding_cache.empty()) return t5;
  auto cache = std::make_unique<EmbeddingCache>(
      text.embedding_cache, embedding_identity(files, text, reader.padding_token, options.device), t5->width());
  return std::make_unique<CachedTextEncoder>(std::move(t5), std::move(cache));
}

}  // namespace mdm
