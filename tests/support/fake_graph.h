// A device's graphs, emulated on the CPU: recording computes nothing, and a replay writes into the same memory as the
// last one.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "mdm/models/graphed_forward.h"

namespace mdm::testing {

/// What the graphs of a test were asked for, and what shall go wrong.
struct FakeDevice {
  std::vector<std::string> calls;  ///< "warm_up", "record", "replay" and "free", each with its graph's number
  int graphs = 0;
  std::string throws_at;   ///< one of these words
  bool wrong_bit = false;  ///< replays give another last bit of one number
  bool frozen = false;     ///< replays do again what the recorded call did, whatever is in the inputs now

  GraphMaker maker();
};

class FakeGraph final : public DeviceGraph {
 public:
  explicit FakeGraph(FakeDevice& device) : device_(device), number_(device.graphs++) {}
  ~FakeGraph() override { device_.calls.push_back("free " + std::to_string(number_)); }

  std::vector<at::Tensor> warm_up(const Work& work) override {
    note("warm_up");
    outputs_ = work();
    return outputs_;
  }

  void record(const Work& work) override {
    for (at::Tensor& t : outputs_) t.fill_(NAN);  // the memory of the warm-up is that of the graph
    outputs_ = work();
    for (const at::Tensor& t : outputs_) recorded_.push_back(t.clone());
    for (at::Tensor& t : outputs_) t.fill_(NAN);
    work_ = work;
    note("record");
  }

  const std::vector<at::Tensor>& replay() override {
    note("replay");
    const std::vector<at::Tensor> made = device_.frozen ? recorded_ : work_();
    for (size_t i = 0; i < made.size(); ++i) outputs_[i].copy_(made[i]);
    if (device_.wrong_bit) outputs_.back().view(at::kInt).as_strided({1}, {1}).bitwise_xor_(1);
    return outputs_;
  }

 private:
  void note(const std::string& call) {
    device_.calls.push_back(call + " " + std::to_string(number_));
    if (call == device_.throws_at) throw std::runtime_error("no " + call + " here\nand a list of calls");
  }

  FakeDevice& device_;
  int number_;
  Work work_;
  std::vector<at::Tensor> outputs_, recorded_;
};

inline GraphMaker FakeDevice::maker() {
  return [this] { return std::make_unique<FakeGraph>(*this); };
}

}  // namespace mdm::testing
