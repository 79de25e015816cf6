// Processes that work on one thing together: who they are, and what they do all at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mdm/config/distributed_config.h"
#include "mdm/distributed/launch.h"

namespace mdm {

/// This one is alone, and everything it does is the identity; join() makes others.
///
/// All processes call the same collectives in the same order. `what` names one in messages. A collective that fails
/// (a process is gone, hangs or is at another place) throws DistributedError, which names rank, host, step, collective
/// and cause, and who of the others gives no answer; after that the group is of no use any more.
class ProcessGroup {
 public:
  /// A collective under way; its tensors stay untouched until wait() has returned.
  class Pending {
   public:
    virtual ~Pending() = default;
    virtual void wait() {}
  };

  enum class Collective { kAllReduce, kReduceScatter, kAllGather, kBroadcast };
  /// What has been handed to the engine of collectives: calls, and bytes of their tensors.
  struct Traffic {
    uint64_t calls = 0, bytes = 0;
  };

  struct Options {
    std::optional<at::Device> device =
        at::kCPU;  ///< where the tensors of collectives lie; nothing: only texts are shared
    /// Called from another thread when this process must end and doesn't by itself: a collective lasts longer than
    /// its time-out, or another process has failed. An app ends the process here. Empty: nothing is watched.
    std::function<void(const std::string& why)> on_stuck;
  };

  virtual ~ProcessGroup() = default;

  /// Meets the other processes, which begin at about the same time. One process: no network is used. Throws
  /// DistributedError: no answer from rank 0 within connect_timeout, a port in use, two processes with one rank,
  /// processes missing after init_timeout. ConfigError: a backend that this build or machine doesn't have.
  static std::shared_ptr<ProcessGroup> join(const Launch& launch, const DistributedConfig& config,
                                            const Options& options);

  virtual int64_t rank() const { return 0; }
  virtual int64_t size() const { return 1; }

  /// Replaces `values` (contiguous) by the sum over all processes.
  virtual std::unique_ptr<Pending> begin_sum(const at::Tensor& values, const std::string& what);
  void sum(const at::Tensor& values, const std::string& what) { begin_sum(values, what)->wait(); }

  /// The same, but each process gets its own part of the sum only: of size() equal parts of `values` (contiguous,
  /// divisible) the one of its rank. The rest of `values` is undefined then.
  virtual std::unique_ptr<Pending> begin_reduce_scatter(const at::Tensor& values, const std::string& what);
  /// Each process has its own part of `values`, as above, and gets those of the others.
  virtual std::unique_ptr<Pending> begin_all_gather(const at::Tensor& values, const std::string& what);

  /// Gives all processes rank 0's `values` (contiguous).
  virtual void broadcast(const at::Tensor& /*values*/, const std::string& /*what*/) {}

  /// Short texts (up to some kilobytes) of all processes, by rank.
  virtual std::vector<std::string> gather(const std::string& mine, const std::string& /*what*/) { return {mine}; }
  /// Rank 0's text, for all.
  virtual std::string from_first(const std::string& mine, const std::string& /*what*/) { return mine; }
  /// What `action` returns on rank 0, where alone it is called. When it throws there, the others throw
  /// DistributedError with its message.
  std::string first_does(const std::function<std::string()>& action, const std::string& what);

  /// Returns when all have called it: as long as they show signs of life, however long that takes. For what takes each
  /// process another time, and longer than collective_timeout.
  virtual void wait_for_others(const std::string& /*what*/) {}

  virtual Traffic traffic(Collective /*kind*/) const { return {}; }

  /// Where the program is ("step 17"), for messages.
  virtual void set_place(const std::string& /*place*/) {}
  /// Tells the others that this process ends, and why: they then name it instead of a lost connection.
  virtual void leave(const std::string& /*why*/) {}
};

}  // namespace mdm
