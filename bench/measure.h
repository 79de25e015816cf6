// What the measuring programs share: options, inputs, turns, and the head of their reports.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/config/command_line.h"

namespace mdm::bench {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start);

/// A whole number from `least` on that an option gives, or `otherwise`. ConfigError.
int64_t number(const ParsedCommandLine& command_line, const std::string& name, int64_t least, int64_t otherwise);

/// Normal numbers that depend on `sample` and `layer` alone.
at::Tensor normal(uint64_t sample, uint32_t layer, at::IntArrayRef shape);

/// Width of the text that the weights were trained with; <= 0: none.
int64_t text_width(const TensorFile& file, size_t levels);

double least(const std::vector<double>& values);
double median(std::vector<double> values);

double cpu_seconds();  // of all threads so far

struct Timings {
  std::vector<double> seconds, cpu;  ///< CPU time is that of all threads, for machines that do other work as well
};

/// Runs the steps: with `turns` one when a line "step" comes in, else `count` one after the other.
Timings timed_steps(const std::function<void()>& step, int64_t count, bool turns);

/// Name, versions, machine, threads.
Json report_head(const std::string& program);
/// Adds the timings and their least and middle values.
void add_timings(Json& report, const Timings& timings);

}  // namespace mdm::bench
