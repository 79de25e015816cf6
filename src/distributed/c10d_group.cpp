// Several processes, over c10d.
#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <utility>
#include <vector>

#include "distributed/backend.h"
#include "distributed/liveness.h"
#include "distributed/rendezvous.h"
#include "distributed/sockets.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/distributed/process_group.h"

namespace mdm {
namespace {

class C10dGroup : public ProcessGroup {
 public:
  C10dGroup(const Launch& launch, const DistributedConfig& config, const Options& options)
      : launch_(launch), rendezvous_(launch, config), liveness_(rendezvous_.second_store(), liveness(config, options)) {
    const char* engine = options.device ? connect(config, *options.device) : "texts only";
    log_info("process ", launch.rank, " of ", launch.world_size, " on ", rendezvous_.host(launch.rank), ", by ",
             launch.source, ", ", engine);
  }

  ~C10dGroup() override {
    if (failed_ && backend_) abort_nccl_backend(*backend_);
    backend_.reset();  // the others' collectives end
    try {
      part();
    } catch (const std::exception&) {
      // The store is gone already.
    }
  }

 private:
  // With rank 0 goes the store: it stays until the others are done with it, or don't come.
  void part() {
    constexpr auto kPause = std::chrono::milliseconds(20);
    constexpr auto kLongest = std::chrono::seconds(30), kAfterFailure = std::chrono::seconds(5);
    if (failed_ && rank() != 0) return;  // the store may be what doesn't answer
    c10d::Store& store = *rendezvous_.store();
    store.add("parted", 1);
    if (rank() != 0) return;
    const auto until = std::chrono::steady_clock::now() + (failed_ ? kAfterFailure : kLongest);
    while (store.add("parted", 0) < size() && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(kPause);
    }
  }

  // Makes the engine of collectives; its name.
  const char* connect(const DistributedConfig& config, at::Device device) {
    BackendRequest request;
    request.store = rendezvous_.store();
    request.rank = launch_.rank;
    request.world_size = launch_.world_size;
    request.device = device;
    request.timeout = std::chrono::milliseconds(static_cast<int64_t>(config.collective_timeout * 1000));
    const bool nccl =
        config.backend == CollectiveBackend::kNccl || (config.backend == CollectiveBackend::kAuto && device.is_cuda());
    if (!nccl) {
      // The address from which rank 0 is reached is one where others reach this machine. Who has met over a file
      // doesn't know rank 0's: then the host's name says it.
      if (launch_.all_local()) {
        request.address = "127.0.0.1";
      } else if (config.rendezvous_file.empty()) {
        request.address = own_address_towards(launch_.master_addr, launch_.master_port);
      }
    }
    guarded("the connection of all processes", [&] {
      backend_ = nccl ? make_nccl_backend(request) : make_gloo_backend(request);
      backend_->barrier()->wait();
    });
    return nccl ? "NCCL" : "Gloo";
  }

 public:
  int64_t rank() const override { return launch_.rank; }
  int64_t size() const override { return launch_.world_size; }

  std::unique_ptr<Pending> begin_sum(const at::Tensor& values, const std::string& what) override {
    return begin(Collective::kAllReduce, values, what, [&] {
      std::vector<at::Tensor> tensors = {values};
      return backend_->allreduce(tensors);
    });
  }

  std::unique_ptr<Pending> begin_reduce_scatter(const at::Tensor& values, const std::string& what) override {
    return begin(Collective::kReduceScatter, values, what, [&] {
      at::Tensor whole = values, part = own_part(values);
      return backend_->_reduce_scatter_base(part, whole);
    });
  }

  std::unique_ptr<Pending> begin_all_gather(const at::Tensor& values, const std::string& what) override {
    return begin(Collective::kAllGather, values, what, [&] {
      at::Tensor whole = values, part = own_part(values);
      return backend_->_allgather_base(whole, part);
    });
  }

  void broadcast(const at::Tensor& values, const std::string& what) override {
    begin(Collective::kBroadcast, values, what, [&] {
      std::vector<at::Tensor> tensors = {values};
      return backend_->broadcast(tensors);
    })->wait();
  }

  Traffic traffic(Collective kind) const override { return traffic_[static_cast<size_t>(kind)]; }

  std::vector<std::string> gather(const std::string& mine, const std::string& what) override {
    std::vector<std::string> all;
    guarded(what, [&] {
      const std::string prefix = concat("gather/", gathers_++, "/");
      c10d::Store& store = *rendezvous_.store();
      store.set(prefix + std::to_string(rank()), std::vector<uint8_t>(mine.begin(), mine.end()));
      for (int64_t other = 0; other < size(); ++other) {
        const std::vector<uint8_t> bytes = store.get(prefix + std::to_string(other));  // waits for it
        all.emplace_back(bytes.begin(), bytes.end());
      }
    });
    return all;
  }

  std::string from_first(const std::string& mine, const std::string& what) override {
    std::string text = mine;
    guarded(what, [&] {
      const std::string key = concat("first/", firsts_++);
      c10d::Store& store = *rendezvous_.store();
      if (rank() == 0) {
        store.set(key, std::vector<uint8_t>(mine.begin(), mine.end()));
      } else {
        const std::vector<uint8_t> bytes = store.get(key);  // waits for it
        text.assign(bytes.begin(), bytes.end());
      }
    });
    return text;
  }

  void wait_for_others(const std::string& what) override {
    constexpr auto kPause = std::chrono::milliseconds(100);
    constexpr auto kBetweenLooks = std::chrono::seconds(10);
    std::string lost;
    guarded(
        what,
        [&] {
          c10d::Store& store = *rendezvous_.store();
          const std::string key = concat("arrived/", waits_++);
          store.add(key, 1);
          auto looked = std::chrono::steady_clock::now();
          while (lost.empty() && store.add(key, 0) < size()) {
            std::this_thread::sleep_for(kPause);
            if (std::chrono::steady_clock::now() - looked < kBetweenLooks) continue;
            lost = liveness_.lost();
            looked = std::chrono::steady_clock::now();
          }
        },
        /*limited=*/false);
    if (!lost.empty()) fail<DistributedError>(self(), ": ", what, " failed: ", lost);
  }

  void set_place(const std::string& place) override { liveness_.set_place(place); }
  void leave(const std::string& why) override {
    failed_ = true;
    liveness_.leave(concat(self(), " has ended: ", why));
  }

 private:
  class Started : public Pending {
   public:
    Started(C10dGroup& group, c10::intrusive_ptr<c10d::Work> work, std::string what)
        : group_(group), work_(std::move(work)), what_(std::move(what)) {}
    void wait() override {
      group_.guarded(what_, [this] { work_->wait(); });
    }

   private:
    C10dGroup& group_;
    c10::intrusive_ptr<c10d::Work> work_;
    std::string what_;
  };

  template <typename Start>
  std::unique_ptr<Pending> begin(Collective kind, const at::Tensor& values, const std::string& what,
                                 const Start& start) {
    c10::intrusive_ptr<c10d::Work> work;
    guarded(what, [&] { work = start(); });
    Traffic& traffic = traffic_[static_cast<size_t>(kind)];
    ++traffic.calls;
    traffic.bytes += values.nbytes();
    return std::make_unique<Started>(*this, std::move(work), what);
  }

  at::Tensor own_part(const at::Tensor& values) const {
    const int64_t count = values.numel() / size();
    return values.view(-1).narrow(0, rank() * count, count);
  }

  Liveness::Options liveness(const DistributedConfig& config, const Options& options) {
    Liveness::Options out;
    out.rank = launch_.rank;
    out.world_size = launch_.world_size;
    for (int64_t rank = 0; rank < launch_.world_size; ++rank) out.hosts.push_back(rendezvous_.host(rank));
    out.on_stuck = options.on_stuck;
    out.collective_timeout = std::chrono::milliseconds(static_cast<int64_t>(config.collective_timeout * 1000));
    return out;
  }

  std::string self() const {
    return concat("rank ", launch_.rank, " on ", rendezvous_.host(launch_.rank), " at ", liveness_.place());
  }

  // c10d throws what its parts throw: c10::Error, and Gloo's own kinds.
  template <typename Action>
  void guarded(const std::string& what, const Action& action, bool limited = true) {
    std::string cause;
    try {
      std::optional<Liveness::Waiting> waiting;
      if (limited) waiting.emplace(liveness_, what);
      return action();
    } catch (const Error&) {
      throw;
    } catch (const c10::Error& error) {
      cause = error.what_without_backtrace();
    } catch (const std::exception& error) {
      cause = error.what();
    }
    failed_ = true;
    const std::string diagnosis = liveness_.diagnosis();
    fail<DistributedError>(self(), ": ", what, " failed: ", diagnosis, diagnosis.empty() ? "" : " (",
                           printable(cause, 300), diagnosis.empty() ? "" : ")");
  }

  Launch launch_;
  Rendezvous rendezvous_;
  Liveness liveness_;
  c10::intrusive_ptr<c10d::Backend> backend_;
  uint64_t gathers_ = 0, firsts_ = 0, waits_ = 0;
  std::array<Traffic, 4> traffic_;  // by Collective
  bool failed_ = false;
};

}  // namespace

std::shared_ptr<ProcessGroup> ProcessGroup::join(const Launch& launch, const DistributedConfig& config,
                                                 const Options& options) {
  if (launch.world_size == 1) return std::make_shared<ProcessGroup>();
  return std::make_shared<C10dGroup>(launch, config, options);
}

}  // namespace mdm
