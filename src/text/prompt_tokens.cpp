// How a prompt is cut into tokens.
#include "mdm/text/prompt_tokens.h"

#include <algorithm>
#include <utility>

#include "mdm/text/joint_encoder.h"
#include "mdm/text/text_encoder.h"
#include "mdm/text/text_model.h"
#include "mdm/text/tokenizer.h"

namespace mdm {

struct PromptTokenizer::Impl {
  std::unique_ptr<const Tokenizer> tokenizer;
  TokenLimits limits;
};

PromptTokenizer::PromptTokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
PromptTokenizer::~PromptTokenizer() = default;

std::unique_ptr<const PromptTokenizer> PromptTokenizer::open(const TextConfig& text, const ReaderConfig& reader,
                                                             const std::filesystem::path& checkpoint) {
  if (text.kind == TextKind::kPrecomputed || text.use_precomputed_text_embeddings) return nullptr;
  if (text.kind == TextKind::kClass || text.categorical_conditioning) return nullptr;
  TokenLimits limits = token_limits(reader);
  std::unique_ptr<const Tokenizer> tokenizer;
  if (text.kind == TextKind::kJoint) {
    tokenizer = std::make_unique<MdmTokenizer>(joint_tokenizer(checkpoint, text));
    limits.max_token_length =
        limits.max_token_length < 0 ? text.joint_tokens : std::min(limits.max_token_length, text.joint_tokens);
  } else {
    tokenizer = make_tokenizer(text, resolve_text_model(text.text_model));
  }
  auto impl = std::make_unique<const Impl>(Impl{std::move(tokenizer), limits});
  return std::unique_ptr<const PromptTokenizer>(new PromptTokenizer(std::move(impl)));
}

PromptTokens PromptTokenizer::tokens(const std::string& prompt) const {
  const Tokenizer& tokenizer = *impl_->tokenizer;
  const TokenLimits& limits = impl_->limits;
  PromptTokens out;
  const std::vector<int32_t> ids = tokenizer.encode_inference(prompt, limits);
  for (const int32_t id : ids) out.tokens.push_back({id, std::string(tokenizer.piece(id))});
  if (limits.max_token_length >= 0 && static_cast<int64_t>(ids.size()) >= limits.max_token_length) {
    TokenLimits unlimited = limits;
    unlimited.max_token_length = -1;
    out.cut = tokenizer.encode_inference(prompt, unlimited).size() > ids.size();
  }
  out.cut = out.cut || first_code_points(prompt, limits.max_caption_length).size() < prompt.size();
  return out;
}

}  // namespace mdm
