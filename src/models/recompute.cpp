#include "models/recompute.h"

#include <ATen/core/ivalue.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace mdm {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// One call of a stage. What gradients flow through stands in a list: x, the time embedding, keys and values
// of the stage's text layers, skip connections.
struct StageCall : torch::CustomClassHolder {
  const Stage* stage = nullptr;
  bool keeps = false;  // on the way down each resnet's output is kept; the last one is the result
  size_t first_text = 0, texts = 0, skips = 0;
  at::Tensor mask;
  std::string name;
  ForwardContext context;

  variable_list run(at::TensorList tensors, const ForwardContext& with) const {
    std::vector<ops::KeyValue> keys_values(first_text + texts);
    for (size_t i = 0; i < texts; ++i) keys_values[first_text + i] = {tensors[2 + 2 * i], tensors[3 + 2 * i]};
    std::vector<at::Tensor> kept;
    std::vector<at::Tensor> skipped(tensors.end() - static_cast<std::ptrdiff_t>(skips), tensors.end());
    StageInputs in;
    in.temb = tensors[1];
    in.keys_values = texts > 0 ? &keys_values : nullptr;
    in.mask = mask;
    in.context = &with;
    in.name = with.probe == nullptr ? "" : name;
    at::Tensor out = stage->forward(tensors[0], in, keeps ? &kept : nullptr, skips > 0 ? &skipped : nullptr);
    return keeps ? kept : variable_list{out};
  }
};

struct Recomputed : torch::autograd::Function<Recomputed> {
  static variable_list forward(AutogradContext* context, const c10::intrusive_ptr<StageCall>& call,
                               at::TensorList tensors) {
    context->save_for_backward(tensors.vec());
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    context->set_materialize_grads(false);
    variable_list out = call->run(tensors, call->context);
    call->context.probe = nullptr;
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto holder = context->saved_data["call"].toCapsule();
    const auto& call = static_cast<const StageCall&>(*holder);
    variable_list inputs;
    for (const at::Tensor& saved : context->get_saved_variables()) {
      inputs.push_back(saved.detach().set_requires_grad(saved.requires_grad()));
    }
    variable_list outputs, wanted;
    {
      const c10::AutoGradMode record(true);
      const variable_list all = call.run(inputs, call.context);
      for (size_t i = 0; i < all.size(); ++i) {
        if (!gradients[i].defined() || !all[i].requires_grad()) continue;
        outputs.push_back(all[i]);
        wanted.push_back(gradients[i]);
      }
    }
    if (!outputs.empty()) torch::autograd::backward(outputs, wanted);
    variable_list out = {at::Tensor()};  // of the call itself
    for (const at::Tensor& input : inputs) out.push_back(input.grad());
    return out;
  }
};

}  // namespace

at::Tensor forward_recomputed(const Stage& stage, const at::Tensor& x, const StageInputs& in,
                              std::vector<at::Tensor>* kept, std::vector<at::Tensor>* skips) {
  auto call = c10::make_intrusive<StageCall>();
  call->stage = &stage;
  call->keeps = kept != nullptr;
  call->first_text = stage.options().first_text_layer;
  call->texts = in.keys_values != nullptr ? stage.text_layers() : 0;
  call->skips = skips != nullptr ? stage.options().resnets.size() : 0;
  call->mask = in.mask;
  call->name = in.name;
  call->context = *in.context;
  std::vector<at::Tensor> tensors = {x, in.temb};
  for (size_t i = 0; i < call->texts; ++i) {
    const ops::KeyValue& text = (*in.keys_values)[call->first_text + i];
    tensors.push_back(text.key);
    tensors.push_back(text.value);
  }
  if (skips != nullptr) {
    const auto first = skips->end() - static_cast<std::ptrdiff_t>(call->skips);
    tensors.insert(tensors.end(), first, skips->end());
    skips->erase(first, skips->end());
  }
  const variable_list out = Recomputed::apply(call, at::TensorList(tensors));
  if (kept != nullptr) kept->insert(kept->end(), out.begin(), out.end());
  return out.back();
}

}  // namespace mdm
