#include "apps/child.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <stdexcept>

extern char** environ;

namespace mdm::apps_test {
namespace {

constexpr int kNotStarted = 126;
constexpr int kNoSmallDisk = 97;
constexpr int kPollMs = 10;

struct Pipe {
  int read = -1, write = -1;
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    read = ends[0];
    write = ends[1];
  }
  ~Pipe() {
    if (read >= 0) ::close(read);
    if (write >= 0) ::close(write);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_write() {
    ::close(write);
    write = -1;
  }
};

std::vector<std::string> environment_of(const RunOptions& options) {
  std::map<std::string, std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string::npos) all[text.substr(0, equals)] = text.substr(equals + 1);
  }
  all["OMP_NUM_THREADS"] = "1";
  all["OMP_WAIT_POLICY"] = "passive";
  all.erase("MDM_LOG");
  for (const auto& [name, value] : options.environment) all[name] = value;
  std::vector<std::string> lines;
  for (const auto& [name, value] : all) lines.push_back(name + "=" + value);
  return lines;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

// Between fork and exec: system calls only.
[[noreturn]] void become(const char* program, char* const* arguments, char* const* environment,
                         const RunOptions& options, const std::string& disk_size, int out, int err) {
  if (!options.out_file.empty()) out = ::open(options.out_file.c_str(), O_WRONLY | O_CREAT, 0666);
  const int nothing = ::open("/dev/null", O_RDONLY);
  if (::dup2(nothing, 0) < 0 || ::dup2(out, 1) < 0 || ::dup2(err, 2) < 0) ::_exit(kNotStarted);
  if (!options.small_disk.empty()) {
    const bool ready = ::unshare(CLONE_NEWNS) == 0 &&
                       ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                       ::mount("none", options.small_disk.c_str(), "tmpfs", 0, disk_size.c_str()) == 0;
    if (!ready) ::_exit(kNoSmallDisk);
  }
  if (options.file_size_limit > 0) {
    const rlimit limit{options.file_size_limit, options.file_size_limit};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(kNotStarted);
  }
  if (!options.folder.empty() && ::chdir(options.folder.c_str()) != 0) ::_exit(kNotStarted);
  ::execve(program, arguments, environment);
  ::_exit(kNotStarted);
}

// What is there to be read now; false at the end.
bool drain(int descriptor, std::string& text) {
  std::array<char, 16384> buffer{};
  const ssize_t got = ::read(descriptor, buffer.data(), buffer.size());
  if (got > 0) text.append(buffer.data(), static_cast<size_t>(got));
  return got > 0 || (got < 0 && errno == EINTR);
}

void read_all(pid_t child, Pipe& out, Pipe& err, const RunOptions& options, Outcome& outcome) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(options.seconds);
  bool interrupted = false;
  std::array<pollfd, 2> watched{pollfd{out.read, POLLIN, 0}, pollfd{err.read, POLLIN, 0}};
  while (watched[0].fd >= 0 || watched[1].fd >= 0) {
    ::poll(watched.data(), watched.size(), kPollMs);
    for (size_t i = 0; i < watched.size(); ++i) {
      if (watched[i].fd < 0 || watched[i].revents == 0) continue;
      if (!drain(watched[i].fd, i == 0 ? outcome.out : outcome.err)) watched[i].fd = -1;
    }
    if (options.interrupt_when && !interrupted && options.interrupt_when()) {
      interrupted = true;
      ::kill(child, options.interrupt_by);
    }
    if (std::chrono::steady_clock::now() > end && !outcome.timed_out) {
      outcome.timed_out = true;
      ::kill(child, SIGKILL);
    }
  }
}

}  // namespace

Outcome run(const std::string& program, const std::vector<std::string>& arguments, const RunOptions& options) {
  std::vector<std::string> words = {program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  const std::vector<std::string> variables = environment_of(options);
  const std::vector<char*> argv = pointers(words), envp = pointers(variables);
  const std::string disk_size = "size=" + options.disk_size;
  Pipe out, err;
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("no process");
  if (child == 0) become(program.c_str(), argv.data(), envp.data(), options, disk_size, out.write, err.write);
  out.close_write();
  err.close_write();
  Outcome outcome;
  read_all(child, out, err, options, outcome);
  int status = 0;
  rusage usage{};
  while (::wait4(child, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  outcome.max_rss_kib = usage.ru_maxrss;
  if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
  outcome.no_small_disk = !options.small_disk.empty() && outcome.code == kNoSmallDisk;
  return outcome;
}

}  // namespace mdm::apps_test
