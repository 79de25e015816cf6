// How processes find each other: a store of keys that rank 0 (or torchrun's agent, or a file) holds, and a roll call.
#pragma once

#include <cstdint>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "mdm/config/distributed_config.h"
#include "mdm/distributed/launch.h"

namespace mdm {

class Rendezvous {
 public:
  // Returns when all processes are there. DistributedError otherwise.
  Rendezvous(const Launch& launch, const DistributedConfig& config);

  const c10::intrusive_ptr<c10d::Store>& store() const { return store_; }
  // A second way to the same store, for another thread.
  c10::intrusive_ptr<c10d::Store> second_store();
  // "gpu07 (process 4711)"
  const std::string& host(int64_t rank) const { return hosts_.at(static_cast<size_t>(rank)); }

  // The first failure that a process has told of, by set_failure(); empty: none. Throws what the store throws.
  static std::string failure(c10d::Store& store);
  static void set_failure(c10d::Store& store, const std::string& text);

 private:
  void open(const DistributedConfig& config);
  void call_the_roll(const DistributedConfig& config);

  Launch launch_;
  c10::intrusive_ptr<c10d::Store> base_, store_;
  std::string prefix_;
  std::vector<std::string> hosts_;
};

}  // namespace mdm
