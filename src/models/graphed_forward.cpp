// When to record, when to replay, and the comparison that decides whether a graph is used at all.
#include "mdm/models/graphed_forward.h"

#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/core/log.h"

namespace mdm {
namespace {

constexpr size_t kMostRecordings = 2;

bool same_form(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.strides() == b.strides() && a.scalar_type() == b.scalar_type() &&
         a.device() == b.device();
}

// The same memory, not only the same numbers: a graph reads where it was recorded.
bool same_tensors(const Conditioning& a, const Conditioning& b) {
  const auto same = [](const at::Tensor& s, const at::Tensor& t) { return s.is_same(t); };
  const auto same_pair = [&](const ops::KeyValue& s, const ops::KeyValue& t) {
    return same(s.key, t.key) && same(s.value, t.value);
  };
  const auto same_level = [&](const std::vector<ops::KeyValue>& s, const std::vector<ops::KeyValue>& t) {
    return std::equal(s.begin(), s.end(), t.begin(), t.end(), same_pair);
  };
  return same(a.pooled, b.pooled) && same(a.text, b.text) && same(a.mask, b.mask) &&
         std::equal(a.micro.begin(), a.micro.end(), b.micro.begin(), b.micro.end(), same) &&
         std::equal(a.keys_values.begin(), a.keys_values.end(), b.keys_values.begin(), b.keys_values.end(), same_level);
}

// Bits, so that NaNs equal themselves; a model's outputs are float32.
bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return same_form(a, b) && a.scalar_type() == at::kFloat && a.view(at::kInt).equal(b.view(at::kInt));
}

std::vector<at::Tensor> copies(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> out;
  for (const at::Tensor& t : tensors) out.push_back(t.clone());
  return out;
}

// Without the list of calls that LibTorch appends.
std::string first_line(const std::string& text) { return printable(text.substr(0, text.find('\n')), 400); }

}  // namespace

struct GraphedForward::Recording {
  std::vector<at::Tensor> x_t;
  at::Tensor times;
  Conditioning conditioning;
  bool compared = false;
  std::unique_ptr<DeviceGraph> graph;  // the last member: it goes before the memory that it reads
};

GraphedForward::GraphedForward(const UNet& model, GraphMaker& make, int64_t calls)
    : model_(&model), make_(&make), calls_(calls) {}
GraphedForward::~GraphedForward() = default;

std::vector<at::Tensor> GraphedForward::operator()(const std::vector<at::Tensor>& x_t, const at::Tensor& times,
                                                   const Conditioning& conditioning, const ForwardContext& context) {
  const bool possible = *make_ && calls_ >= kFewestCalls && context.probe == nullptr && context.dropout == nullptr &&
                        !c10::GradMode::is_enabled() && !model_->is_training();
  Recording* known = possible ? find(x_t, times, conditioning) : nullptr;
  if (known != nullptr || (possible && recordings_.size() < kMostRecordings)) {
    try {
      return graphed(x_t, times, conditioning, known);
    } catch (const std::exception& error) {  // also LibTorch's, which are no Error
      give_up(error.what());
    }
  }
  return model_->forward(x_t, times, conditioning, context);
}

std::vector<at::Tensor> GraphedForward::graphed(const std::vector<at::Tensor>& x_t, const at::Tensor& times,
                                                const Conditioning& conditioning, Recording* known) {
  if (known == nullptr) {
    auto fresh = std::make_unique<Recording>();
    for (const at::Tensor& x : x_t) fresh->x_t.push_back(at::empty_like(x).copy_(x));
    fresh->times = at::empty_like(times).copy_(times);
    fresh->conditioning = conditioning;
    fresh->graph = (*make_)();
    const DeviceGraph::Work work = [model = model_, in = fresh.get()] {
      return model->forward(in->x_t, in->times, in->conditioning);
    };
    std::vector<at::Tensor> out = copies(fresh->graph->warm_up(work));
    fresh->graph->record(work);
    recordings_.push_back(std::move(fresh));
    return out;
  }
  for (size_t i = 0; i < x_t.size(); ++i) known->x_t[i].copy_(x_t[i]);
  known->times.copy_(times);
  std::vector<at::Tensor> out = copies(known->graph->replay());
  if (known->compared) return out;
  // Not in the call that records: a number that the host had read then, and the graph has kept, would be right.
  std::vector<at::Tensor> expected = model_->forward(x_t, times, conditioning);
  known->compared = std::equal(out.begin(), out.end(), expected.begin(), expected.end(), same_bits);
  if (known->compared) {
    log_debug("a CUDA graph has the bits of the model's own run, and is used from now on");
  } else {
    give_up("what it computes differs from the model's own run");
  }
  return expected;
}

GraphedForward::Recording* GraphedForward::find(const std::vector<at::Tensor>& x_t, const at::Tensor& times,
                                                const Conditioning& conditioning) const {
  for (const auto& recording : recordings_) {
    if (std::equal(x_t.begin(), x_t.end(), recording->x_t.begin(), recording->x_t.end(), same_form) &&
        same_form(times, recording->times) && same_tensors(conditioning, recording->conditioning)) {
      return recording.get();
    }
  }
  return nullptr;
}

void GraphedForward::give_up(const std::string& why) {
  *make_ = nullptr;
  recordings_.clear();
  log_warning("sampling goes on without a CUDA graph, which is slower and gives the same pictures: ", first_line(why));
}

}  // namespace mdm
