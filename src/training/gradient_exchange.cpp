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
    ParameterArena::Range range;
    size_t parameters = 0;  // that lie in it, whole or in part
    size_t missing = 0;     // ... whose gradient isn't there yet
    at::Tensor wire;        // what is summed: a view of the gradients, or a rounded copy
    std::unique_ptr<ProcessGroup::Pending> pending;
  };

  ParameterArena& arena;
  ProcessGroup& group;
  at::ScalarType reduce;
  at::Tensor gradients;                         // flat
  std::vector<std::vector<size_t>> buckets_of;  // per parameter
  std::vector<Bucket> buckets;
  std::vector<int64_t> order;  // in which buckets are sent
  std::vector<int64_t> ready;  // ... became ready, in this exchange
  size_t next = 0;             // position in `order`
  bool open = false, learned = false;

  Impl(ParameterArena& a, ProcessGroup& g, at::ScalarType r) : arena(a), group(g), reduce(r) {}
  void find_parameters();
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

void GradientExchange::Impl::find_parameters() {
  for (const ParameterArena::Range& range : arena.buckets()) {
    buckets.emplace_back();
    buckets.back().range = range;
  }
  for (const ParameterArena::Range& parameter : arena.trained_ranges()) {
    std::vector<size_t>& in = buckets_of.emplace_back();
    for (size_t i = 0; i < buckets.size(); ++i) {
      const ParameterArena::Range& range = buckets[i].range;
      if (range.first < parameter.first + parameter.count && parameter.first < range.first + range.count) {
        in.push_back(i);
        ++buckets[i].parameters;
      }
    }
  }
  for (size_t i = buckets.size(); i-- > 0;) order.push_back(static_cast<int64_t>(i));
}

void GradientExchange::Impl::is_ready(size_t parameter) {
  if (!open) return;
  for (const size_t number : buckets_of[parameter]) {
    Bucket& bucket = buckets[number];
    if (bucket.missing == 0) fail("a parameter got a second gradient in one backward pass, after it was sent");
    if (--bucket.missing == 0) ready.push_back(static_cast<int64_t>(number));
  }
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
  const at::Tensor part = gradients.narrow(0, bucket.range.first, bucket.range.count);
  bucket.wire = reduce == at::kFloat ? part : part.to(reduce);
  const std::string what = concat("sum of gradients ", number + 1, " of ", buckets.size());
  bucket.pending = arena.divided() ? group.begin_reduce_scatter(bucket.wire, what) : group.begin_sum(bucket.wire, what);
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

GradientExchange::GradientExchange(ParameterArena& arena, ProcessGroup& group, at::ScalarType reduce)
    : impl_(std::make_unique<Impl>(arena, group, reduce)) {
  impl_->gradients = arena.flat_gradients();
  impl_->find_parameters();
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
    if (e.reduce != at::kFloat) {
      const ParameterArena::Range own = e.arena.own_part(bucket.range);
      e.gradients.narrow(0, own.first, own.count)
          .copy_(bucket.wire.narrow(0, own.first - bucket.range.first, own.count));
    }
    bucket.wire = at::Tensor();
  }
  if (!e.learned) e.learn_order();
}

}  // namespace mdm
