// What a look inside keeps of one call of the model.
#include "pipeline/inside_probe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

namespace mdm {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::string_view kTextWeights = ".text_weights";

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

size_t level_of(const std::string& layer) {
  size_t level = 0;
  for (const char c : layer) {
    if (c < '0' || c > '9') break;
    level = level * 10 + static_cast<size_t>(c - '0');
  }
  return level;
}

}  // namespace

void InsideProbe::begin() {
  forget();
  last_ = Clock::now();
}

void InsideProbe::forget() {
  weights_.clear();
  times_.clear();
}

bool InsideProbe::wants(const std::string& name) {
  return ends_with(name, kTextWeights) || name.find('.') == name.rfind('.') || name.find("_blocks.") != name.npos;
}

void InsideProbe::on_tensor(const std::string& name, const at::Tensor& value) {
  if (ends_with(name, kTextWeights)) {
    weights_.emplace_back(name.substr(0, name.size() - kTextWeights.size()), value.mean(1));
    return;
  }
  // The first block for the second time: another call of the model begins.
  if (!times_.empty() && times_.front().block == name) forget();
  const Clock::time_point now = Clock::now();
  times_.push_back({name, std::chrono::duration<double>(now - last_).count()});
  last_ = now;
}

std::vector<AttentionMap> InsideProbe::attention(size_t row) const {
  std::vector<AttentionMap> maps;
  for (const auto& [layer, weights] : weights_) {
    if (static_cast<int64_t>(row) >= weights.size(0)) continue;  // a level that worked on the first rows only
    AttentionMap map;
    map.layer = layer;
    map.level = level_of(layer);
    map.tokens = weights.size(2);
    // Pictures are square where text is attended to.
    map.height = map.width = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(weights.size(1)))));
    if (map.height * map.width != weights.size(1)) continue;  // several frames at once
    const at::Tensor by_token =
        weights[static_cast<int64_t>(row)].transpose(0, 1).to(at::kCPU, at::kFloat).contiguous();
    map.weights.resize(static_cast<size_t>(by_token.numel()));
    std::memcpy(map.weights.data(), by_token.const_data_ptr(), map.weights.size() * sizeof(float));
    maps.push_back(std::move(map));
  }
  return maps;
}

}  // namespace mdm
