// What is in a process that uses libmdm: one OpenMP runtime, shared by LibTorch's threads and ours, and
// SentencePiece only where it is asked for and does no harm to LibTorch.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>
#include <omp.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "mdm/core/version.h"
#include "mdm/text/t5_tokenizer.h"
#include "support/tiny_spiece.h"

namespace {

// The files mapped into this process whose name holds one of `names`.
std::set<std::string> mapped_files(const std::vector<std::string>& names) {
  std::set<std::string> found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const size_t start = line.find('/');
    if (start == std::string::npos) continue;
    const std::string path = line.substr(start);
    for (const std::string& name : names) {
      if (path.find(name, path.rfind('/')) != std::string::npos) found.insert(path);
    }
  }
  return found;
}

TEST(Process, HoldsExactlyOneOpenMpRuntime) {
  ASSERT_STRNE(mdm::version(), "");  // libmdm is in the process
  const std::set<std::string> runtimes = mapped_files({"libgomp", "libomp", "libiomp"});
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

// Ends the process with `code` when LibTorch throws where there is no memory to be had.
void exit_when_allocation_throws(int code) {
  try {
    at::empty({int64_t{1} << 50}, at::kByte);  // more than a process may address
  } catch (const c10::Error& error) {
    std::fputs(error.what(), stderr);
    std::_Exit(code);
  }
  std::_Exit(code + 1);
}

void use_t5_tokenizer() {
  std::string file = (std::filesystem::temp_directory_path() / "mdm_spiece_XXXXXX").string();
  const int descriptor = mkstemp(file.data());
  ASSERT_GE(descriptor, 0);
  close(descriptor);
  std::ofstream(file, std::ios::binary) << mdm::test_support::tiny_spiece_model();
  const auto tokenizer = mdm::T5Tokenizer::open(file);
  std::filesystem::remove(file);
  EXPECT_EQ(tokenizer.encode_inference("b a b", {}), (std::vector<int32_t>{4, 3, 4, 1}));
}

// Debian's SentencePiece and LibTorch both define FLAGS_minloglevel, of different sizes: were they one
// variable, LibTorch's allocator would abort where it should throw.
TEST(ProcessDeathTest, AllocationsFailWithAnErrorBesideSentencePiece) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "AddressSanitizer has an allocator of its own, and no RTLD_DEEPBIND";
#endif
  EXPECT_EQ(mapped_files({"sentencepiece"}), std::set<std::string>()) << "linked, where it should be loaded on demand";
  EXPECT_EXIT(exit_when_allocation_throws(7), testing::ExitedWithCode(7), "can't allocate memory");
  use_t5_tokenizer();
  EXPECT_FALSE(mapped_files({"sentencepiece"}).empty());
  EXPECT_EXIT(exit_when_allocation_throws(7), testing::ExitedWithCode(7), "can't allocate memory");
}

}  // namespace
