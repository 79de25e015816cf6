// Files: whole, or not at all.
#include "mdm/core/files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <fstream>

#include "mdm/core/error.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;

class Files : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / concat("mdm_files_test_", ::getpid());
    fs::remove_all(folder_);
    make_writable_folder(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  size_t entries() const { return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), {})); }

  fs::path folder_;
};

// The text of the error that a call throws.
template <typename ErrorType, typename Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const ErrorType& error) {
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST_F(Files, BytesComeBack) {
  const std::string bytes("a\0b\xFF", 4);
  write_file(folder_ / "x", bytes);
  for (const auto mode : {FileBytes::Mode::kMap, FileBytes::Mode::kRead}) {
    EXPECT_EQ(FileBytes::open(folder_ / "x", mode)->view(), bytes);
  }
  EXPECT_EQ(read_text_file(folder_ / "x"), bytes);
  EXPECT_NE(error_of<DataError>([&] { read_text_file(folder_ / "x", 3); }).find("more than the 3 allowed"),
            std::string::npos);
  write_file(folder_ / "empty", "");
  EXPECT_EQ(FileBytes::open(folder_ / "empty")->size(), 0u);
}

TEST_F(Files, MappedBytesOutliveARenameOverThem) {
  write_file(folder_ / "x", "old");
  const auto old = FileBytes::open(folder_ / "x");
  write_file(folder_ / "x", "new bytes");
  EXPECT_EQ(old->view(), "old");
  EXPECT_EQ(FileBytes::open(folder_ / "x")->view(), "new bytes");
}

// Memory of this process that belongs to files, in KiB.
size_t resident_file_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("RssFile:", 0) == 0) return std::stoul(line.substr(8));
  }
  return 0;
}

TEST_F(Files, ReleasedPagesLeaveMemoryAndComeBack) {
  constexpr size_t kBytes = 32 << 20;
  std::string bytes(kBytes, '\0');
  for (size_t i = 0; i < bytes.size(); i += 100) bytes[i] = static_cast<char>(i / 100 % 251);
  write_file(folder_ / "x", bytes);
  for (const auto mode : {FileBytes::Mode::kMap, FileBytes::Mode::kRead}) {
    const auto file = FileBytes::open(folder_ / "x", mode);
    EXPECT_EQ(file->view(), bytes);
    const size_t before = resident_file_kib();
    file->release(file->data() + 5, kBytes - 5);
    if (mode == FileBytes::Mode::kMap && before > 0) {
      EXPECT_LT(resident_file_kib() + 30 * 1024, before);
    }
    EXPECT_EQ(file->view(), bytes);
    file->release(file->data() + kBytes - 1, 1);
    file->release(file->data(), 0);
    EXPECT_EQ(file->view(), bytes);
  }
}

TEST_F(Files, WhatIsNoRegularFileIsRefusedAtOnce) {
  ASSERT_EQ(::mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  for (const fs::path& path : {folder_ / "fifo", folder_, fs::path("/dev/zero"), folder_ / "absent"}) {
    EXPECT_NE(error_of<DataError>([&] { FileBytes::open(path); }).find(path.string()), std::string::npos);
  }
}

TEST_F(Files, WithoutCommitNothingIsLeft) {
  {
    AtomicFile file(folder_ / "x");
    file.write("some bytes");
    EXPECT_EQ(entries(), 1u);
    EXPECT_FALSE(fs::exists(folder_ / "x"));
  }
  EXPECT_EQ(entries(), 0u);
  write_file(folder_ / "x", "kept");
  { AtomicFile(folder_ / "x").write("dropped"); }
  EXPECT_EQ(read_text_file(folder_ / "x"), "kept");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, WriteAtChangesWhatIsThere) {
  AtomicFile file(folder_ / "x");
  file.write("0123456789");
  file.write_at(2, "ab", 2);
  file.write("!");
  EXPECT_EQ(file.size(), 11u);
  file.commit();
  EXPECT_EQ(read_text_file(folder_ / "x"), "01ab456789!");
}

// A limit on the size of files stands in for a full disk.
TEST_F(Files, AFullDiskIsAnErrorAndKeepsTheOldFile) {
  write_file(folder_ / "x", "old");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{65536, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string text = error_of<Error>([&] { write_file(folder_ / "x", std::string(100000, 'x')); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_NE(text.find("can't be written"), std::string::npos) << text;
  EXPECT_EQ(read_text_file(folder_ / "x"), "old");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, FoldersAreFlushed) {
  EXPECT_EQ(flush_folder(folder_), 0);
  EXPECT_EQ(flush_folder(""), 0);
  EXPECT_EQ(flush_folder("/proc"), 0);  // which knows no fsync
  EXPECT_EQ(flush_folder(folder_ / "absent"), ENOENT);
  write_file(folder_ / "file", "x");
  EXPECT_EQ(flush_folder(folder_ / "file"), ENOTDIR);
}

TEST_F(Files, ReadsAndWritesAtPlaces) {
  write_file(folder_ / "x", "0123456789");
  const int descriptor = ::open((folder_ / "x").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(descriptor, 0);
  EXPECT_TRUE(write_at(descriptor, "ab", 2, 9));
  char bytes[8] = {};
  EXPECT_EQ(read_at(descriptor, bytes, 8, 4), 7);
  EXPECT_EQ(std::string(bytes), "45678ab");
  EXPECT_EQ(read_at(descriptor, bytes, 8, 100), 0);
  ::close(descriptor);
  EXPECT_EQ(read_at(descriptor, bytes, 8, 0), -1);
  EXPECT_FALSE(write_at(descriptor, bytes, 8, 0));
  EXPECT_EQ(errno, EBADF);
}

TEST_F(Files, OneHoldsALock) {
  write_file(folder_ / "x", "");
  const int first = ::open((folder_ / "x").c_str(), O_RDWR | O_CLOEXEC);
  const int second = ::open((folder_ / "x").c_str(), O_RDWR | O_CLOEXEC);
  EXPECT_EQ(lock_file(first), 0);
  EXPECT_EQ(lock_file(second), EWOULDBLOCK);
  ::close(first);
  EXPECT_EQ(lock_file(second), 0);
  ::close(second);
  EXPECT_EQ(lock_file(second), EBADF);
}

TEST_F(Files, FoldersThatCannotBeUsed) {
  make_writable_folder(folder_ / "a" / "b" / "c");
  EXPECT_TRUE(fs::is_directory(folder_ / "a" / "b" / "c"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / "a" / "b" / "c"), {}), 0);
  write_file(folder_ / "file", "x");
  EXPECT_THROW(make_writable_folder(folder_ / "file"), Error);
  EXPECT_THROW(make_writable_folder(folder_ / "file" / "below"), Error);
  EXPECT_THROW(AtomicFile(folder_ / "absent" / "x"), Error);
  EXPECT_THROW(make_writable_folder("/proc/mdm"), Error);
}

}  // namespace
}  // namespace mdm
