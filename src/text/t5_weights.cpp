#include "text/t5_weights.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using Shape = std::vector<int64_t>;

std::string shape_text(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += concat(i == 0 ? "" : ", ", shape[i]);
  return text + "]";
}

std::string block_prefix(int64_t block) { return concat("encoder.block.", block, ".layer."); }

// Names and shapes of all tensors but the embedding, which has two possible names.
std::map<std::string, Shape> expected_tensors(const T5Config& c) {
  const int64_t inner = c.num_heads * c.d_kv;
  std::map<std::string, Shape> expected;
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const std::string layer = block_prefix(i);
    for (const char* part : {"q", "k", "v"})
      expected[concat(layer, "0.SelfAttention.", part, ".weight")] = {inner, c.d_model};
    expected[layer + "0.SelfAttention.o.weight"] = {c.d_model, inner};
    expected[layer + "0.layer_norm.weight"] = {c.d_model};
    expected[layer + "1.DenseReluDense.wi_0.weight"] = {c.d_ff, c.d_model};
    expected[layer + "1.DenseReluDense.wi_1.weight"] = {c.d_ff, c.d_model};
    expected[layer + "1.DenseReluDense.wo.weight"] = {c.d_model, c.d_ff};
    expected[layer + "1.layer_norm.weight"] = {c.d_model};
  }
  expected[block_prefix(0) + "0.SelfAttention.relative_attention_bias.weight"] = {c.relative_attention_num_buckets,
                                                                                  c.num_heads};
  expected["encoder.final_layer_norm.weight"] = {c.d_model};
  return expected;
}

constexpr const char* kEmbeddingNames[] = {"shared.weight", "encoder.embed_tokens.weight"};

bool belongs_elsewhere(std::string_view name) { return name.substr(0, 8) == "decoder." || name == "lm_head.weight"; }

bool is_real_float(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf || type == at::kDouble;
}

// The shards, looked at as one file.
class T5Files {
 public:
  explicit T5Files(const TextModelFiles& files) : files_(files) {
    for (const auto& path : files_.weights) shards_.push_back(TensorFile::open(path));
  }

  // Where the tensor is, or null.
  const TensorEntry* find(const std::string& name) const {
    for (const auto& shard : shards_) {
      if (const auto* entry = shard.find(name)) return entry;
    }
    return nullptr;
  }
  // Of a tensor that is there.
  at::Tensor tensor(const std::string& name) const {
    for (const auto& shard : shards_) {
      if (shard.find(name) != nullptr) return shard.tensor(name);
    }
    fail<CheckpointError>(where(), ": has no tensor ", name);
  }
  // What was converted does not stay in memory twice, though views of other tensors keep the mapping.
  void release(const std::string& name) const {
    for (const auto& shard : shards_) {
      if (const auto* entry = shard.find(name)) return shard.release(*entry);
    }
  }
  const std::vector<TensorFile>& shards() const { return shards_; }
  std::string where() const { return printable(files_.folder.string(), 1000); }

 private:
  const TextModelFiles& files_;
  std::vector<TensorFile> shards_;
};

std::string problem_with(const TensorEntry* entry, const std::string& name, const Shape& shape) {
  if (entry == nullptr) return "missing: " + name;
  if (entry->shape != shape) {
    return concat("wrong shape: ", name, " is ", shape_text(entry->shape), ", config.json asks for ",
                  shape_text(shape));
  }
  if (!is_real_float(entry->dtype)) return concat("wrong type: ", name, " is ", c10::toString(entry->dtype));
  return {};
}

// All that is wrong with the files' tensors, in one error. Returns the name of the embedding.
std::string check_tensors(const T5Files& files, const T5Config& config) {
  const auto expected = expected_tensors(config);
  std::vector<std::string> problems;
  for (const auto& [name, shape] : expected) {
    if (auto problem = problem_with(files.find(name), name, shape); !problem.empty()) problems.push_back(problem);
  }
  std::string embedding;
  for (const char* name : kEmbeddingNames) {
    if (embedding.empty() && files.find(name) != nullptr) embedding = name;
  }
  if (embedding.empty()) {
    problems.push_back("missing: shared.weight or encoder.embed_tokens.weight");
  } else if (auto problem = problem_with(files.find(embedding), embedding, {config.vocab_size, config.d_model});
             !problem.empty()) {
    problems.push_back(problem);
  }
  std::set<std::string> seen;
  for (const auto& shard : files.shards()) {
    for (const auto& entry : shard.entries()) {
      if (!seen.insert(entry.name).second) problems.push_back("in two files: " + printable(entry.name));
      const bool known = expected.count(entry.name) > 0 || entry.name == kEmbeddingNames[0] ||
                         entry.name == kEmbeddingNames[1] || belongs_elsewhere(entry.name);
      if (!known) problems.push_back("unexpected: " + printable(entry.name));
    }
  }
  if (problems.empty()) return embedding;
  std::string list;
  constexpr size_t kShown = 40;
  for (size_t i = 0; i < std::min(problems.size(), kShown); ++i) list += "\n  " + problems[i];
  if (problems.size() > kShown) list += concat("\n  and ", problems.size() - kShown, " more");
  fail<CheckpointError>(files.where(), ": the weights don't fit a T5 v1.1 encoder of this config.json:", list);
}

class T5Loader {
 public:
  T5Loader(const T5Files& files, const T5Encoder::Options& options) : files_(files), options_(options) {}

  at::Tensor weight(const std::string& name) { return take(name, options_.dtype); }
  at::Tensor vector(const std::string& name) { return take(name, at::kFloat); }

  // Rows are picked and then converted, so the table may stay in a small dtype of the file.
  at::Tensor table(const std::string& name) {
    const at::ScalarType stored = files_.find(name)->dtype;
    return take(name, c10::elementSize(stored) < c10::elementSize(options_.dtype) ? stored : options_.dtype);
  }
  int64_t resident_bytes() const { return resident_bytes_; }

 private:
  at::Tensor take(const std::string& name, at::ScalarType dtype) {
    const at::Tensor stored = files_.tensor(name);
    const bool fits = stored.scalar_type() == dtype && options_.device.is_cpu() && stored.is_contiguous();
    if (fits) return stored;
    // To the device first: there the conversion is free, and narrow types travel faster.
    at::Tensor copy = stored.to(options_.device).to(dtype).contiguous();
    if (copy.data_ptr() == stored.data_ptr()) copy = copy.clone();
    files_.release(name);
    resident_bytes_ += static_cast<int64_t>(copy.nbytes());
    return copy;
  }

  const T5Files& files_;
  const T5Encoder::Options& options_;
  int64_t resident_bytes_ = 0;
};

}  // namespace

T5Weights load_t5_weights(const TextModelFiles& files, const T5Config& config, const T5Encoder::Options& options) {
  const T5Files shards(files);
  const std::string embedding = check_tensors(shards, config);
  T5Loader loader(shards, options);

  T5Weights weights;
  weights.embedding = loader.table(embedding);
  weights.relative_bias = loader.vector(block_prefix(0) + "0.SelfAttention.relative_attention_bias.weight");
  weights.final_norm = loader.vector("encoder.final_layer_norm.weight");
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string attention = block_prefix(i) + "0.", feed_forward = block_prefix(i) + "1.";
    T5Block block;
    block.attention_norm = loader.vector(attention + "layer_norm.weight");
    block.query = loader.weight(attention + "SelfAttention.q.weight");
    block.key = loader.weight(attention + "SelfAttention.k.weight");
    block.value = loader.weight(attention + "SelfAttention.v.weight");
    block.output = loader.weight(attention + "SelfAttention.o.weight");
    block.feed_forward_norm = loader.vector(feed_forward + "layer_norm.weight");
    block.gate = loader.weight(feed_forward + "DenseReluDense.wi_0.weight");
    block.up = loader.weight(feed_forward + "DenseReluDense.wi_1.weight");
    block.down = loader.weight(feed_forward + "DenseReluDense.wo.weight");
    weights.blocks.push_back(std::move(block));
  }
  weights.resident_bytes = loader.resident_bytes();
  return weights;
}

}  // namespace mdm
