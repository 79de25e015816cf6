// The run folder under every fault that a disk, a user or a crash can do to it.
#include "mdm/training/run_directory.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <fstream>
#include <random>

#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "training/faulty_calls.h"
#include "training/support.h"

namespace mdm::training_test {
namespace {

namespace fs = std::filesystem;

// A checkpoint whose values tell its step.
CheckpointContent content(uint64_t step) {
  const auto value = static_cast<double>(step);
  CheckpointContent out;
  out.step = step;
  out.parts = {{"weights.safetensors", {{"a", at::full({100}, value)}, {"b", at::full({3, 5}, value + 0.5)}}},
               {"moments.safetensors", {{"exp_avg.a", at::full({100}, -value)}}}};
  out.state_json = "{\"step\": " + std::to_string(step) + "}\n";
  return out;
}

// Whether a checkpoint holds exactly what content() put in.
bool intact(const SavedCheckpoint& saved) {
  const CheckpointContent expected = content(saved.step);
  if (saved.state_json != expected.state_json) return false;
  for (const auto& part : expected.parts) {
    const TensorFile file = TensorFile::open(saved.folder / part.file);
    for (const NamedTensor& item : part.tensors) {
      if (!file.tensor(item.name).equal(item.tensor)) return false;
    }
  }
  return true;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

bool has_temporaries(const fs::path& folder) {
  for (const std::string& name : names_in(folder)) {
    if (name.find(".tmp.") != std::string::npos) return true;
  }
  return false;
}

// Runs in a child process, which may be killed; its exit status, or 128 + the signal that ended it.
template <typename Work>
int in_child(const Work& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    int code = 1;
    try {
      code = work();
    } catch (const Error&) {
    }
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

class RunDirectoryTest : public ::testing::Test {
 protected:
  void TearDown() override { clear_faults(); }
  RunDirectory::Options keep(int64_t last, int64_t every = 0) const {
    RunDirectory::Options options;
    options.keep_last = last;
    options.keep_every = every;
    return options;
  }
  Faults faults() const {
    Faults out;
    out.folder = folder_.path().string();
    return out;
  }
  uint64_t latest_step() const { return RunDirectory(folder_.path(), {}).latest()->step; }

  const TemporaryFolder folder_;
};

TEST_F(RunDirectoryTest, SavesAndFindsAgain) {
  RunDirectory run(folder_.path() / "new" / "folder", {});
  EXPECT_FALSE(run.latest());
  run.save(content(5));
  run.save(content(10));
  const auto latest = run.latest();
  ASSERT_TRUE(latest);
  EXPECT_EQ(latest->step, 10U);
  EXPECT_TRUE(intact(*latest));
  EXPECT_EQ(run.checkpoints(), (std::vector<uint64_t>{5, 10}));
  run.save(content(10));  // once more in place of the old one
  EXPECT_TRUE(intact(*run.latest()));
  EXPECT_FALSE(has_temporaries(run.folder()));
}

TEST_F(RunDirectoryTest, KeepsTheLastAndTheMilestones) {
  RunDirectory run(folder_.path(), keep(2, 40));
  run.add_companion("vis_model_%06llu.pth");
  for (uint64_t step = 10; step <= 100; step += 10) {
    char name[32];
    std::snprintf(name, sizeof name, "vis_model_%06d.pth", static_cast<int>(step));
    write_file(folder_.path() / name, "x");
    run.save(content(step));
  }
  EXPECT_EQ(run.checkpoints(), (std::vector<uint64_t>{40, 80, 90, 100}));
  EXPECT_EQ(names_in(folder_.path()),
            (std::vector<std::string>{"ckpt_0000040", "ckpt_0000080", "ckpt_0000090", "ckpt_0000100", "lock",
                                      "vis_model_000040.pth", "vis_model_000080.pth", "vis_model_000090.pth",
                                      "vis_model_000100.pth"}));
  EXPECT_THROW(RunDirectory(folder_.path() / "other", keep(1)), ConfigError);
}

// F18
TEST_F(RunDirectoryTest, ASecondTrainerIsKeptOut) {
  {
    const RunDirectory first(folder_.path(), {});
    EXPECT_THROW(RunDirectory(folder_.path(), {}), Error);
    EXPECT_EQ(in_child([&] {
                RunDirectory second(folder_.path(), {});
                return 0;
              }),
              1);
  }
  EXPECT_NO_THROW(RunDirectory(folder_.path(), {}));
}

// F2: killed before every single call that touches the disk.
TEST_F(RunDirectoryTest, AKillAtAnyCallLeavesACompleteCheckpoint) {
  for (const bool replacing : {false, true}) {  // a new step, and one that prunes an old checkpoint
    int64_t calls = 0;
    for (int64_t kill_at = 1;; ++kill_at) {
      fs::remove_all(folder_.path());
      {
        RunDirectory run(folder_.path(), keep(2));
        run.save(content(1));
        if (replacing) run.save(content(2));
      }
      const int status = in_child([&] {
        RunDirectory run(folder_.path(), keep(2));
        Faults f = faults();
        f.kill_at = kill_at;
        set_faults(f);
        run.save(content(3));
        return 0;
      });
      if (status == 0) break;
      ASSERT_EQ(status, 128 + SIGKILL);
      calls = kill_at;
      RunDirectory again(folder_.path(), keep(2));
      EXPECT_FALSE(has_temporaries(folder_.path())) << "killed before call " << kill_at;
      const auto latest = again.latest();
      ASSERT_TRUE(latest);
      EXPECT_TRUE(intact(*latest)) << "killed before call " << kill_at;
      EXPECT_GE(latest->step, replacing ? 2U : 1U);
      again.save(content(4));
      EXPECT_TRUE(intact(*again.latest()));
    }
    EXPECT_GE(calls, 20) << "calls of a save";
  }
}

// F4: every call fails once, or from there on, with each error.
TEST_F(RunDirectoryTest, AnErrorAtAnyCallLeavesThePreviousCheckpoint) {
  for (const int error : {EIO, ENOSPC}) {
    for (const bool on : {false, true}) {
      fs::remove_all(folder_.path());
      RunDirectory run(folder_.path(), keep(2));
      uint64_t step = 1;
      run.save(content(step));
      uint64_t good = step;
      for (int64_t at = 1;; ++at) {
        Faults f = faults();
        f.fail_at = at;
        f.fail_on = on;
        f.error = error;
        set_faults(f);
        bool failed = false;
        ++step;
        try {
          run.save(content(step));
        } catch (const Error& problem) {
          failed = true;
          EXPECT_NE(std::string(problem.what()).find(folder_.path().string()), std::string::npos) << problem.what();
        }
        const bool reached = faulty_calls() >= at;
        clear_faults();
        const auto latest = run.latest();
        ASSERT_TRUE(latest);
        EXPECT_TRUE(intact(*latest));
        EXPECT_GE(latest->step, good) << "call " << at;
        if (!failed) {
          EXPECT_EQ(latest->step, step) << "call " << at << " failed silently";
        }
        good = latest->step;
        if (!reached) break;
        ASSERT_LT(at, 500);
      }
    }
  }
}

TEST_F(RunDirectoryTest, ShortAndInterruptedWritesAreNoErrors) {
  RunDirectory run(folder_.path(), {});
  Faults f = faults();
  f.short_writes = f.interrupted = true;
  set_faults(f);
  run.save(content(1));
  EXPECT_GT(faulty_calls(), 40);
  clear_faults();
  EXPECT_TRUE(intact(*run.latest()));
}

// F3: a disk that is full at any byte of a checkpoint.
TEST_F(RunDirectoryTest, AFullDiskAtAnyByteLeavesThePreviousCheckpoint) {
  RunDirectory run(folder_.path(), keep(2));
  run.save(content(1));
  run.save(content(2));
  int64_t total = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder_.path() / "ckpt_0000002")) {
    total += static_cast<int64_t>(entry.file_size());
  }
  int refused = 0;
  for (int64_t bytes = 0; bytes < total + 64; bytes += bytes < total - 600 ? 97 : 3) {
    Faults f = faults();
    f.disk_bytes = bytes;
    set_faults(f);
    const bool enough = bytes >= total;
    if (enough) {
      EXPECT_NO_THROW(run.save(content(3)));
    } else {
      EXPECT_THROW(run.save(content(3)), Error) << bytes << " of " << total;
      ++refused;
    }
    clear_faults();
    EXPECT_FALSE(has_temporaries(folder_.path()));
    const auto latest = run.latest();
    ASSERT_TRUE(latest);
    EXPECT_EQ(latest->step, enough ? 3U : 2U);
    EXPECT_TRUE(intact(*latest));
    if (enough) break;
  }
  EXPECT_GT(refused, 100);
}

// F5: a file is flushed before its folder is, the folder before it gets its name, and the parent at the end.
TEST_F(RunDirectoryTest, FlushesInOrder) {
  RunDirectory run(folder_.path(), {});
  Faults f = faults();
  f.trace = true;
  set_faults(f);
  run.save(content(7));
  clear_faults();
  const std::string parent = folder_.path().string();
  const std::string temporary = parent + "/ckpt_0000007.tmp." + std::to_string(::getpid());
  const std::vector<std::string> calls = traced_calls();
  const auto last = [&](const std::string& start) {
    for (size_t i = calls.size(); i-- > 0;) {
      if (calls[i].rfind(start, 0) == 0) return static_cast<int64_t>(i);
    }
    return int64_t{-1};
  };
  const int64_t renamed = last("rename " + temporary + " " + parent + "/ckpt_0000007");
  ASSERT_GE(renamed, 0);
  EXPECT_EQ(renamed, last("rename ")) << "nothing is renamed later";
  EXPECT_LT(last("write "), renamed);
  EXPECT_GT(last("fsync " + parent), renamed) << "the parent is flushed at the end";
  const std::string folder_flush = "fsync " + temporary;
  int64_t flushed = -1;  // the last flush of the folder itself
  for (size_t i = 0; i < calls.size(); ++i) {
    if (calls[i] == folder_flush) flushed = static_cast<int64_t>(i);
  }
  EXPECT_LT(flushed, renamed);
  for (const char* name : {"weights.safetensors", "moments.safetensors", "state.json", "manifest.json"}) {
    const std::string file = temporary + "/" + name;
    const int64_t written = last("write " + file), synced = last("fsync " + file);
    const int64_t placed = last("rename " + file);
    EXPECT_GE(written, 0) << name;
    EXPECT_LT(written, synced) << name;
    EXPECT_LT(synced, placed) << name;
    EXPECT_LT(placed, flushed) << name;
    if (std::string(name) != "manifest.json") {
      EXPECT_LT(placed, last("write " + temporary + "/manifest.json")) << name;
    }
  }
}

void damage(const fs::path& file, int64_t offset, int xor_with) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(offset);
  const int byte = stream.get();
  stream.seekp(offset);
  stream.put(static_cast<char>(byte ^ xor_with));
}

// F6: any byte of any file changed: the one before it is taken, and never what is damaged.
TEST_F(RunDirectoryTest, DamagedBytesAreNeverLoaded) {
  RunDirectory run(folder_.path(), {});
  run.save(content(1));
  run.save(content(2));
  std::mt19937 random(5);
  std::vector<std::pair<fs::path, int64_t>> places;
  for (const auto& entry : fs::directory_iterator(folder_.path() / "ckpt_0000002")) {
    for (int i = 0; i < 250; ++i) {
      places.emplace_back(
          entry.path(), std::uniform_int_distribution<int64_t>(0, static_cast<int64_t>(entry.file_size()) - 1)(random));
    }
  }
  int fallbacks = 0;
  for (const auto& [file, offset] : places) {
    const int bits = 1 << std::uniform_int_distribution<int>(0, 7)(random);
    damage(file, offset, bits);
    const auto latest = run.latest();
    ASSERT_TRUE(latest);
    EXPECT_TRUE(intact(*latest)) << file << " at " << offset;
    fallbacks += latest->step == 1 ? 1 : 0;
    damage(file, offset, bits);
  }
  EXPECT_EQ(places.size(), 1000U);
  EXPECT_GE(fallbacks, 990) << "only blanks of the manifest may change";
}

TEST_F(RunDirectoryTest, CutMissingAndEmptyFilesAreNeverLoaded) {
  for (const char* name : {"weights.safetensors", "moments.safetensors", "state.json", "manifest.json"}) {
    for (const char* how : {"cut", "missing", "empty", "folder"}) {
      fs::remove_all(folder_.path());
      RunDirectory run(folder_.path(), {});
      run.save(content(1));
      run.save(content(2));
      const fs::path file = folder_.path() / "ckpt_0000002" / name;
      if (how[0] == 'c') fs::resize_file(file, fs::file_size(file) - 3);
      if (how[0] == 'e') fs::resize_file(file, 0);
      if (how[0] == 'm' || how[0] == 'f') fs::remove(file);
      if (how[0] == 'f') fs::create_directory(file);
      const auto latest = run.latest();
      ASSERT_TRUE(latest);
      EXPECT_EQ(latest->step, 1U) << name << " " << how;
      run.save(content(2));  // takes the damaged one's place
      EXPECT_TRUE(intact(*run.latest()));
      EXPECT_EQ(run.latest()->step, 2U);
    }
  }
}

TEST_F(RunDirectoryTest, WithoutASoundCheckpointItSaysSo) {
  RunDirectory run(folder_.path(), {});
  run.save(content(1));
  damage(folder_.path() / "ckpt_0000001" / "weights.safetensors", 200, 1);
  EXPECT_THROW(run.latest(), CheckpointError);
}

TEST_F(RunDirectoryTest, AHostileManifestOpensNothingElsewhere) {
  RunDirectory run(folder_.path(), {});
  run.save(content(1));
  for (const char* text : {R"({"format":1,"step":2,"files":{"../lock":{"bytes":0,"sha256":""},"state.json":{}}})", "[]",
                           "{}", R"({"format":1,"step":2,"files":[]})", R"({"format":1,"step":-2,"files":{}})",
                           R"({"format":1,"step":1e99,"files":{"state.json":{"bytes":"x","sha256":5}}})", "\xff\xfe"}) {
    fs::create_directory(folder_.path() / "ckpt_0000002");
    write_file(folder_.path() / "ckpt_0000002" / "manifest.json", text);
    EXPECT_EQ(run.latest()->step, 1U) << text;
    fs::remove_all(folder_.path() / "ckpt_0000002");
  }
}

// F17: what can't be removed stays, and training goes on.
TEST_F(RunDirectoryTest, OldCheckpointsThatCantBeRemovedDoNoHarm) {
  for (const std::string call : {"unlink", "rename"}) {
    RunDirectory run(folder_.path() / call, keep(2));
    for (uint64_t step = 1; step <= 4; ++step) {
      Faults f = faults();
      f.call = call;
      // Renaming fails only where an old checkpoint is taken away: the first five give files and folder their names.
      f.fail_at = call == "rename" ? 6 : 1;
      f.fail_on = true;
      f.error = EACCES;
      set_faults(f);
      EXPECT_NO_THROW(run.save(content(step))) << call;
      clear_faults();
      EXPECT_EQ(run.latest()->step, step);
      EXPECT_TRUE(intact(*run.latest()));
    }
    if (call == "rename") {
      EXPECT_EQ(run.checkpoints().size(), 4U);
    }
    run.save(content(5));
    EXPECT_EQ(run.checkpoints(), (std::vector<uint64_t>{4, 5})) << "later they go after all";
  }
}

// F17: a clock that was set back changes nothing, because steps are what is ordered.
TEST_F(RunDirectoryTest, TimesOfFilesDontMatter) {
  RunDirectory run(folder_.path(), keep(2));
  for (uint64_t step = 1; step <= 2; ++step) run.save(content(step));
  fs::last_write_time(folder_.path() / "ckpt_0000002", fs::file_time_type::clock::now() - std::chrono::hours(24 * 365));
  EXPECT_EQ(run.latest()->step, 2U);
  run.save(content(3));
  EXPECT_EQ(run.checkpoints(), (std::vector<uint64_t>{2, 3}));
}

TEST_F(RunDirectoryTest, ForeignNamesAreLeftAlone) {
  for (const char* name : {"ckpt_12", "ckpt_00000x1", "notes.tmp.txt", "ckpt_0000001000000000000000"}) {
    fs::create_directory(folder_.path() / name);
  }
  RunDirectory run(folder_.path(), {});
  EXPECT_FALSE(run.latest());
  run.save(content(1));
  EXPECT_EQ(run.checkpoints(), (std::vector<uint64_t>{1}));
  EXPECT_EQ(names_in(folder_.path()).size(), 6U);
}

}  // namespace
}  // namespace mdm::training_test
