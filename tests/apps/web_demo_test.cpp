// The program web_demo: its command line, its exit codes, and that it starts, answers and stops as a service does.
#include <csignal>
#include <fstream>
#include <sstream>

#include "apps/workshop.h"
#include "serving/raw_client.h"

namespace mdm::apps_test {
namespace {

using serving_test::request;

// The port in what the program has printed so far; 0: nothing yet.
uint16_t port_in(const std::string& file) {
  std::ifstream in(file);
  std::string url;
  if (!std::getline(in, url) || in.eof()) return 0;
  return static_cast<uint16_t>(std::atoi(url.c_str() + url.rfind(':') + 1));
}

// Runs web_demo until `look` has had its port; then SIGTERM.
Outcome served(std::vector<std::string> arguments, const std::function<void(uint16_t)>& look, RunOptions options = {}) {
  const Folder folder;
  options.out_file = folder.file("out");
  options.interrupt_by = SIGTERM;
  options.interrupt_when = [&] {
    const uint16_t port = port_in(options.out_file);
    if (port == 0) return false;
    look(port);
    return true;
  };
  arguments.insert(arguments.end(), {"--port", "0", "--threads", "1"});
  return run(MDM_WEB_DEMO, arguments, options);
}

TEST(WebDemo, WithoutArgumentsServesTheDemoModelsUntilItIsStopped) {
  const Outcome outcome = served({}, [](uint16_t port) {
    EXPECT_EQ(request(port, "GET", "/healthz").status, 200);
    EXPECT_EQ(request(port, "GET", "/").status, 200);
    const auto models = nlohmann::json::parse(request(port, "GET", "/mdm/v1/models").body);
    EXPECT_EQ(models["models"].size(), 2u);
    const auto job = nlohmann::json::parse(
        request(port, "POST", "/mdm/v1/jobs", R"({"prompt":"\u001b[31mred\n", "num_inference_steps":2})").body);
    const std::string url = "/mdm/v1/jobs/" + job["id"].get<std::string>();
    EXPECT_NE(request(port, "GET", url + "/events").body.find("\"state\":\"done\""), std::string::npos);
  });
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err.find('\x1b'), std::string::npos) << "a prompt's control characters are in the log";
}

TEST(WebDemo, StopsInTheMiddleOfAJob) {
  const Outcome outcome = served({"--model", "nested=" + nested_checkpoint()}, [](uint16_t port) {
    EXPECT_EQ(request(port, "POST", "/mdm/v1/jobs", R"({"prompt":"x","num_inference_steps":1000})").status, 202);
  });
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

TEST(WebDemo, OthersNeedAKeyWhichIsNeverShown) {
  const Outcome refused = run(MDM_WEB_DEMO, {"--host", "0.0.0.0", "--port", "0"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_TRUE(holds(refused.err, "key")) << refused.err;
  RunOptions options;
  options.environment["MDM_API_KEY"] = "a very secret key of the test";
  const Outcome outcome = served(
      {"--host", "0.0.0.0", "--model", "m=" + flat_checkpoint()},
      [](uint16_t port) {
        EXPECT_EQ(request(port, "GET", "/mdm/v1/models").status, 401);
        EXPECT_EQ(
            request(port, "GET", "/mdm/v1/models", "", {"Authorization: Bearer a very secret key of the test"}).status,
            200);
      },
      options);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_FALSE(holds(outcome.err, "secret"));
  options.environment["MDM_API_KEY"] = "short";
  EXPECT_EQ(run(MDM_WEB_DEMO, {"--port", "0"}, options).code, 2);
  const Folder folder;
  const std::string file = folder.write("key", "another secret key\n");
  served({"--api-key-file", file, "--model", "m=" + flat_checkpoint()}, [](uint16_t port) {
    EXPECT_EQ(request(port, "GET", "/metrics").status, 401);
    EXPECT_EQ(request(port, "GET", "/metrics", "", {"Authorization: Bearer another secret key"}).status, 200);
  });
}

TEST(WebDemo, APortInUseIsNamed) {
  served({"--model", "m=" + flat_checkpoint()}, [](uint16_t port) {
    const Outcome second = run(MDM_WEB_DEMO, {"--port", std::to_string(port), "--model", "m=" + flat_checkpoint()});
    EXPECT_EQ(second.code, 1);
    EXPECT_TRUE(holds(second.err, std::to_string(port))) << second.err;
  });
}

TEST(WebDemo, WrongFlagsAndFilesAreNamed) {
  const std::vector<std::pair<std::vector<std::string>, std::pair<int, std::string>>> cases = {
      {{"--model", "a=/no/such/file.pth"}, {3, "/no/such/file.pth"}},
      {{"--model", "a=" + flat_checkpoint(), "--model", "a=" + flat_checkpoint()}, {2, "twice"}},
      {{"--model", "a b=" + flat_checkpoint()}, {2, "a b"}},
      {{"--port", "70000"}, {2, "port"}},
      {{"--prt", "7860"}, {2, "port"}},
      {{"--max-queue", "0"}, {2, "max-queue"}},
      {{"--api-key-file", flat_checkpoint()}, {3, "4096"}},
      {{"--device", "cuda:77"}, {2, "device"}}};
  for (const auto& [arguments, expected] : cases) {
    const Outcome outcome = run(MDM_WEB_DEMO, arguments);
    EXPECT_EQ(outcome.code, expected.first) << arguments[1] << ": " << outcome.err;
    EXPECT_TRUE(holds(outcome.err, expected.second)) << outcome.err;
  }
}

}  // namespace
}  // namespace mdm::apps_test
