#include "distributed/ranks.h"

#include <ATen/Parallel.h>
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <thread>

namespace mdm::distributed_test {
namespace {

// c10d's flight recorder is one for all groups of a process, and its list of them is written without a lock
// (LibTorch 2.11): with several ranks as threads that ends in a crash now and then. A real process has one group.
[[maybe_unused]] const bool kNoFlightRecorder = ::setenv("TORCH_FR_BUFFER_SIZE", "0", 1) == 0;

}  // namespace

int64_t free_port() {
  const int handle = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  const bool bound = ::bind(handle, reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
                     ::getsockname(handle, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(handle);
  if (!bound) throw std::runtime_error("no free port");
  return ntohs(address.sin_port);
}

Launch local_launch(int64_t rank, int64_t world_size, int64_t port) {
  Launch launch;
  launch.rank = launch.local_rank = rank;
  launch.world_size = world_size;
  launch.local_world_size = world_size;
  launch.master_port = port;
  launch.source = "the test";
  return launch;
}

std::vector<std::exception_ptr> run_ranks(int64_t world_size, const std::function<void(ProcessGroup&)>& work,
                                          const DistributedConfig& config) {
  const int64_t port = free_port();
  std::vector<std::exception_ptr> thrown(static_cast<size_t>(world_size));
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      at::set_num_threads(1);
      try {
        const auto group = ProcessGroup::join(local_launch(rank, world_size, port), config, {});
        work(*group);
        group->gather("", "the end");  // rank 0 holds the store: it stays until all are done
      } catch (...) {
        thrown[static_cast<size_t>(rank)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

void expect_ranks(int64_t world_size, const std::function<void(ProcessGroup&)>& work) {
  const auto thrown = run_ranks(world_size, work);
  for (size_t rank = 0; rank < thrown.size(); ++rank) EXPECT_EQ(message(thrown[rank]), "") << "rank " << rank;
}

std::string message(const std::exception_ptr& thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "something that is no std::exception";
  }
  return "";
}

}  // namespace mdm::distributed_test
