// Certificates, against OpenSSL's own little server.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "mdm/net/http_client.h"

namespace mdm::net_test {
namespace {

namespace fs = std::filesystem;

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

int free_port() {
  const int handle = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  ::bind(handle, reinterpret_cast<const sockaddr*>(&address), size);
  ::getsockname(handle, reinterpret_cast<sockaddr*>(&address), &size);
  ::close(handle);
  return ntohs(address.sin_port);
}

bool answers(int port) {
  const int handle = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback(port);
  const bool ok = ::connect(handle, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(handle);
  return ok;
}

class HttpsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::system("openssl version >/dev/null 2>&1") != 0) GTEST_SKIP() << "there is no openssl";
    folder_ = fs::temp_directory_path() / ("mdm_https_" + std::to_string(::getpid()));
    fs::create_directories(folder_);
    ASSERT_TRUE(make_certificate("own"));
    ASSERT_TRUE(make_certificate("other"));
    std::ofstream(folder_ / "hello.txt") << "hello";
    port_ = free_port();
    const std::string place = "127.0.0.1:" + std::to_string(port_);
    server_ = ::fork();
    if (server_ == 0) {
      if (::chdir(folder_.c_str()) != 0) ::_exit(126);
      ::execlp("openssl", "openssl", "s_server", "-quiet", "-WWW", "-accept", place.c_str(), "-cert", "own.pem", "-key",
               "own.key", nullptr);
      ::_exit(127);
    }
    for (int i = 0; i < 500 && !answers(port_); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ASSERT_TRUE(answers(port_));
  }
  void TearDown() override {
    if (server_ > 0) {
      ::kill(server_, SIGKILL);
      ::waitpid(server_, nullptr, 0);
    }
    std::error_code code;
    if (!folder_.empty()) fs::remove_all(folder_, code);
  }

  // For 127.0.0.1 alone, signed by itself.
  bool make_certificate(const std::string& name) const {
    const std::string command =
        "cd '" + folder_.string() + "' && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout " + name +
        ".key -out " + name + ".pem -subj /CN=libmdm-test -addext subjectAltName=IP:127.0.0.1 >/dev/null 2>&1";
    return std::system(command.c_str()) == 0;
  }
  HttpOptions options(const std::string& authority = "") const {
    HttpOptions out;
    out.allow_private = true;
    out.tries = 1;
    if (!authority.empty()) out.ca_file = (folder_ / (authority + ".pem")).string();
    return out;
  }
  std::string url(const std::string& host) const {
    return "https://" + host + ":" + std::to_string(port_) + "/hello.txt";
  }
  NetError::Kind failure(const HttpOptions& options, const std::string& host) const {
    try {
      HttpClient(options).get(url(host));
    } catch (const NetError& error) {
      return error.kind();
    }
    ADD_FAILURE() << "it was connected to";
    return NetError::Kind::kUrl;
  }

  fs::path folder_;
  int port_ = 0;
  pid_t server_ = -1;
};

TEST_F(HttpsTest, OnlyCertificatesOfATrustedAuthorityAndOfTheHostAreTaken) {
  EXPECT_EQ(HttpClient(options("own")).get(url("127.0.0.1")).body, "hello");
  EXPECT_EQ(failure(options(), "127.0.0.1"), NetError::Kind::kTls) << "the system does not know who signed it";
  EXPECT_EQ(failure(options("other"), "127.0.0.1"), NetError::Kind::kTls) << "signed by another";
  EXPECT_EQ(failure(options("own"), "localhost"), NetError::Kind::kTls) << "made for another host";
  EXPECT_EQ(HttpClient(options("own")).get(url("127.0.0.1")).body, "hello") << "the server still serves";
}

}  // namespace
}  // namespace mdm::net_test
