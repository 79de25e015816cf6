#include "training/model_parameters.h"

#include <algorithm>
#include <unordered_set>

#include "mdm/checkpoint/write.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

std::string text_prefix() { return concat(kTextEncoderSection, "."); }

bool is_text(const std::string& name) { return name.rfind(text_prefix(), 0) == 0; }

}  // namespace

std::vector<ArenaParameter> arena_parameters(const UNet& model, const TextSource* text, bool inner_predictions) {
  std::unordered_set<const void*> unused, keep_float;
  for (const at::Tensor& t : model.unused_parameters(inner_predictions)) unused.insert(t.unsafeGetTensorImpl());
  for (const auto& module : model.modules()) {
    if (dynamic_cast<const GroupNorm*>(module.get()) == nullptr) continue;
    for (const at::Tensor& t : module->parameters(/*recurse=*/false)) keep_float.insert(t.unsafeGetTensorImpl());
  }
  std::vector<ArenaParameter> out;
  for (const auto& item : model.named_parameters()) {
    ArenaParameter parameter;
    parameter.name = item.key();
    parameter.tensor = item.value();
    const void* key = item.value().unsafeGetTensorImpl();
    parameter.keep_float = keep_float.count(key) != 0;
    parameter.segment = !item.value().requires_grad() ? ArenaSegment::kFrozen
                        : unused.count(key) != 0      ? ArenaSegment::kUnused
                                                      : ArenaSegment::kTrained;
    out.push_back(std::move(parameter));
  }
  if (text == nullptr) return out;
  for (const NamedTensor& item : text->trained()) {
    out.push_back({text_prefix() + item.name, item.tensor, ArenaSegment::kTrained, /*keep_float=*/true});
  }
  return out;
}

std::vector<NamedTensor> text_encoder_tensors(const std::vector<NamedTensor>& all) {
  std::vector<NamedTensor> out;
  for (const NamedTensor& item : all) {
    if (is_text(item.name)) out.push_back({item.name.substr(text_prefix().size()), item.tensor});
  }
  return out;
}

std::vector<NamedTensor> model_tensors(const std::vector<NamedTensor>& all) {
  std::vector<NamedTensor> out;
  std::copy_if(all.begin(), all.end(), std::back_inserter(out),
               [](const NamedTensor& item) { return !is_text(item.name); });
  return out;
}

}  // namespace mdm
