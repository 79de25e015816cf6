#include "distributed/rendezvous.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "distributed/sockets.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/core/version.h"

namespace mdm {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

constexpr const char* kFailure = "failure";
constexpr auto kFirstPause = Milliseconds(5), kLongestPause = Milliseconds(500);
constexpr auto kBetweenWords = std::chrono::seconds(15);

Milliseconds milliseconds(double seconds) { return Milliseconds(static_cast<int64_t>(seconds * 1000)); }

std::vector<uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }
std::string text_of(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

std::string host_key(int64_t rank) { return concat("host/", rank); }

std::string own_host() {
  char name[256] = "unknown host";
  (void)::gethostname(name, sizeof name - 1);
  return concat(printable(name), " (process ", ::getpid(), ")");
}

// What must be the same everywhere before anything can be said about anything else.
std::string own_facts(const Launch& launch) { return concat(launch.world_size, " processes, libmdm ", version()); }

}  // namespace

Rendezvous::Rendezvous(const Launch& launch, const DistributedConfig& config) : launch_(launch) {
  try {
    open(config);
    call_the_roll(config);
  } catch (const DistributedError&) {
    // With rank 0 goes the store: the others, who look every half second, are to read there what is wrong.
    if (launch_.rank == 0 && store_) std::this_thread::sleep_for(3 * kLongestPause);
    throw;
  } catch (const c10::Error& error) {
    fail<DistributedError>("rank ", launch.rank,
                           ": the processes don't find together: ", printable(error.what_without_backtrace(), 500));
  }
}

void Rendezvous::open(const DistributedConfig& config) {
  const auto limit = milliseconds(config.connect_timeout);
  if (!config.rendezvous_file.empty()) {
    base_ = c10::make_intrusive<c10d::FileStore>(config.rendezvous_file, static_cast<int>(launch_.world_size));
  } else {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(launch_.master_port);
    options.isServer = launch_.rank == 0 && !launch_.agent_holds_store;
    options.waitWorkers = false;
    options.timeout = limit;
    std::string host = launch_.master_addr;
    if (options.isServer) {
      options.masterListenFd = bind_for(host, launch_.master_port);
    } else {
      wait_for_listener(host, launch_.master_port, limit);
    }
    base_ = c10::make_intrusive<c10d::TCPStore>(host, options);
  }
  base_->setTimeout(milliseconds(config.collective_timeout));
  prefix_ = concat("mdm/", launch_.attempt);
  store_ = c10::make_intrusive<c10d::PrefixStore>(prefix_, base_);
}

c10::intrusive_ptr<c10d::Store> Rendezvous::second_store() {
  return c10::make_intrusive<c10d::PrefixStore>(prefix_, base_->clone());
}

std::string Rendezvous::failure(c10d::Store& store) {
  return store.check({kFailure}) ? text_of(store.get(kFailure)) : std::string();
}

void Rendezvous::set_failure(c10d::Store& store, const std::string& text) {
  store.compareSet(kFailure, {}, bytes_of(text));  // the first one stays
}

// Each process says that it is there; all wait for all.
void Rendezvous::call_the_roll(const DistributedConfig& config) {
  const std::string own = own_host(), facts = own_facts(launch_);
  if (store_->add(concat("rank/", launch_.rank), 1) != 1) {
    const std::string problem = concat(
        "two processes say that they are rank ", launch_.rank, " of ", launch_.world_size, ": ", own,
        store_->check({host_key(launch_.rank)}) ? " and " + text_of(store_->get(host_key(launch_.rank))) : "",
        config.rendezvous_file.empty() ? "" : ", or the rendezvous file is left from an earlier start: remove it");
    set_failure(*store_, problem);
    fail<DistributedError>(problem);
  }
  store_->set(concat("facts/", launch_.rank), bytes_of(facts));
  store_->set(host_key(launch_.rank), bytes_of(own));
  const auto start = Clock::now();
  auto told = start;
  auto pause = kFirstPause;
  int64_t present = 0;
  for (;;) {
    while (present < launch_.world_size && store_->check({host_key(present)})) ++present;
    if (present == launch_.world_size) break;
    if (const std::string problem = failure(*store_); !problem.empty()) fail<DistributedError>(problem);
    const auto now = Clock::now();
    if (now - start > milliseconds(config.init_timeout)) {
      fail<DistributedError>("rank ", launch_.rank, ": rank ", present, " is not there after ", config.init_timeout,
                             " s (", launch_.world_size, " processes, ", launch_.source, ")");
    }
    if (now - told > kBetweenWords) {
      log_info("waiting for rank ", present, " of ", launch_.world_size);
      told = now;
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, kLongestPause);
  }
  for (int64_t rank = 0; rank < launch_.world_size; ++rank) {
    hosts_.push_back(printable(text_of(store_->get(host_key(rank)))));
    const std::string other = printable(text_of(store_->get(concat("facts/", rank))));
    if (other == facts) continue;
    const std::string problem = concat("the processes don't belong together: rank ", launch_.rank, " on ", own,
                                       " is of ", facts, ", rank ", rank, " on ", hosts_.back(), " of ", other);
    set_failure(*store_, problem);
    fail<DistributedError>(problem);
  }
}

}  // namespace mdm
