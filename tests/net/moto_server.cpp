#include "net/moto_server.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>
#include <vector>

namespace mdm::net_test {

namespace fs = std::filesystem;

std::string moto_python() {
  std::vector<std::string> candidates;
  if (const char* set = std::getenv("MDM_MOTO_PYTHON")) candidates.emplace_back(set);
  // Not the system's: moto 5.2.1 with botocore 1.43 refuses right signatures of odd keys.
  candidates.push_back((fs::path(MDM_TEST_DATA) / "../.cache/moto/bin/python").string());
  for (const std::string& python : candidates) {
    const std::string command = "\"" + python + "\" -c 'import moto, boto3, flask' >/dev/null 2>&1";
    if (std::system(command.c_str()) == 0) return python;
  }
  return "";
}

MotoServer::MotoServer(const std::string& python, const fs::path& folder, const std::string& spec) {
  const fs::path spec_file = folder / "moto.json", out = folder / "moto.out.json", log = folder / "moto.log";
  std::ofstream(spec_file) << spec;
  fs::remove(out);
  const std::string command = "exec \"" + python + "\" \"" + MDM_TEST_DATA + "/net/moto_s3.py\" \"" +
                              spec_file.string() + "\" \"" + out.string() + "\" > \"" + log.string() + "\" 2>&1";
  input_ = ::popen(command.c_str(), "we");
  if (input_ == nullptr) throw std::runtime_error("moto can't be started");
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  while (!fs::exists(out)) {
    if (std::chrono::steady_clock::now() > end) {
      std::ifstream in(log);
      const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
      ::pclose(input_);
      throw std::runtime_error("moto does not come up: " + text);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  std::ifstream in(out);
  const auto said = nlohmann::json::parse(in);
  if (said.contains("error")) {
    ::pclose(input_);
    throw std::runtime_error("moto does not come up: " + said["error"].get<std::string>());
  }
  port_ = said["port"];
  id_ = said["id"];
  secret_ = said["secret"];
}

MotoServer::~MotoServer() { ::pclose(input_); }

}  // namespace mdm::net_test
