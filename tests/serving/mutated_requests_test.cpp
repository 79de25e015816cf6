// Requests that were damaged at random: each is answered rightly, refused cleanly or cut off, and the next good one is
// served. MDM_MUTATED_REQUESTS says how many (1,000; scripts/soak.sh sends 100,000).
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "serving/served.h"

namespace mdm::serving {
namespace {

using serving_test::RawClient;
using serving_test::Served;

int wanted_count() {
  const char* text = std::getenv("MDM_MUTATED_REQUESTS");
  return text == nullptr ? 1000 : std::atoi(text);
}

std::vector<std::string> good_requests(const std::string& id) {
  const auto post = [](const std::string& path, const std::string& body) {
    return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " +
           std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body;
  };
  const auto get = [](const std::string& path) {
    return "GET " + path +
           " HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nCookie: a=b; mdm_session=0\r\nConnection: close\r\n\r\n";
  };
  const std::string order =
      R"({"model":"flat","prompt":"a red \"circle\" \u00e9","num_inference_steps":1,"seed":5,"preview":false})";
  return {post("/mdm/v1/jobs", order),
          post("/v1/images/generations", R"({"prompt":"x","n":1,"size":"16x16","num_inference_steps":1})"),
          post("/sdapi/v1/txt2img", R"({"prompt":"x","steps":1,"width":16,"height":16,"override_settings":{}})"),
          post("/mdm/v1/models/flat/tokens", R"({"text":"a red circle"})"),
          post("/mdm/v1/session", R"({"key":"x"})"),
          post("/mdm/v1/jobs/" + id + "/cancel", "{}"),
          "POST /mdm/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
          "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n10\r\n{\"prompt\":\"a\",  "
          "\r\n18\r\n\"num_inference_steps\":1} \r\n0\r\n\r\n",
          get("/"),
          get("/metrics"),
          get("/mdm/v1/jobs/" + id),
          get("/mdm/v1/jobs/" + id + "/events"),
          get("/mdm/v1/jobs/" + id + "/pictures/0.png"),
          get("/mdm/v1/jobs/" + id + "/path/0/noisy/0.png"),
          get("/mdm/v1/models/flat")};
}

std::string mutated(std::string text, std::mt19937_64& draw) {
  const auto below = [&](size_t n) { return static_cast<size_t>(draw() % std::max<size_t>(n, 1)); };
  const std::vector<std::string> pieces = {"\r\n",
                                           "\r\n\r\n",
                                           "\0",
                                           "-1",
                                           "99999999999999999999",
                                           "NaN",
                                           "1e309",
                                           "{",
                                           "[",
                                           "\"",
                                           "Content-Length: 0\r\n",
                                           "Transfer-Encoding: chunked\r\n",
                                           "Host: evil\r\n",
                                           "../",
                                           "%2e",
                                           "\xff",
                                           "0x",
                                           "Expect: 100-continue\r\n",
                                           "\\u0000",
                                           "Origin: null\r\n",
                                           ":",
                                           " "};
  const size_t changes = 1 + below(4);
  for (size_t i = 0; i < changes && !text.empty(); ++i) {
    const size_t at = below(text.size());
    switch (below(7)) {
      case 0: text[at] = static_cast<char>(draw()); break;
      case 1: text.erase(at, 1 + below(8)); break;
      case 2: text.insert(at, pieces[below(pieces.size())]); break;
      case 3: text.insert(at, text.substr(below(text.size()), below(64))); break;
      case 4: text.resize(at); break;
      case 5: text.insert(at, std::string(below(40000), static_cast<char>('0' + below(80)))); break;
      default: std::swap(text[at], text[below(text.size())]);
    }
  }
  return text;
}

TEST(MutatedRequests, LeadToAnswersAndNothingElse) {
  ServiceOptions options = Served::open_options();
  options.http.header_time = options.http.body_time = options.http.idle_time = std::chrono::milliseconds(150);
  Served served(options);
  const std::string id =
      served.made({{"prompt", "x"}, {"num_inference_steps", 2}, {"look_inside", true}})["id"].get<std::string>();
  const auto good = good_requests(id);
  std::mt19937_64 draw(20261128);
  const int count = wanted_count();
  int answered = 0, cut_off = 0;
  for (int i = 0; i < count; ++i) {
    const std::string request = mutated(good[draw() % good.size()], draw);
    RawClient client(served.port());
    ASSERT_TRUE(client.connected()) << "after " << i;
    client.send(request);
    if (draw() % 4 == 0) client.shutdown_sending();
    if (draw() % 16 == 0) continue;  // gone in the middle
    const std::string bytes = client.receive(20);
    const serving_test::Answer answer = serving_test::parse_answer(bytes);
    if (answer.status == 0) {
      EXPECT_EQ(bytes, "") << "no answer, but bytes";
      ++cut_off;
    } else {
      ++answered;
      EXPECT_NE(answer.status, 500) << request.substr(0, 300) << "\n" << answer.body.substr(0, 300);
      EXPECT_EQ(answer.body.find("terminate"), std::string::npos);
    }
    if (i % 50 == 0) {
      ASSERT_EQ(served.get("/healthz").status, 200);
    }
  }
  EXPECT_GT(answered, count / 3);
  EXPECT_EQ(served.made({{"prompt", "x"}, {"num_inference_steps", 1}})["state"], "done");
  RecordProperty("answered", answered);
  RecordProperty("cut_off", cut_off);
}

}  // namespace
}  // namespace mdm::serving
