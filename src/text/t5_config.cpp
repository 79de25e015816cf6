// Reads a T5's config.json.
#include <cmath>
#include <nlohmann/json.hpp>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/text/t5_encoder.h"
#include "text/json_text.h"

namespace mdm {
namespace {

// The object of a config.json, with errors that name file and field.
class T5ConfigJson {
 public:
  explicit T5ConfigJson(const std::filesystem::path& file) : where_(printable(file.string(), 1000)) {
    json_ = nlohmann::json::parse(read_text_file(file, size_t{1} << 20), nullptr, false);
    if (json_.is_discarded()) fail<ConfigError>(where_, ": is no JSON");
    if (!json_.is_object()) fail<ConfigError>(where_, ": expected a JSON object");
  }

  int64_t integer(const char* name, int64_t low, int64_t high) const {
    const auto& value = required(name);
    const bool fits = value.is_number_integer() && !(value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX) &&
                      value.get<int64_t>() >= low && value.get<int64_t>() <= high;
    if (!fits) wrong(name, value, concat("an integer from ", low, " to ", high));
    return value.get<int64_t>();
  }
  int64_t integer_or(const char* name, int64_t low, int64_t high, int64_t standard) const {
    return present(name) ? integer(name, low, high) : standard;
  }
  double number_or(const char* name, double low, double high, double standard) const {
    if (!present(name)) return standard;
    const auto& value = json_[name];
    if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high)) {
      wrong(name, value, concat("a number from ", low, " to ", high));
    }
    return value.get<double>();
  }
  void must_be(const char* name, const char* expected, const char* why) const {
    const auto& value = required(name);
    if (!value.is_string() || value.get_ref<const std::string&>() != expected)
      wrong(name, value, concat('"', expected, '"', why));
  }
  void must_be_if_present(const char* name, const nlohmann::json& expected) const {
    if (present(name) && json_[name] != expected) wrong(name, json_[name], expected.dump());
  }
  const std::string& where() const { return where_; }

 private:
  bool present(const char* name) const { return json_.contains(name) && !json_[name].is_null(); }
  const nlohmann::json& required(const char* name) const {
    if (!present(name)) fail<ConfigError>(where_, ": lacks '", name, "'");
    return json_[name];
  }
  [[noreturn]] void wrong(const char* name, const nlohmann::json& value, const std::string& expected) const {
    fail<ConfigError>(where_, ": '", name, "' is ", shown_json(value), "; expected ", expected);
  }

  std::string where_;
  nlohmann::json json_;
};

}  // namespace

T5Config T5Config::read(const std::filesystem::path& config_json) {
  const T5ConfigJson json(config_json);
  json.must_be("model_type", "t5", "");
  json.must_be("feed_forward_proj", "gated-gelu", " (T5 v1.1 and flan-T5; v1.0 is another network)");
  json.must_be_if_present("is_gated_act", true);
  json.must_be_if_present("dense_act_fn", "gelu_new");

  constexpr int64_t kWidest = 1 << 20;
  T5Config config;
  config.d_model = json.integer("d_model", 1, kWidest);
  config.d_kv = json.integer("d_kv", 1, kWidest);
  config.d_ff = json.integer("d_ff", 1, kWidest);
  config.num_layers = json.integer("num_layers", 1, 1000);
  config.num_heads = json.integer("num_heads", 1, 4096);
  config.vocab_size = json.integer("vocab_size", 1, 1 << 24);
  config.relative_attention_num_buckets = json.integer_or("relative_attention_num_buckets", 4, 4096, 32);
  config.relative_attention_max_distance = json.integer_or("relative_attention_max_distance", 2, kWidest, 128);
  config.layer_norm_epsilon = json.number_or("layer_norm_epsilon", 0, 1, 1e-6);
  config.pad_token_id = json.integer_or("pad_token_id", 0, config.vocab_size - 1, 0);
  if (config.relative_attention_num_buckets % 4 != 0 ||
      config.relative_attention_max_distance <= config.relative_attention_num_buckets / 4) {
    fail<ConfigError>(json.where(), ": 'relative_attention_num_buckets' is ", config.relative_attention_num_buckets,
                      " and 'relative_attention_max_distance' ", config.relative_attention_max_distance,
                      "; expected a multiple of 4, and a distance above a quarter of it");
  }
  return config;
}

int64_t t5_relative_bucket(int64_t distance, int64_t num_buckets, int64_t max_distance) {
  const int64_t half = num_buckets / 2;
  const int64_t exact = half / 2;
  const int64_t side = distance > 0 ? half : 0;
  const int64_t away = std::abs(distance);
  if (away < exact) return side + away;
  const double share = std::log(static_cast<double>(away) / static_cast<double>(exact)) /
                       std::log(static_cast<double>(max_distance) / static_cast<double>(exact));
  const auto step = static_cast<int64_t>(share * static_cast<double>(half - exact));
  return side + std::min(exact + step, half - 1);
}

}  // namespace mdm
