#include "mdm/training/data_sources.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/net/url_cache.h"
#include "mdm/text/joint_encoder.h"
#include "mdm/text/other_encoders.h"

namespace mdm {
namespace {

// Of names and captions of the samples that are used, in their order (FNV-1a): tells data sets apart, nothing more.
std::string digest_of(const TrainingData& data) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&hash](std::string_view text) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    hash = (hash ^ text.size()) * 0x100000001b3;
  };
  for (size_t i = 0; i < data.dataset->size(); ++i) {
    if (!data.captions->kept(i)) continue;
    add(data.dataset->file(i));
    add(data.captions->text(*data.dataset, i));
  }
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

}  // namespace

LoaderBatches::LoaderBatches(TrainingData data, LoaderOptions options, bool allow_change)
    : data_(std::move(data)), options_(std::move(options)), allow_change_(allow_change), digest_(digest_of(data_)) {}

Batch LoaderBatches::next() {
  if (!loader_) loader_ = std::make_unique<Loader>(data_, options_, counters_);
  return loader_->next();
}

void LoaderBatches::seek(uint64_t step) {
  counters_ = counters();
  loader_.reset();
  options_.start_step = step;
}

void LoaderBatches::rewind() {
  loader_.reset();
  counters_ = {};
  options_.start_step = 0;
}

const LoaderCounters& LoaderBatches::counters() const { return loader_ ? loader_->counters() : counters_; }

std::string LoaderBatches::state_json() const {
  nlohmann::ordered_json state;
  state["counters"] = counters().save();
  state["samples"] = data_.plan->samples();
  state["digest"] = digest_;
  return state.dump();
}

void LoaderBatches::restore(const std::string& state_json) {
  const auto state = nlohmann::json::parse(state_json, nullptr, /*allow_exceptions=*/false);
  if (!state.is_object() || !state.contains("counters") || !state["counters"].is_string()) {
    fail<CheckpointError>("state.json has no counters of the loader");
  }
  // A state of before digests has none.
  if (state.contains("digest") && state["digest"] != digest_) {
    const std::string change =
        concat("the training data are not those of the checkpoint: it had ", state.value("samples", int64_t{-1}),
               " samples, now there are ", data_.plan->samples(), ", or others in another order");
    if (!allow_change_) {
      fail<ConfigError>(change,
                        "\n  Say --allow-config-change to go on with the new data, or choose another output_dir");
    }
    log_warning(change);
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

std::string EncoderText::vocabulary() const {
  const auto* joint = dynamic_cast<const JointTextEncoder*>(&encoder_);
  return joint != nullptr ? joint->vocabulary() : std::string();
}

int64_t process_batch_size(const TrainerConfig& trainer, int64_t processes) {
  if (trainer.global_batch_size == 0) return trainer.batch_size;
  const int64_t parts = processes * trainer.num_gradient_accumulations;
  if (trainer.global_batch_size % parts != 0) {
    fail<ConfigError>("global_batch_size: ", trainer.global_batch_size, " is not a multiple of ", parts, " (",
                      processes, " processes, ", trainer.num_gradient_accumulations, " batches each)");
  }
  return trainer.global_batch_size / parts;
}

std::vector<LoaderSlice> micro_steps(const TrainerConfig& trainer, int64_t rank, int64_t processes) {
  const int64_t rows = process_batch_size(trainer, processes);
  std::vector<LoaderSlice> slices;
  for (int64_t micro = 0; micro < trainer.num_gradient_accumulations; ++micro) {
    slices.push_back({(micro * processes + rank) * rows, rows});
  }
  return slices;
}

TrainingData open_data(const std::string& list, const Config& config, const Tokenizer* tokenizer, uint64_t seed,
                       int64_t rows, const std::atomic<bool>* stop) {
  HttpOptions http;
  http.allow_private = config.reader.allow_private_hosts;
  http.use_proxy = config.reader.use_proxy;
  http.s3_endpoint = config.reader.endpoint_url;
  http.cancel = stop;
  DatasetOptions options;
  const auto cache = std::make_shared<UrlCache>(config.reader.cache_dir, http);
  options.resolve_url = [cache](const std::string& url) { return cache->fetch(url); };
  options.embeddings = config.text.kind == TextKind::kPrecomputed;
  for (const MicroCondition& item : parse_micro_conditioning(config.model.levels[0].micro_conditioning)) {
    if (item.name != "scale") options.numbers.push_back(item.name);
  }
  ReaderConfig reader = config.reader;
  if (config.text.kind == TextKind::kJoint && config.text.joint_tokens > 0) {  // its encoder takes no more
    const bool shorter = reader.max_token_length < 0 || config.text.joint_tokens < reader.max_token_length;
    if (shorter) reader.max_token_length = config.text.joint_tokens;
  }
  return open_training_data(list, reader, tokenizer, seed, rows, std::move(options));
}

LoaderOptions loader_options(const Config& config, uint64_t seed, const TextEncoder* encoder) {
  LoaderOptions options;
  options.reader = config.reader;
  options.seed = seed;
  options.micros = parse_micro_conditioning(config.model.levels[0].micro_conditioning);
  options.embeddings = config.text.kind == TextKind::kPrecomputed;
  if (options.embeddings && encoder != nullptr) options.embedding_width = encoder->width();
  if (const auto* labels = dynamic_cast<const ClassLabelEncoder*>(encoder)) {
    options.knows_caption = [labels](std::string_view caption) { return labels->knows(caption); };
  }
  return options;
}

}  // namespace mdm
