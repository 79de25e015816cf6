// The text encoder that is trained with the model: its network, and captions through it.
#include "mdm/text/joint_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/gelu.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "mdm/checkpoint/inspect.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/ops/attention.h"

namespace mdm {
namespace {

constexpr int64_t kFeedForward = 4;  // the inner width, in widths
// Of fresh token and position embeddings. Words in two-object captions are told apart by a small cross-attention
// reader after fewer steps than with 0.02 (as in GPT-2) or 1 (as torch.nn.Embedding).
constexpr double kEmbeddingDeviation = 0.3;

// Rows of an embedding as float32. Where its gradient is wanted the table is widened first, so that the
// gradients of a word that stands in many captions are summed in float32 and not in bfloat16.
at::Tensor gathered(const at::Tensor& table, const at::Tensor& ids) {
  if (c10::GradMode::is_enabled() && table.requires_grad()) return at::embedding(table.to(at::kFloat), ids);
  return at::embedding(table, ids).to(at::kFloat);
}

}  // namespace

JointTextLayer::JointTextLayer(int64_t width, int64_t heads) : heads_(heads) {
  norm1_ = register_module("norm1", std::make_shared<LayerNorm>(width));
  qkv_ = register_module("qkv", std::make_shared<Linear>(width, 3 * width));
  proj_out_ = register_module("proj_out", std::make_shared<Linear>(width, width));
  norm2_ = register_module("norm2", std::make_shared<LayerNorm>(width));
  up_ = register_module("up", std::make_shared<Linear>(width, kFeedForward * width));
  down_ = register_module("down", std::make_shared<Linear>(kFeedForward * width, width));
}

at::Tensor JointTextLayer::forward(const at::Tensor& x, const at::Tensor& mask) const {
  const int64_t batch = x.size(0), length = x.size(1), width = x.size(2);
  const auto dtype = qkv_->weight.scalar_type();
  const at::Tensor qkv = qkv_->forward(norm1_->forward(x.to(dtype)));
  const auto parts = qkv.view({batch, length, 3, heads_, width / heads_}).permute({2, 0, 3, 1, 4}).unbind(0);
  const at::Tensor mixed = ops::masked_attention(parts[0], parts[1], parts[2], mask);  // (B, heads, L, d)
  const at::Tensor attended = x + proj_out_->forward(mixed.transpose(1, 2).reshape({batch, length, width}));
  const at::Tensor inner = at::gelu(up_->forward(norm2_->forward(attended.to(dtype))));
  return attended + down_->forward(inner);
}

void JointTextLayer::init(at::Generator generator, double residual_scale) {
  norm1_->init();
  qkv_->init(generator);
  proj_out_->init(generator);
  norm2_->init();
  up_->init(generator);
  down_->init(generator);
  const c10::NoGradGuard no_grad;
  for (const auto& layer : {proj_out_, down_}) {
    layer->weight.mul_(residual_scale);
    layer->bias.zero_();
  }
}

JointTextNetwork::JointTextNetwork(const Shape& shape) : shape_(shape) {
  if (shape.vocab_size < 1 || shape.width < 1 || shape.layers < 1 || shape.heads < 1 || shape.tokens < 1) {
    fail<ConfigError>(
        "text_kind joint: joint_width, joint_layers, joint_heads, joint_tokens and the vocabulary must be ",
        "at least 1");
  }
  if (shape.width % shape.heads != 0) {
    fail<ConfigError>("joint_width: ", shape.width, " is not a multiple of joint_heads, which is ", shape.heads);
  }
  token_embedding_ = register_parameter("token_embedding", at::empty({shape.vocab_size, shape.width}));
  position_embedding_ = register_parameter("position_embedding", at::empty({shape.tokens, shape.width}));
  const auto list = register_module("layers", std::make_shared<ModuleList>());
  for (int64_t i = 0; i < shape.layers; ++i) {
    layers_.push_back(list->add(std::make_shared<JointTextLayer>(shape.width, shape.heads)));
  }
  norm_out_ = register_module("norm_out", std::make_shared<LayerNorm>(shape.width));
}

at::Tensor JointTextNetwork::forward(const at::Tensor& ids, const at::Tensor& mask) const {
  const at::Tensor positions = position_embedding_.narrow(0, 0, ids.size(1)).to(at::kFloat);
  at::Tensor x = gathered(token_embedding_, ids) + positions;  // (B, L, D)
  for (const auto& layer : layers_) x = layer->forward(x, mask);
  const at::Tensor out = norm_out_->forward(x.to(norm_out_->weight.scalar_type())).to(at::kFloat);
  return out * mask.unsqueeze(-1).to(at::kFloat);
}

void JointTextNetwork::init(at::Generator generator) {
  {
    const c10::NoGradGuard no_grad;
    token_embedding_.normal_(0.0, kEmbeddingDeviation, generator);
    position_embedding_.normal_(0.0, kEmbeddingDeviation, generator);
  }
  // The sum of what 2 N branches add grows with their number; it is to begin as large as one of them.
  const double residual_scale = 1.0 / std::sqrt(2.0 * static_cast<double>(layers_.size()));
  for (const auto& layer : layers_) layer->init(generator, residual_scale);
  norm_out_->init();
}

JointTextEncoder::JointTextEncoder(MdmTokenizer tokenizer, std::shared_ptr<JointTextNetwork> network,
                                   const TokenLimits& limits, const std::string& padding_token)
    : tokenizer_(std::move(tokenizer)),
      network_(std::move(network)),
      limits_(limits),
      pad_id_(tokenizer_.id_of(padding_token)) {
  if (pad_id_ < 0) fail<ConfigError>("padding_token '", printable(padding_token), "' is not in the vocabulary");
  if (tokenizer_.vocab_size() != network_->shape().vocab_size) {
    fail<ConfigError>("the vocabulary has ", tokenizer_.vocab_size(), " pieces, the text encoder ",
                      network_->shape().vocab_size, ": they don't belong together");
  }
  const int64_t most = network_->shape().tokens;
  limits_.max_token_length = limits_.max_token_length < 0 ? most : std::min(limits_.max_token_length, most);
}

at::Device JointTextEncoder::device() const { return network_->parameters().front().device(); }

std::vector<int32_t> JointTextEncoder::tokens_of(const std::string& caption, int64_t max_length, Use use) const {
  TokenLimits limits = limits_;
  if (max_length >= 0) limits.max_token_length = std::min(limits.max_token_length, max_length);
  std::vector<int32_t> ids = tokenizer_.encode_inference(caption, limits);
  const auto length = static_cast<int64_t>(ids.size());
  const bool cut =
      length > 0 && length == limits.max_token_length && limits.append_eos && ids.back() != tokenizer_.eos_id();
  if (cut && use == Use::kSampling) {
    log_warning("prompt \"", printable(caption, 60), "\" is cut to ", length, " tokens");
  }
  if (std::all_of(ids.begin(), ids.end(), [&](int32_t id) { return id == pad_id_; })) {
    fail<DataError>("caption \"", printable(caption, 60), "\" has no tokens with these settings (max_token_length ",
                    limits.max_token_length, ", append_eos ", limits.append_eos ? "true" : "false", ")");
  }
  return ids;
}

int64_t JointTextEncoder::forced_length() const { return limits_.pad_to_max_length ? limits_.max_token_length : -1; }

TextEncoder::Rows JointTextEncoder::encode_rows(const std::vector<std::string>& captions, int64_t max_length, Use use) {
  std::vector<std::vector<int32_t>> ids;
  for (const auto& caption : captions) ids.push_back(tokens_of(caption, max_length, use));
  const TokenBatch batch = pad_tokens(ids, pad_id_);
  const at::Tensor mask = batch.mask.to(device());
  at::Tensor outputs = network_->forward(batch.tokens.to(device()), mask.to(at::kBool));
  return {std::move(outputs), mask, batch.lengths};
}

std::vector<NamedTensor> JointTextEncoder::tensors() const {
  std::vector<NamedTensor> tensors;
  for (const auto& item : network_->named_parameters()) tensors.push_back({item.key(), item.value()});
  return tensors;
}

namespace {

MdmTokenizer mdm_tokenizer_of(const TextConfig& text) {
  const auto tokenizer = make_tokenizer(text, {});
  return std::move(dynamic_cast<MdmTokenizer&>(*tokenizer));  // which it is for text_kind joint
}

JointTextNetwork::Shape joint_shape(const TextConfig& text, int64_t vocab_size) {
  return {vocab_size, text.joint_width, text.joint_layers, text.joint_heads, text.joint_tokens};
}

// A file opened where its text encoder is, and what the names begin with there.
struct OpenedSection {
  TensorFile file;
  std::string prefix;
};

// Refuses a shape that the file doesn't have before anything of that size is made.
void check_shape(const OpenedSection& section, const JointTextNetwork::Shape& shape, const std::string& where) {
  constexpr size_t kOfLayer = 12, kBeside = 4;
  const TensorEntry* tokens = section.file.find(section.prefix + "token_embedding");
  const TensorEntry* positions = section.file.find(section.prefix + "position_embedding");
  const auto own = static_cast<size_t>(
      std::count_if(section.file.entries().begin(), section.file.entries().end(),
                    [&](const TensorEntry& entry) { return entry.name.rfind(section.prefix, 0) == 0; }));
  const std::vector<int64_t> wanted_tokens = {shape.vocab_size, shape.width};
  const std::vector<int64_t> wanted_positions = {shape.tokens, shape.width};
  const bool fits = tokens != nullptr && tokens->shape == wanted_tokens && positions != nullptr &&
                    positions->shape == wanted_positions &&
                    own == kBeside + kOfLayer * static_cast<size_t>(shape.layers);
  if (fits) return;
  const auto shown = [](const TensorEntry* entry) {
    return entry == nullptr ? std::string("absent") : concat("of shape ", at::IntArrayRef(entry->shape));
  };
  fail<CheckpointError>(where, ": its text encoder has ", own, " tensors, token_embedding ", shown(tokens),
                        ", position_embedding ", shown(positions), "; the config (joint_width ", shape.width,
                        ", joint_layers ", shape.layers, ", joint_tokens ", shape.tokens, ") and a vocabulary of ",
                        shape.vocab_size, " pieces want ", kBeside + kOfLayer * static_cast<size_t>(shape.layers), ", ",
                        at::IntArrayRef(wanted_tokens), " and ", at::IntArrayRef(wanted_positions));
}

std::optional<OpenedSection> open_section(const std::filesystem::path& checkpoint) {
  const Inspection seen = inspect_checkpoint(checkpoint);
  const auto& places = seen.tensor_dictionaries;
  if (std::find(places.begin(), places.end(), kTextEncoderSection) != places.end()) {
    TensorFile::Options options;
    options.state_dict_path = kTextEncoderSection;
    return OpenedSection{TensorFile::open(checkpoint, options), ""};
  }
  const std::string prefix = concat(kTextEncoderSection, ".");
  const bool found = std::any_of(seen.tensors.begin(), seen.tensors.end(),
                                 [&](const TensorEntry& entry) { return entry.name.rfind(prefix, 0) == 0; });
  if (!found) return std::nullopt;
  return OpenedSection{TensorFile::open(checkpoint), prefix};
}

}  // namespace

namespace {

OpenedSection required_section(const std::filesystem::path& checkpoint) {
  auto section = open_section(checkpoint);
  if (!section) {
    fail<CheckpointError>(printable(checkpoint.string(), 1000), ": holds no text encoder ('", kTextEncoderSection,
                          "' beside the state dict), which text_kind joint needs");
  }
  return std::move(*section);
}

// The vocabulary that the checkpoint's encoder was trained with, where the file says so.
std::optional<std::string> kept_vocabulary(const OpenedSection& section) {
  const auto items = nlohmann::json::parse(section.file.metadata_json(), nullptr, /*allow_exceptions=*/false);
  if (!items.is_object()) return std::nullopt;
  const auto item = items.find(kTextVocabularyItem);
  if (item == items.end() || !item->is_string()) return std::nullopt;
  return item->get<std::string>();
}

MdmTokenizer tokenizer_of(const OpenedSection& section, const TextConfig& text, const std::string& where) {
  const auto kept = kept_vocabulary(section);
  return kept ? MdmTokenizer::from_vocab_text(*kept, concat(where, ": ", kTextVocabularyItem)) : mdm_tokenizer_of(text);
}

}  // namespace

bool holds_text_encoder(const std::filesystem::path& checkpoint) { return open_section(checkpoint).has_value(); }

void load_text_encoder(const std::filesystem::path& checkpoint, const std::vector<NamedTensor>& tensors,
                       bool compare_only) {
  const OpenedSection section = required_section(checkpoint);
  LoadOptions options;
  options.prefix = section.prefix;
  options.compare_only = compare_only;
  try {
    load_state_dict(section.file, tensors, options);
  } catch (const CheckpointError& error) {
    fail<CheckpointError>("the text encoder in ", error.what(),
                          "\n  See joint_width, joint_layers, joint_heads, joint_tokens and the vocabulary.");
  }
}

void JointTextEncoder::load(const std::filesystem::path& checkpoint) {
  const OpenedSection section = required_section(checkpoint);
  if (const auto kept = kept_vocabulary(section); kept && *kept != vocabulary()) {
    fail<CheckpointError>(printable(checkpoint.string(), 1000),
                          ": its text encoder was trained with another vocabulary than vocab_file has: the same ids "
                          "would be other words");
  }
  load_text_encoder(checkpoint, tensors());
}

MdmTokenizer joint_tokenizer(const std::filesystem::path& checkpoint, const TextConfig& text) {
  return tokenizer_of(required_section(checkpoint), text, printable(checkpoint.string(), 1000));
}

std::unique_ptr<JointTextEncoder> JointTextEncoder::make(const TextConfig& text, const ReaderConfig& reader) {
  auto tokenizer = mdm_tokenizer_of(text);
  auto network = std::make_shared<JointTextNetwork>(joint_shape(text, tokenizer.vocab_size()));
  return std::make_unique<JointTextEncoder>(std::move(tokenizer), std::move(network), token_limits(reader),
                                            reader.padding_token);
}

std::unique_ptr<JointTextEncoder> JointTextEncoder::from_checkpoint(const std::filesystem::path& checkpoint,
                                                                    const TextConfig& text,
                                                                    const ReaderConfig& reader) {
  const OpenedSection section = required_section(checkpoint);
  const std::string where = printable(checkpoint.string(), 1000);
  MdmTokenizer tokenizer = tokenizer_of(section, text, where);
  const auto shape = joint_shape(text, tokenizer.vocab_size());
  check_shape(section, shape, where);
  auto encoder = std::make_unique<JointTextEncoder>(std::move(tokenizer), std::make_shared<JointTextNetwork>(shape),
                                                    token_limits(reader), reader.padding_token);
  load_text_encoder(checkpoint, encoder->tensors());
  return encoder;
}

}  // namespace mdm
