#include "measure.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <iostream>

#include "machine.h"
#include "mdm/core/error.h"
#include "mdm/core/random.h"
#include "mdm/core/version.h"

namespace mdm::bench {
namespace {

Json machine_json() {
  const Machine machine = this_machine();
  return {{"cpu", machine.cpu},
          {"instructions", machine.instructions},
          {"cores", machine.cores},
          {"memory_gib", std::round(machine.memory_gib * 10) / 10}};
}

}  // namespace

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

int64_t number(const ParsedCommandLine& command_line, const std::string& name, int64_t least, int64_t otherwise) {
  if (!command_line.has(name)) return otherwise;
  const std::string text = command_line.option(name);
  char* end = nullptr;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || value < least || value > (1LL << 30)) {
    fail<ConfigError>("--", name, ": '", printable(text), "' is not a whole number from ", least, " on");
  }
  return value;
}

at::Tensor normal(uint64_t sample, uint32_t layer, at::IntArrayRef shape) {
  at::Tensor out = at::empty(shape, at::kFloat);
  RandomAddress address;
  address.sample = sample;
  address.layer = layer;
  random_normal(address, 0, out.mutable_data_ptr<float>(), static_cast<size_t>(out.numel()));
  return out;
}

int64_t text_width(const TensorFile& file, size_t levels) {
  std::string prefix;
  for (size_t i = 1; i < levels; ++i) prefix += "inner_unet.";
  for (const char* name : {"lm_proj.weight", "cond_emb.weight"}) {
    if (const TensorEntry* entry = file.find(prefix + name)) return entry->shape.at(1);
  }
  return -1;
}

double least(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::min_element(values.begin(), values.end());
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n == 0 ? 0 : (values[(n - 1) / 2] + values[n / 2]) / 2;
}

Timings timed_steps(const std::function<void()>& step, int64_t count, bool turns) {
  Timings timings;
  const auto once = [&] {
    const auto start = Clock::now();
    const double cpu = cpu_seconds();
    step();
    timings.seconds.push_back(seconds_since(start));
    timings.cpu.push_back(cpu_seconds() - cpu);
  };
  if (turns) {
    std::cout << "{\"ready\": true}" << std::endl;
    for (std::string line; std::getline(std::cin, line) && line == "step";) {
      once();
      std::cout << Json{{"seconds", timings.seconds.back()}, {"cpu_seconds", timings.cpu.back()}}.dump() << std::endl;
    }
  } else {
    for (int64_t i = 0; i < count; ++i) once();
  }
  return timings;
}

Json report_head(const std::string& program) {
  return {{"program", program},
          {"versions", {{"libmdm", version()}, {"torch", TORCH_VERSION}}},
          {"machine", machine_json()},
          {"threads", at::get_num_threads()}};
}

void add_timings(Json& report, const Timings& timings) {
  report["seconds"] = timings.seconds;
  report["min_seconds"] = least(timings.seconds);
  report["median_seconds"] = median(timings.seconds);
  report["min_cpu_seconds"] = least(timings.cpu);
}

}  // namespace mdm::bench
