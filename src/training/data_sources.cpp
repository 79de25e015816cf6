#include "training/data_sources.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/net/url_cache.h"
#include "mdm/text/joint_encoder.h"

namespace mdm {

LoaderBatches::LoaderBatches(TrainingData data, LoaderOptions options)
    : data_(std::move(data)), options_(std::move(options)) {}

Batch LoaderBatches::next() {
  if (!loader_) loader_ = std::make_unique<Loader>(data_, options_, counters_);
  return loader_->next();
}

void LoaderBatches::seek(uint64_t step) {
  if (loader_) counters_ = loader_->counters();
  loader_.reset();
  options_.start_step = step;
}

std::string LoaderBatches::state_json() const {
  return nlohmann::json({{"counters", (loader_ ? loader_->counters() : counters_).save()}}).dump();
}

void LoaderBatches::restore(const std::string& state_json) {
  const auto state = nlohmann::json::parse(state_json, nullptr, /*allow_exceptions=*/false);
  if (!state.is_object() || !state.contains("counters") || !state["counters"].is_string()) {
    fail<CheckpointError>("state.json has no counters of the loader");
  }
  loader_.reset();
  counters_ = LoaderCounters::restore(state["counters"].get<std::string>());
}

EncoderText::EncoderText(TextEncoder& encoder, const Config& config) : encoder_(encoder), pad_(config.text.pad) {
  if (pad_.mode == PadPolicy::Mode::kPair && config.reader.max_token_length > 0) {
    pad_.mode = PadPolicy::Mode::kFixed;
    pad_.length = config.reader.max_token_length;
  }
}

PadPolicy EncoderText::padding(int64_t token_length) const {
  PadPolicy pad = pad_;
  if (token_length > 0) {
    pad.mode = PadPolicy::Mode::kFixed;
    pad.length = token_length;
  }
  return pad;
}

TextEmbedding EncoderText::embed(const Batch& batch) {
  const PadPolicy pad = padding(batch.token_length);
  if (!batch.embeddings.empty()) return encoder_.encode_given(batch.embeddings, pad);
  return encoder_.encode(batch.captions, pad, TextEncoder::Use::kTraining);
}

std::vector<NamedTensor> EncoderText::trained() const {
  const auto* joint = dynamic_cast<const JointTextEncoder*>(&encoder_);
  return joint != nullptr ? joint->tensors() : std::vector<NamedTensor>();
}

std::vector<LoaderSlice> micro_steps(const TrainerConfig& trainer, int64_t rank, int64_t processes) {
  std::vector<LoaderSlice> slices;
  for (int64_t micro = 0; micro < trainer.num_gradient_accumulations; ++micro) {
    slices.push_back({(micro * processes + rank) * trainer.batch_size, trainer.batch_size});
  }
  return slices;
}

TrainingData open_data(const std::string& list, const Config& config, const Tokenizer* tokenizer, uint64_t seed,
                       int64_t rows, bool embeddings) {
  DatasetOptions options;
  const auto cache = std::make_shared<UrlCache>(config.reader.cache_dir);
  options.resolve_url = [cache](const std::string& url) { return cache->fetch(url); };
  options.embeddings = embeddings;
  for (const MicroCondition& item : parse_micro_conditioning(config.model.levels[0].micro_conditioning)) {
    if (item.name != "scale") options.numbers.push_back(item.name);
  }
  return open_training_data(list, config.reader, tokenizer, seed, rows, std::move(options));
}

LoaderOptions loader_options(const Config& config, uint64_t seed, bool embeddings) {
  LoaderOptions options;
  options.reader = config.reader;
  options.seed = seed;
  options.micros = parse_micro_conditioning(config.model.levels[0].micro_conditioning);
  options.embeddings = embeddings;
  return options;
}

}  // namespace mdm
