// What is in a process that uses libmdm: one OpenMP runtime, shared by LibTorch's threads and ours.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "mdm/core/version.h"

namespace {

// The files mapped into this process whose name holds one of the OpenMP runtimes' names.
std::set<std::string> openmp_runtimes() {
  std::set<std::string> found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const size_t start = line.find('/');
    if (start == std::string::npos) continue;
    const std::string path = line.substr(start);
    for (const char* runtime : {"libgomp", "libomp", "libiomp"}) {
      if (path.find(runtime, path.rfind('/')) != std::string::npos) found.insert(path);
    }
  }
  return found;
}

TEST(Process, HoldsExactlyOneOpenMpRuntime) {
  ASSERT_STRNE(mdm::version(), "");  // libmdm is in the process
  const std::set<std::string> runtimes = openmp_runtimes();
  std::string list;
  for (const std::string& path : runtimes) list += path + "\n";
  EXPECT_EQ(runtimes.size(), 1u) << list;
}

// Without -fopenmp LibTorch's header makes parallel_for a plain loop, without a word.
TEST(Process, ParallelForIsParallelInOurFiles) {
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> threads;
  at::parallel_for(0, 2, 1, [&](int64_t, int64_t) {
    const std::lock_guard<std::mutex> lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(threads.size(), 2u);
  EXPECT_EQ(omp_get_max_threads(), 2);
}

}  // namespace
