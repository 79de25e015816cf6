#include "op_profile.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <map>
#include <sstream>

#include "mdm/ops/layers.h"

namespace mdm::bench {
namespace {

struct Open : at::ObserverContext {
  Clock::time_point start;
  double inside = 0;  // seconds of the operations it called
  Open* outer = nullptr;
  std::vector<at::Tensor> in;  // at the end of a call its inputs may be gone
};

struct Recorder {
  std::map<std::pair<std::string, std::string>, OpCost> costs;
  Open* innermost = nullptr;
  double covered = 0;  // seconds of the outermost operations
};

thread_local Recorder* recorder = nullptr;

std::string text_of(at::IntArrayRef sizes) {
  std::string out;
  for (int64_t size : sizes) out += (out.empty() ? "" : "x") + std::to_string(size);
  return out.empty() ? "1" : out;
}

template <typename Values>
std::vector<at::Tensor> tensors_of(const Values& values) {
  std::vector<at::Tensor> out;
  for (const c10::IValue& value : values) {
    if (value.isTensor() && value.toTensor().defined()) out.push_back(value.toTensor());
    if (!value.isTensorList()) continue;
    for (const at::Tensor& t : value.toTensorVector()) {
      if (t.defined()) out.push_back(t);
    }
  }
  return out;
}

bool starts_with(const std::string& text, const std::string& part) { return text.compare(0, part.size(), part) == 0; }

// Multiplications and additions of the operations that a model spends them in; others count as 0.
double flop_of(const std::string& name, const std::vector<at::Tensor>& in, const std::vector<at::Tensor>& out) {
  if (name == "mdm::attention" && !in.empty()) {  // (B, N, 3 C), and the text's keys (B, heads, L, C / heads)
    const auto keys = static_cast<double>(in[0].size(1) + (in.size() > 1 ? in[1].size(2) : 0));
    return 4 * static_cast<double>(in[0].numel()) / 3 * keys;
  }
  if (out.empty()) return 0;
  const auto numel = static_cast<double>(out[0].numel());
  if (name == "mkldnn::_convolution_pointwise" || name == "mkldnn::_convolution_pointwise_" ||
      name == "aten::mkldnn_convolution" || name == "aten::thnn_conv2d" || name == "aten::_slow_conv2d_forward") {
    // The weight is the second tensor, or the third behind the one that is added.
    const size_t at = in.size() > 2 && in[2].dim() == 4 ? 2 : 1;
    if (in.size() <= at || in[at].dim() != 4) return 0;
    const auto w = in[at].sizes();
    return 2 * numel * static_cast<double>(w[1] * w[2] * w[3]);
  }
  if (name == "aten::mkldnn_convolution_backward" || name == "aten::convolution_backward") {
    if (in.size() < 3 || in[2].dim() != 4) return 0;
    const auto w = in[2].sizes();
    return 4 * static_cast<double>(in[0].numel()) * static_cast<double>(w[1] * w[2] * w[3]);
  }
  if (name == "mkldnn::_linear_pointwise" || name == "mkldnn::_linear_pointwise_" || name == "aten::mm" ||
      name == "aten::bmm" || name == "aten::_addmm_activation") {
    return 2 * numel * static_cast<double>(in.at(0).sizes().back());
  }
  if (name == "aten::addmm" || name == "aten::addmm_") return 2 * numel * static_cast<double>(in.at(1).sizes().back());
  if (starts_with(name, "aten::_scaled_dot_product_flash_attention_for_cpu") && in.size() >= 3) {
    const double passes = name.find("backward") == std::string::npos ? 4 : 10;
    const at::Tensor &q = in[passes == 4 ? 0 : 1], &k = in[passes == 4 ? 1 : 2];
    return passes * static_cast<double>(q.numel()) * static_cast<double>(k.size(2));
  }
  return 0;
}

bool is_view(const std::string& name) {
  static const char* const kViews[] = {"aten::view",           "aten::permute", "aten::transpose",  "aten::reshape",
                                       "aten::narrow",         "aten::slice",   "aten::as_strided", "aten::unsqueeze",
                                       "aten::select",         "aten::detach",  "aten::alias",      "aten::expand",
                                       "aten::_reshape_alias", "aten::empty",   "aten::empty_like", "aten::unbind",
                                       "aten::chunk",          "aten::split",   "aten::t"};
  return std::any_of(std::begin(kViews), std::end(kViews), [&](const char* view) { return name == view; });
}

double bytes_of(const std::vector<at::Tensor>& tensors) {
  double sum = 0;
  for (const at::Tensor& t : tensors) sum += static_cast<double>(t.numel()) * static_cast<double>(t.element_size());
  return sum;
}

std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
  auto open = std::make_unique<Open>();
  open->in = tensors_of(function.inputs());
  if (recorder != nullptr) {
    open->outer = recorder->innermost;
    recorder->innermost = open.get();
  }
  open->start = Clock::now();
  return open;
}

void on_end(const at::RecordFunction& function, at::ObserverContext* context) {
  auto* open = static_cast<Open*>(context);
  const double seconds = seconds_since(open->start);
  if (recorder == nullptr) return;
  recorder->innermost = open->outer;
  (open->outer != nullptr ? open->outer->inside : recorder->covered) += seconds;
  const std::vector<at::Tensor>& in = open->in;
  const std::vector<at::Tensor> out = tensors_of(function.outputs());
  const std::string name = function.name();
  std::string shapes;
  for (const at::Tensor& t : in) shapes += (shapes.empty() ? "" : " ") + text_of(t.sizes());
  if (!out.empty()) shapes += " -> " + text_of(out[0].sizes());
  OpCost& cost = recorder->costs[{name, shapes}];
  cost.name = name;
  cost.shapes = shapes;
  ++cost.calls;
  cost.seconds += seconds - open->inside;
  cost.flop += flop_of(name, in, out);
  if (name == "mdm::group_norm") {
    cost.bytes += 3 * bytes_of(in);  // read for the statistics, read again, written
  } else if (!is_view(name) && open->inside == 0) {
    cost.bytes += bytes_of(in) + bytes_of(out);
  }
}

struct Rate {
  double limit_seconds;  // the least this machine would need
  const char* bound;
};

Rate limit_of(const OpCost& cost, const MachineLimits& limits, bool bf16) {
  const bool convolution =
      cost.name.find("convolution") != std::string::npos && cost.shapes.find("x3x3") != std::string::npos;
  const double rate =
      convolution ? (bf16 ? limits.conv_bf16 : limits.conv_fp32) : (bf16 ? limits.gemm_bf16 : limits.gemm_fp32);
  const double compute = cost.flop / rate, traffic = cost.bytes / limits.bandwidth;
  return compute >= traffic ? Rate{compute, "compute"} : Rate{traffic, "memory"};
}

double best_seconds(const std::function<void()>& work, int rounds) {
  work();
  double best = 1e30;
  for (int i = 0; i < rounds; ++i) {
    const auto start = Clock::now();
    work();
    best = std::min(best, seconds_since(start));
  }
  return best;
}

double gemm_rate(at::ScalarType type) {
  constexpr int64_t kSide = 2048;
  const at::Tensor a = at::rand({kSide, kSide}).to(type), b = at::rand({kSide, kSide}).to(type);
  return 2.0 * kSide * kSide * kSide / best_seconds([&] { at::mm(a, b); }, 5);
}

double conv_rate(at::ScalarType type) {
  double best = 0;
  for (const auto& [channels, side] : {std::pair<int64_t, int64_t>{256, 64}, {512, 32}, {128, 128}}) {
    const at::Tensor x = at::rand({2, channels, side, side}).to(type).contiguous(at::MemoryFormat::ChannelsLast);
    Conv2d layer(channels, channels, 3, 1, 1);
    layer.init(at::detail::createCPUGenerator(1));
    layer.to(type);
    if (type == at::kBFloat16) layer.pack(x.sizes());  // in float32 that may be Winograd's, of fewer products
    const double seconds = best_seconds([&] { layer.forward(x); }, 5);
    best = std::max(best, 18.0 * static_cast<double>(x.numel() * channels) / seconds);
  }
  return best;
}

double bandwidth() {
  const at::Tensor from = at::rand({64 << 20}), to = at::empty_like(from);  // 256 MiB each
  return 2.0 * static_cast<double>(from.nbytes()) / best_seconds([&] { to.copy_(from); }, 5);
}

}  // namespace

std::vector<OpCost> profile_of(const std::function<void()>& work) {
  Recorder mine;
  recorder = &mine;
  const auto handle = at::addThreadLocalCallback(
      at::RecordFunctionCallback(on_start, on_end)
          .needsInputs(true)
          .needsOutputs(true)
          .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION, at::RecordScope::USER_SCOPE}));
  const auto start = Clock::now();
  work();
  const double seconds = seconds_since(start);
  at::removeCallback(handle);
  recorder = nullptr;
  std::vector<OpCost> out;
  for (auto& [key, cost] : mine.costs) out.push_back(std::move(cost));
  OpCost between;
  between.name = "(between operations)";
  between.calls = 1;
  between.seconds = seconds - mine.covered;
  out.push_back(between);
  std::sort(out.begin(), out.end(), [](const OpCost& a, const OpCost& b) { return a.seconds > b.seconds; });
  return out;
}

MachineLimits measure_limits() {
  const c10::InferenceMode inference;
  MachineLimits limits;
  limits.gemm_fp32 = gemm_rate(at::kFloat);
  limits.gemm_bf16 = gemm_rate(at::kBFloat16);
  limits.conv_fp32 = conv_rate(at::kFloat);
  limits.conv_bf16 = conv_rate(at::kBFloat16);
  limits.bandwidth = bandwidth();
  return limits;
}

Json to_json(const MachineLimits& limits) {
  return {{"gemm_fp32_flops", limits.gemm_fp32},
          {"gemm_bf16_flops", limits.gemm_bf16},
          {"conv_fp32_flops", limits.conv_fp32},
          {"conv_bf16_flops", limits.conv_bf16},
          {"copy_bytes_per_second", limits.bandwidth}};
}

Json to_json(const std::vector<OpCost>& costs, const MachineLimits& limits, bool bf16) {
  Json out = Json::array();
  for (const OpCost& cost : costs) {
    const Rate rate = limit_of(cost, limits, bf16);
    out.push_back({{"op", cost.name},
                   {"shapes", cost.shapes},
                   {"calls", cost.calls},
                   {"seconds", cost.seconds},
                   {"flop", cost.flop},
                   {"bytes", cost.bytes},
                   {"bound", rate.bound},
                   {"limit_seconds", rate.limit_seconds}});
  }
  return out;
}

std::string to_table(const std::vector<OpCost>& costs, const MachineLimits& limits, bool bf16, size_t most) {
  double all = 0, flop = 0, least = 0;
  for (const OpCost& cost : costs) {
    all += cost.seconds;
    flop += cost.flop;
    least += limit_of(cost, limits, bf16).limit_seconds;
  }
  std::ostringstream out;
  out << std::fixed << std::setprecision(1);
  out << "limits: " << limits.gemm_fp32 / 1e9 << " / " << limits.gemm_bf16 / 1e9 << " GFLOP/s products fp32 / bf16, "
      << limits.conv_fp32 / 1e9 << " / " << limits.conv_bf16 / 1e9 << " convolutions, " << limits.bandwidth / 1e9
      << " GB/s copied\n"
      << "all: " << all * 1e3 << " ms, " << flop / 1e9 << " GFLOP; each op at its limit: " << least * 1e3 << " ms\n\n"
      << "| op | shapes | calls | ms | share | GFLOP/s | GB/s | bound | times its limit |\n"
      << "|---|---|---|---|---|---|---|---|---|\n";
  for (size_t i = 0; i < std::min(most, costs.size()); ++i) {
    const OpCost& cost = costs[i];
    const Rate rate = limit_of(cost, limits, bf16);
    out << "| " << cost.name << " | " << cost.shapes << " | " << cost.calls << " | " << cost.seconds * 1e3 << " | "
        << 100 * cost.seconds / all << " % | " << cost.flop / cost.seconds / 1e9 << " | "
        << cost.bytes / cost.seconds / 1e9 << " | " << (cost.flop + cost.bytes > 0 ? rate.bound : "-") << " | ";
    if (rate.limit_seconds > 0)
      out << std::setprecision(2) << cost.seconds / rate.limit_seconds << std::setprecision(1);
    out << " |\n";
  }
  return out.str();
}

void print_profile(const std::function<void()>& work, bool bf16) {
  constexpr size_t kRows = 400;
  const MachineLimits limits = measure_limits();
  std::cerr << to_table(profile_of(work), limits, bf16, kRows);
}

}  // namespace mdm::bench
