#include "training/child.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "mdm/core/digest.h"
#include "mdm/core/files.h"

namespace mdm::training_test {

namespace fs = std::filesystem;

Child::Child(const std::vector<std::string>& arguments, fs::path output, int threads,
             const std::map<std::string, std::string>& environment)
    : output_(std::move(output)) {
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  const std::string thread_count = std::to_string(threads);
  fs::remove(output_);  // what an earlier child has written must not be taken for this one's
  child_ = ::fork();
  if (child_ != 0) return;
  const int file = ::open(output_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  ::dup2(file, 1);
  ::dup2(file, 2);
  ::setenv("OMP_NUM_THREADS", thread_count.c_str(), 1);
  ::setenv("OMP_WAIT_POLICY", "passive", 1);
  for (const auto& [name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
  ::execv(pointers[0], pointers.data());
  ::_exit(127);
}

Child::~Child() {
  if (child_ <= 0) return;
  ::kill(child_, SIGKILL);
  wait();
}

void Child::send(int signal) const { ::kill(child_, signal); }

int Child::wait() {
  int status = 0;
  ::waitpid(child_, &status, 0);
  child_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool Child::running() {
  int status = 0;
  if (child_ <= 0 || ::waitpid(child_, &status, WNOHANG) != child_) return child_ > 0;
  child_ = -1;
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return false;
}

std::string Child::output() const {
  std::ostringstream text;
  text << std::ifstream(output_).rdbuf();
  return text.str();
}

bool Child::wait_for(const std::string& text) {
  while (output().find(text) == std::string::npos) {
    if (!running()) return output().find(text) != std::string::npos;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

fs::path checkpoint_of(const fs::path& run, int64_t step) {
  char name[40];
  std::snprintf(name, sizeof name, "ckpt_%07lld", static_cast<long long>(step));
  return run / name;
}

std::map<std::string, std::string> outcome_of(const fs::path& run, int64_t step) {
  std::map<std::string, std::string> out;
  const fs::path checkpoint = checkpoint_of(run, step);
  for (const char* file : {"weights.safetensors", "ema.safetensors", "moments.safetensors"}) {
    out[file] = digest_file(checkpoint / file).hex;
  }
  const auto state = nlohmann::json::parse(read_text_file(checkpoint / "state.json"));
  out["training"] = state.at("training").dump();
  out["data"] = state.at("data").dump();
  return out;
}

}  // namespace mdm::training_test
