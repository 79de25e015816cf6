// A real implementation of S3 for tests: moto's server as a child process on the loopback.
#pragma once

#include <cstdio>
#include <filesystem>
#include <string>

namespace mdm::net_test {

/// A Python with moto: MDM_MOTO_PYTHON, what scripts/setup.sh --dev makes, python3. Empty: there is none.
std::string moto_python();

/// Runs as long as the object lives. `spec`: JSON as moto_s3.py takes it; `folder`: for its files. Throws
/// std::runtime_error when it does not come up.
class MotoServer {
 public:
  MotoServer(const std::string& python, const std::filesystem::path& folder, const std::string& spec);
  ~MotoServer();
  MotoServer(const MotoServer&) = delete;
  MotoServer& operator=(const MotoServer&) = delete;

  std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(port_); }
  const std::string& id() const { return id_; }
  const std::string& secret() const { return secret_; }

 private:
  std::FILE* input_ = nullptr;  // of the child, which ends with it
  int port_ = 0;
  std::string id_, secret_;
};

}  // namespace mdm::net_test
