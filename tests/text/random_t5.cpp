#include "text/random_t5.h"

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "mdm/core/error.h"
#include "mdm/core/files.h"

namespace mdm::text_test {
namespace {

struct RandomTensor {
  std::string name;
  std::vector<int64_t> shape;
  double mean, deviation;
  int64_t numel() const {
    int64_t product = 1;
    for (const int64_t size : shape) product *= size;
    return product;
  }
};

std::vector<RandomTensor> tensors_of(const RandomT5& m) {
  const int64_t d = m.d_model, inner = m.num_heads * m.d_kv;
  const auto fan = [&](int64_t in) { return m.scale / std::sqrt(static_cast<double>(in)); };
  std::vector<RandomTensor> out = {{"shared.weight", {m.vocab_size, d}, 0, 1},
                                   {"encoder.final_layer_norm.weight", {d}, 1, 0.25}};
  for (int64_t i = 0; i < m.num_layers; ++i) {
    const std::string layer = concat("encoder.block.", i, ".layer.");
    if (i == 0) out.push_back({layer + "0.SelfAttention.relative_attention_bias.weight", {32, m.num_heads}, 0, 0.5});
    out.push_back({layer + "0.layer_norm.weight", {d}, 1, 0.25});
    out.push_back({layer + "0.SelfAttention.q.weight", {inner, d}, 0, fan(d * m.d_kv)});
    out.push_back({layer + "0.SelfAttention.k.weight", {inner, d}, 0, fan(d)});
    out.push_back({layer + "0.SelfAttention.v.weight", {inner, d}, 0, fan(d)});
    out.push_back({layer + "0.SelfAttention.o.weight", {d, inner}, 0, fan(inner)});
    out.push_back({layer + "1.layer_norm.weight", {d}, 1, 0.25});
    out.push_back({layer + "1.DenseReluDense.wi_0.weight", {m.d_ff, d}, 0, fan(d)});
    out.push_back({layer + "1.DenseReluDense.wi_1.weight", {m.d_ff, d}, 0, fan(d)});
    out.push_back({layer + "1.DenseReluDense.wo.weight", {d, m.d_ff}, 0, fan(m.d_ff)});
  }
  return out;
}

uint16_t half_bits(float value) {  // round to nearest; the values here are far from the range's ends
  uint32_t bits = 0;
  std::memcpy(&bits, &value, 4);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const int exponent = static_cast<int>(bits >> 23 & 0xFF) - 112;
  if (exponent <= 0) return sign;
  const uint32_t rounded = (static_cast<uint32_t>(exponent) << 10 | (bits >> 13 & 0x3FF)) + (bits >> 12 & 1);
  return static_cast<uint16_t>(sign | rounded);
}

void write_values(AtomicFile& file, const RandomTensor& tensor, const std::string& dtype, uint64_t& state) {
  const size_t size = dtype == "F32" ? 4 : 2;
  const auto scale = static_cast<float>(tensor.deviation * std::sqrt(12.0) / 16777216.0);
  std::vector<char> buffer;
  for (int64_t left = tensor.numel(); left > 0;) {
    const auto count = static_cast<size_t>(std::min<int64_t>(left, 1 << 20));
    buffer.resize(count * size);
    for (size_t i = 0; i < count; ++i) {
      state ^= state << 13;  // xorshift: quality does not matter here, speed does
      state ^= state >> 7;
      state ^= state << 17;
      const float value = static_cast<float>(tensor.mean) + (static_cast<float>(state >> 40) - 8388608.0F) * scale;
      if (size == 4) {
        std::memcpy(&buffer[i * 4], &value, 4);
      } else if (dtype == "F16") {
        const uint16_t bits = half_bits(value);
        std::memcpy(&buffer[i * 2], &bits, 2);
      } else {
        uint32_t bits = 0;
        std::memcpy(&bits, &value, 4);
        const auto upper = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
        std::memcpy(&buffer[i * 2], &upper, 2);
      }
    }
    file.write(buffer.data(), buffer.size());
    left -= static_cast<int64_t>(count);
  }
}

}  // namespace

void write_random_t5(const std::filesystem::path& folder, const RandomT5& model) {
  make_writable_folder(folder);
  const nlohmann::json config = {{"model_type", "t5"},
                                 {"feed_forward_proj", "gated-gelu"},
                                 {"is_gated_act", true},
                                 {"dense_act_fn", "gelu_new"},
                                 {"d_model", model.d_model},
                                 {"d_kv", model.d_kv},
                                 {"d_ff", model.d_ff},
                                 {"num_layers", model.num_layers},
                                 {"num_heads", model.num_heads},
                                 {"vocab_size", model.vocab_size},
                                 {"layer_norm_epsilon", 1e-6},
                                 {"relative_attention_num_buckets", 32},
                                 {"relative_attention_max_distance", 128},
                                 {"pad_token_id", 0},
                                 {"eos_token_id", 1}};
  write_file(folder / "config.json", config.dump(2) + "\n");

  const auto tensors = tensors_of(model);
  nlohmann::json header = nlohmann::json::object();
  int64_t offset = 0;
  for (const auto& tensor : tensors) {
    const int64_t bytes = tensor.numel() * (model.dtype == "F32" ? 4 : 2);
    header[tensor.name] = {{"dtype", model.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  AtomicFile file(folder / "model.safetensors");
  const uint64_t length = text.size();
  file.write(&length, 8);
  file.write(text);
  uint64_t state = model.seed * 0x9E3779B97F4A7C15ULL + 0x632BE59BD9B4E019ULL;
  for (const auto& tensor : tensors) write_values(file, tensor, model.dtype, state);
  file.commit();
}

}  // namespace mdm::text_test
