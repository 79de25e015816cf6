#include "training/gradient_exchange.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "mdm/core/error.h"

namespace mdm {
struct GradientExchange::Impl {
  struct Bucket {
    int64_t first = 0, count = 0;  // elements
    size_t parameters = 0;         // that lie in it
    size_t missing = 0;            // ... whose gradient isn't there yet
    at::Tensor wire;               // what is summed: a view of the gradients, or a rounded copy
    std::unique_ptr<ProcessGroup::Pending> pending;
  };

  ParameterArena& arena;
  ProcessGroup& group;
  Options options;
  at::Tensor gradients;           // flat
  std::vector<size_t> bucket_of;  // per parameter
  std::vector<Bucket> buckets;
  std::vector<int64_t> order;  // in which buckets are sent
  std::vector<int64_t> ready;  // ... became ready, in this exchange
  size_t next = 0;             // position in `order`
  bool open = false, learned = false;
  Traffic traffic;

  Impl(ParameterArena& a, ProcessGroup& g, const Options& o) : arena(a), group(g), options(o) {}
  void cut();
  void is_ready(size_t parameter);
  void send(Bucket& bucket, size_t number);
  void send_those_ready();
  void learn_order();
};

namespace {

// One slot per parameter: whoever sets another hook takes this one's place.
class GradientHook : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit GradientHook(std::function<void()> call) : call_(std::move(call)) {}
  void operator()(const at::Tensor& /*parameter*/) override { call_(); }

 private:
  std::function<void()> call_;
};

}  // namespace

void GradientExchange::Impl::cut() {
  const std::vector<ParameterArena::Range> ranges = arena.trained_ranges();
  bucket_of.resize(ranges.size());
  const int64_t most = std::max<int64_t>(options.bucket_bytes / static_cast<int64_t>(gradients.element_size()), 1);
  std::vector<size_t> by_place(ranges.size());
  for (size_t i = 0; i < by_place.size(); ++i) by_place[i] = i;
  std::sort(by_place.begin(), by_place.end(), [&](size_t a, size_t b) { return ranges[a].first < ranges[b].first; });
  // A bucket ends where the next parameter would make it larger than it may be; a parameter is never cut.
  for (size_t k = 0; k < by_place.size(); ++k) {
    const size_t parameter = by_place[k];
    const int64_t first = ranges[parameter].first;
    const int64_t end = k + 1 < by_place.size() ? ranges[by_place[k + 1]].first : gradients.numel();
    if (buckets.empty() || end - buckets.back().first > most) {
      buckets.emplace_back();
      buckets.back().first = first;
    }
    Bucket& bucket = buckets.back();
    bucket.count = end - bucket.first;
    ++bucket.parameters;
    bucket_of[parameter] = buckets.size() - 1;
  }
  for (size_t i = buckets.size(); i-- > 0;) order.push_back(static_cast<int64_t>(i));
}

void GradientExchange::Impl::is_ready(size_t parameter) {
  if (!open) return;
  const size_t number = bucket_of[parameter];
  Bucket& bucket = buckets[number];
  if (bucket.missing == 0) fail("a parameter got a second gradient in one backward pass, after it was sent");
  if (--bucket.missing > 0) return;
  ready.push_back(static_cast<int64_t>(number));
  send_those_ready();
}

void GradientExchange::Impl::send_those_ready() {
  for (; next < order.size(); ++next) {
    const auto number = static_cast<size_t>(order[next]);
    if (buckets[number].missing > 0) return;
    send(buckets[number], number);
  }
}

void GradientExchange::Impl::send(Bucket& bucket, size_t number) {
  const c10::NoGradGuard no_grad;
  const at::Tensor part = gradients.narrow(0, bucket.first, bucket.count);
  bucket.wire = options.reduce == at::kFloat ? part : part.to(options.reduce);
  bucket.pending = group.begin_sum(bucket.wire, concat("sum of gradients ", number + 1, " of ", buckets.size()));
  ++traffic.collectives;
  traffic.bytes += bucket.wire.nbytes();
}

void GradientExchange::Impl::learn_order() {
  learned = true;
  for (const int64_t number : order) {
    if (std::find(ready.begin(), ready.end(), number) == ready.end()) ready.push_back(number);
  }
  at::Tensor first = at::tensor(ready, at::kLong).to(gradients.device());
  group.broadcast(first, "order of gradients");
  first = first.to(at::kCPU);
  order.assign(first.const_data_ptr<int64_t>(), first.const_data_ptr<int64_t>() + first.numel());
}

GradientExchange::GradientExchange(ParameterArena& arena, ProcessGroup& group, const Options& options)
    : impl_(std::make_unique<Impl>(arena, group, options)) {
  impl_->gradients = arena.flat_gradients();
  impl_->cut();
  const std::vector<at::Tensor> parameters = arena.trained_parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameters[i],
                                                   std::make_unique<GradientHook>([this, i] { impl_->is_ready(i); }));
  }
}

GradientExchange::~GradientExchange() {
  for (const at::Tensor& parameter : impl_->arena.trained_parameters()) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
  }
}

void GradientExchange::begin() {
  Impl& e = *impl_;
  for (Impl::Bucket& bucket : e.buckets) bucket.missing = bucket.parameters;
  e.ready.clear();
  e.next = 0;
  e.open = true;
}

void GradientExchange::finish() {
  Impl& e = *impl_;
  if (!e.open) begin();
  e.open = false;
  for (; e.next < e.order.size(); ++e.next) {
    const auto number = static_cast<size_t>(e.order[e.next]);
    e.send(e.buckets[number], number);
  }
  const c10::NoGradGuard no_grad;
  for (Impl::Bucket& bucket : e.buckets) {
    bucket.pending->wait();
    bucket.pending.reset();
    if (e.options.reduce != at::kFloat) e.gradients.narrow(0, bucket.first, bucket.count).copy_(bucket.wire);
    bucket.wire = at::Tensor();
  }
  if (!e.learned) e.learn_order();
}

const GradientExchange::Traffic& GradientExchange::traffic() const { return impl_->traffic; }
size_t GradientExchange::buckets() const { return impl_->buckets.size(); }

}  // namespace mdm
