// Several ranks as threads of the test: real stores, sockets and collectives without the cost of processes.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "mdm/distributed/process_group.h"

namespace mdm::distributed_test {

/// A port of the loopback address that nobody listens at right now.
int64_t free_port();

Launch local_launch(int64_t rank, int64_t world_size, int64_t port);

/// Calls `work` with the group of each rank at the same time, and returns what each has thrown (null: nothing).
std::vector<std::exception_ptr> run_ranks(int64_t world_size, const std::function<void(ProcessGroup&)>& work,
                                          const DistributedConfig& config = {});

/// The same where nothing may be thrown: a test failure names rank and message.
void expect_ranks(int64_t world_size, const std::function<void(ProcessGroup&)>& work);

/// Of an exception, "" for none.
std::string message(const std::exception_ptr& thrown);

}  // namespace mdm::distributed_test
