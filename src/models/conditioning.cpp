#include "mdm/models/conditioning.h"

namespace mdm {
namespace {

at::Tensor part(const at::Tensor& t, int64_t first, int64_t count) {
  return t.defined() ? t.narrow(0, first, count) : t;
}

}  // namespace

Conditioning Conditioning::rows(int64_t first, int64_t count) const {
  Conditioning out;
  out.pooled = part(pooled, first, count);
  out.text = part(text, first, count);
  out.mask = part(mask, first, count);
  for (const at::Tensor& t : micro) out.micro.push_back(part(t, first, count));
  for (const auto& level : keys_values) {
    auto& target = out.keys_values.emplace_back();
    for (const ops::KeyValue& kv : level) target.push_back({part(kv.key, first, count), part(kv.value, first, count)});
  }
  return out;
}

}  // namespace mdm
