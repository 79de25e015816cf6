// The native API over HTTP with small models: pictures, events, a look inside, errors.
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "mdm/media/decode.h"
#include "serving/page_files.h"
#include "serving/served.h"

namespace mdm::serving {
namespace {

using serving_test::Answer;
using serving_test::RawClient;
using serving_test::Served;

class NativeApi : public ::testing::Test {
 protected:
  static Served& served() {
    static Served one;
    return one;
  }
  static Json json(const Answer& answer) { return Json::parse(answer.body); }
  static Image image(const std::string& url) {
    const Answer answer = served().get(url);
    EXPECT_EQ(answer.status, 200) << url;
    EXPECT_EQ(answer.headers.at("content-type"), "image/png");
    return decode_image(reinterpret_cast<const uint8_t*>(answer.body.data()), answer.body.size(), "answer");
  }
};

TEST_F(NativeApi, PicturesAreThoseOfThePipeline) {
  const Json job = served().made({{"model", "nested"},
                                  {"prompt", "a red circle"},
                                  {"negative_prompt", "blue"},
                                  {"num_inference_steps", 4},
                                  {"guidance_scale", 3},
                                  {"seed", 11},
                                  {"num_samples", 2}});
  ASSERT_EQ(job["state"], "done") << job;
  Pipeline pipeline = Pipeline::from_checkpoint(pipeline_test::checkpoint_of(pipeline_test::Kind::kNested));
  SampleConfig sample = pipeline.config().sample;
  sample.num_inference_steps = 4;
  sample.guidance_scale = 3;
  sample.batch_size = 2;
  const auto expected = pipeline.generate(
      {pipeline_test::request("a red circle", 11, "blue"), pipeline_test::request("a red circle", 12, "blue")}, sample);
  ASSERT_EQ(job["pictures"].size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(job["pictures"][i]["seed"], 11 + i);
    EXPECT_EQ(image(job["pictures"][i]["url"]).pixels, expected[i].image.pixels);
    ASSERT_EQ(job["pictures"][i]["levels"].size(), 2u);
    EXPECT_EQ(image(job["pictures"][i]["levels"][1]).pixels, expected[i].inner[0].pixels);
  }
}

TEST_F(NativeApi, ASeedIsDrawnAndTold) {
  const Json first = served().made({{"model", "flat"}, {"prompt", "x"}, {"num_inference_steps", 1}});
  const Json second = served().made({{"model", "flat"}, {"prompt", "x"}, {"num_inference_steps", 1}, {"seed", -1}});
  EXPECT_GE(first["settings"]["seed"].get<int64_t>(), 0);
  EXPECT_NE(first["settings"]["seed"], second["settings"]["seed"]);
  const Json again = served().made(
      {{"model", "flat"}, {"prompt", "x"}, {"num_inference_steps", 1}, {"seed", first["settings"]["seed"]}});
  EXPECT_EQ(image(first["pictures"][0]["url"]).pixels, image(again["pictures"][0]["url"]).pixels);
}

TEST_F(NativeApi, EventsLeadToTheEnd) {
  const Json job = json(served().post("/mdm/v1/jobs", Json{{"prompt", "x"}, {"num_inference_steps", 3}}));
  const Answer events = served().get(job["id"].get<std::string>().insert(0, "/mdm/v1/jobs/") + "/events");
  EXPECT_EQ(events.headers.at("content-type"), "text/event-stream");
  EXPECT_NE(events.body.find("event: state"), std::string::npos);
  EXPECT_NE(events.body.find("\"state\":\"done\""), std::string::npos);
  EXPECT_NE(events.body.find("data:image/png;base64,"), std::string::npos);
  // A reader that comes when all is over gets the end alone.
  const Answer late = served().get("/mdm/v1/jobs/" + job["id"].get<std::string>() + "/events");
  EXPECT_NE(late.body.find("\"state\":\"done\""), std::string::npos);
  EXPECT_EQ(late.body.find("\"state\":\"running\""), std::string::npos);
  const Answer seen =
      served().get("/mdm/v1/jobs/" + job["id"].get<std::string>() + "/events", {"Last-Event-ID: 100000"});
  EXPECT_NE(seen.body.find("\"state\":\"done\""), std::string::npos);
}

TEST_F(NativeApi, ALookInsideShowsPathAttentionAndTimes) {
  const Json job = served().made({{"model", "nested"},
                                  {"prompt", "a red circle"},
                                  {"num_inference_steps", 5},
                                  {"guidance_scale", 2},
                                  {"seed", 3},
                                  {"look_inside", true}});
  ASSERT_EQ(job["state"], "done") << job;
  const std::string url = "/mdm/v1/jobs/" + job["id"].get<std::string>();
  const Json path = json(served().get(url + "/path"));
  EXPECT_EQ(path["levels"], Json({16, 8}));
  EXPECT_EQ(path["guided"], true);
  ASSERT_EQ(path["frames"].size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(path["frames"][i]["step"], i + 1);
    if (i == 0) continue;
    EXPECT_LT(path["frames"][i]["time"], path["frames"][i - 1]["time"]);
    EXPECT_GT(path["frames"][i]["log_snr"][0], path["frames"][i - 1]["log_snr"][0]);
  }
  // The last predicted picture is the picture.
  EXPECT_EQ(image(url + "/path/4/predicted/0.png").pixels, image(job["pictures"][0]["url"]).pixels);
  EXPECT_EQ(image(url + "/path/4/noisy/1.png").width, 8);
  EXPECT_NE(image(url + "/path/2/conditional/0.png").pixels, image(url + "/path/2/unconditional/0.png").pixels);

  const Json attention = json(served().get(url + "/attention"));
  ASSERT_GE(attention["tokens"].size(), 3u);
  ASSERT_GE(attention["maps"].size(), 1u);
  const Json& map = attention["maps"][0];
  EXPECT_EQ(map["weights"].size(), attention["tokens"].size());
  for (const auto& peak : map["peak"]) {
    EXPECT_GT(peak.get<double>(), 0);
    EXPECT_LE(peak.get<double>(), 1);
  }
  const Json times = json(served().get(url + "/time"));
  double sum = 0;
  std::set<std::string> names;
  for (const auto& part : times["parts"]) {
    sum += part["seconds"].get<double>();
    EXPECT_TRUE(names.insert(part["name"]).second);
  }
  EXPECT_GT(sum, 0);
  EXPECT_LE(sum, times["seconds"].get<double>());
  EXPECT_TRUE(names.count("1.conv_in"));

  const Json plain = served().made({{"prompt", "x"}, {"num_inference_steps", 1}});
  EXPECT_EQ(served().get("/mdm/v1/jobs/" + plain["id"].get<std::string>() + "/path").status, 409);
}

TEST_F(NativeApi, LookingInsideChangesNoPicture) {
  Json order = {{"model", "nested"}, {"prompt", "a"}, {"num_inference_steps", 3}, {"guidance_scale", 2}, {"seed", 8}};
  for (const char* sampler : {"ddpm", "heun", "dpmpp_2m_sde"}) {
    order["sampler"] = sampler;
    order["look_inside"] = false;
    const Json without = served().made(order);
    order["look_inside"] = true;
    const Json with = served().made(order);
    EXPECT_EQ(image(without["pictures"][0]["url"]).pixels, image(with["pictures"][0]["url"]).pixels) << sampler;
  }
}

TEST_F(NativeApi, ModelsSayWhatMayBeSet) {
  const Json list = json(served().get("/mdm/v1/models"));
  EXPECT_EQ(list["default"], "flat");
  ASSERT_EQ(list["models"].size(), 2u);
  for (const auto& model : list["models"]) {
    // The defaults make a valid order.
    Json order = {{"model", model["name"]}, {"prompt", "x"}};
    for (const auto& setting : model["settings"]) order[setting["name"].get<std::string>()] = setting["default"];
    order["num_inference_steps"] = 1;
    EXPECT_EQ(served().made(order)["state"], "done");
    const Json full = json(served().get("/mdm/v1/models/" + model["name"].get<std::string>()));
    int64_t sum = 0;
    for (const auto& part : full["structure"]["children"]) sum += part["parameters"].get<int64_t>();
    EXPECT_EQ(sum, full["parameters"]);
    EXPECT_EQ(full["schedule"]["levels"].size(), model["levels"].size());
    EXPECT_EQ(full["schedule"]["times"].size(), full["schedule"]["levels"][0]["gamma"].size());
    EXPECT_FALSE(full["config"].empty());
    EXPECT_EQ(full.dump().find(MDM_PROJECT_DIR), std::string::npos) << "a folder of this machine is shown";
  }
  const Json tokens = json(served().post("/mdm/v1/models/flat/tokens", Json{{"text", "a red circle"}}));
  EXPECT_GE(tokens["tokens"].size(), 3u);
  EXPECT_EQ(tokens["cut"], false);
}

TEST_F(NativeApi, WrongSettingsAreNamed) {
  const std::vector<std::pair<Json, std::string>> cases = {
      {{{"prompt", 5}}, "prompt"},
      {{{"prompt", std::string(2001, 'x')}}, "prompt"},
      {{{"prompt", std::string("a\0b", 3)}}, "prompt"},
      {{{"prompt", "x"}, {"steps", 5}}, "steps"},
      {{{"prompt", "x"}, {"guidance-scale", 5}}, "guidance-scale"},
      {{{"prompt", "x"}, {"checkpoint", "/etc/passwd"}}, "checkpoint"},
      {{{"prompt", "x"}, {"init_image", "/etc/passwd"}}, "init_image"},
      {{{"prompt", "x"}, {"output_dir", "/tmp"}}, "output_dir"},
      {{{"prompt", "x"}, {"num_inference_steps", 1000000000}}, "num_inference_steps"},
      {{{"prompt", "x"}, {"num_inference_steps", 0}}, "num_inference_steps"},
      {{{"prompt", "x"}, {"num_inference_steps", 2.5}}, "num_inference_steps"},
      {{{"prompt", "x"}, {"num_inference_steps", "5"}}, "num_inference_steps"},
      {{{"prompt", "x"}, {"num_samples", 5}}, "num_samples"},
      {{{"prompt", "x"}, {"num_samples", -1}}, "num_samples"},
      {{{"prompt", "x"}, {"sample_image_size", 1000000000}}, "sample_image_size"},
      {{{"prompt", "x"}, {"sample_image_size", 17}}, "sample_image_size"},
      {{{"prompt", "x"}, {"guidance_scale", 1e30}}, "guidance_scale"},
      {{{"prompt", "x"}, {"guidance_scale", true}}, "guidance_scale"},
      {{{"prompt", "x"}, {"guidance_scale", Json::array()}}, "guidance_scale"},
      {{{"prompt", "x"}, {"sampler", "magic"}}, "sampler"},
      {{{"prompt", "x"}, {"sampler", 1}}, "sampler"},
      {{{"prompt", "x"}, {"sampler", "euler"}, {"ddim_eta", 0.5}}, "ddim_eta"},
      {{{"prompt", "x"}, {"guidance_start", 0.5}, {"guidance_end", 0.5}}, "guidance_start"},
      {{{"prompt", "x"}, {"seed", -2}}, "seed"},
      {{{"prompt", "x"}, {"seed", 1e18}}, "seed"},
      {{{"prompt", "x"}, {"look_inside", "yes"}}, "look_inside"},
      {{{"prompt", "x"}, {"model", 3}}, "model"},
  };
  for (const auto& [order, field] : cases) {
    const Answer answer = served().post("/mdm/v1/jobs", order);
    EXPECT_EQ(answer.status, 400) << order;
    EXPECT_EQ(json(answer)["error"]["field"], field) << answer.body;
  }
  EXPECT_EQ(served().post("/mdm/v1/jobs", Json{{"model", "other"}}).status, 404);
}

TEST_F(NativeApi, BadBodiesAreRefused) {
  std::string deep;
  for (int i = 0; i < 5000; ++i) deep += "[";
  for (const std::string& body : {std::string("{"),
                                  std::string("[]"),
                                  std::string("7"),
                                  std::string(""),
                                  std::string("{\"prompt\": \"\xff\xfe\"}"),
                                  std::string("{\"prompt\": \"\xc0\x80\"}"),
                                  std::string("{\"guidance_scale\": NaN}"),
                                  std::string("{\"guidance_scale\": 1e309}"),
                                  std::string("{\"guidance_scale\": -1e309}"),
                                  std::string("{\"prompt\":\"a\",\"prompt\":\"b\"}"),
                                  std::string("{\"a\":{\"b\":1,\"b\":2}}"),
                                  std::string("{} {}"),
                                  std::string("{\"prompt\":\"x\",}"),
                                  std::string("{\"prompt\": \"\\ud800\"}"),
                                  deep,
                                  "{\"a\":" + deep,
                                  std::string("// hello\n{}"),
                                  std::string("\xef\xbb\xbf{}"),
                                  std::string("{}\0{}", 5),
                                  std::string("{}\0", 3)}) {
    const Answer answer = served().post("/mdm/v1/jobs", body);
    EXPECT_EQ(answer.status, 400) << body.substr(0, 60);
    EXPECT_EQ(json(answer)["error"]["code"], "invalid_json");
  }
}

TEST_F(NativeApi, StrangePathsLeadNowhere) {
  for (const char* path :
       {"/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd", "/\\..\\..\\etc\\passwd",
        "/page.css/", "//", "/./", "/mdm/v1/jobs/", "/mdm/v1/jobs/../models", "/mdm/v1/jobs/xyz",
        "/mdm/v1/jobs/0/pictures/0.png", "/mdm/v1/models/..", "/mdm/v1/models/%66lat", "/index.html",
        "/page.css%00.png", "/mdm/v1/models/flat/../../x", "*"}) {
    const Answer answer = served().get(path);
    EXPECT_EQ(answer.status, 404) << path;
    EXPECT_EQ(answer.body.find("root:"), std::string::npos);
  }
  EXPECT_EQ(served().get("http://evil.example/healthz").status, 421);  // a whole URL's host counts, not the header's
  EXPECT_EQ(served().get("http://127.0.0.1/healthz").status, 200);
  EXPECT_EQ(
      serving_test::request(served().port(), "PUT", "/mdm/v1/jobs", "{}", {"Content-Type: application/json"}).status,
      405);
  EXPECT_EQ(serving_test::request(served().port(), "POST", "/healthz", "{}").status, 405);
  const Json job = served().made({{"prompt", "x"}, {"num_inference_steps", 1}});
  const std::string url = "/mdm/v1/jobs/" + job["id"].get<std::string>();
  for (const char* end : {"/pictures/1.png", "/pictures/-1.png", "/pictures/99999999999999999999999.png",
                          "/pictures/0x0.png", "/pictures/0/levels/0.png"}) {
    EXPECT_EQ(served().get(url + end).status, 404) << end;
  }
}

TEST_F(NativeApi, EveryAnswerIsGuarded) {
  for (const char* path : {"/", "/healthz", "/nothing", "/mdm/v1/models"}) {
    const Answer answer = served().get(path);
    const std::string& policy = answer.headers.at("content-security-policy");
    EXPECT_NE(policy.find("default-src 'none'"), std::string::npos);
    EXPECT_NE(policy.find("frame-ancestors 'none'"), std::string::npos);
    EXPECT_EQ(policy.find("unsafe"), std::string::npos);
    EXPECT_EQ(answer.headers.at("x-content-type-options"), "nosniff");
    EXPECT_EQ(answer.headers.count("access-control-allow-origin"), 0u);
    EXPECT_EQ(answer.headers.count("server"), 0u);
  }
  EXPECT_EQ(served().get("/", {"Host: evil.example"}).status, 421);
  EXPECT_EQ(served().get("/mdm/v1/models", {"Origin: http://evil.example"}).status, 403);
}

TEST_F(NativeApi, ThePageIsThere) {
  const Answer page = served().get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.headers.at("content-type"), "text/html; charset=utf-8");
  EXPECT_NE(page.body.find("<html"), std::string::npos);
  const Answer again = served().get("/", {"If-None-Match: " + page.headers.at("etag")});
  EXPECT_EQ(again.status, 304);
  EXPECT_EQ(again.body, "");
}

// What is described is there, and what is there is described.
TEST_F(NativeApi, TheDescriptionHasEveryRoute) {
  const Json description = json(served().get("/openapi.json"));
  std::set<std::string> described, there;
  for (const auto& [path, operations] : description["paths"].items()) {
    for (const auto& [method, operation] : operations.items()) {
      if (method == "parameters") continue;
      std::string upper = method;
      for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      described.insert(upper + " " + path);
    }
  }
  std::set<std::string> page;
  for (const PageFile& file : page_files()) page.insert("GET " + std::string(file.path));
  for (const std::string& route : served().service().routes()) {
    if (page.count(route) == 0) there.insert(route);
  }
  EXPECT_EQ(described, there);
}

TEST_F(NativeApi, CancelsAndForgets) {
  const Json job =
      json(served().post("/mdm/v1/jobs", Json{{"model", "nested"}, {"prompt", "x"}, {"num_inference_steps", 1000}}));
  const std::string url = "/mdm/v1/jobs/" + job["id"].get<std::string>();
  EXPECT_EQ(served().get(url + "/pictures/0.png").status, 409);
  EXPECT_EQ(json(serving_test::request(served().port(), "DELETE", url))["state"], "cancelled");
  EXPECT_EQ(json(served().post(url + "/cancel", std::string()))["state"], "cancelled");
  EXPECT_EQ(served().made({{"prompt", "next"}, {"num_inference_steps", 1}})["state"], "done");
}

TEST(ServiceLimits, QueueAndClientsHaveBounds) {
  ServiceOptions options = Served::open_options();
  options.queue.queued = 3;
  options.queue.per_client = 2;
  Served served(options);
  const Json order = {{"prompt", "x"}, {"num_inference_steps", 1000}, {"look_inside", true}};
  std::vector<std::string> ids;
  for (int i = 0; i < 2; ++i) ids.push_back(Json::parse(served.post("/mdm/v1/jobs", order).body)["id"]);
  const Answer refused = served.post("/mdm/v1/jobs", order);
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.headers.count("retry-after"), 1u);
  for (const std::string& id : ids) serving_test::request(served.port(), "DELETE", "/mdm/v1/jobs/" + id);
}

// A thousand posts at once (S2): right answers or clean refusals, and none is lost.
TEST(ServiceLimits, AThousandPostsAtOnce) {
  ServiceOptions options = Served::open_options();
  options.queue.queued = 8;
  Served served(options);
  std::atomic<int> taken{0}, refused{0}, other{0};
  std::mutex mutex;
  std::vector<std::string> ids;
  std::vector<std::thread> threads;
  for (int t = 0; t < 50; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        const Answer answer =
            served.post("/mdm/v1/jobs", Json{{"prompt", "x"}, {"num_inference_steps", 1}, {"preview", false}});
        if (answer.status == 202) {
          ++taken;
          const std::lock_guard<std::mutex> lock(mutex);
          ids.push_back(Json::parse(answer.body)["id"]);
        } else if (answer.status == 503 || answer.status == 429) {
          ++refused;
        } else {
          ++other;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(other, 0);
  EXPECT_EQ(taken + refused, 1000);
  EXPECT_GT(taken, 0);
  for (const std::string& id : ids) EXPECT_EQ(served.finished(id)["state"], "done");
  const std::string figures = served.get("/metrics").body;
  EXPECT_NE(figures.find("mdm_jobs_submitted_total " + std::to_string(taken.load())), std::string::npos);
  EXPECT_NE(figures.find("mdm_jobs_total{state=\"done\"} " + std::to_string(taken.load())), std::string::npos);
}

TEST(ServiceKey, IsAskedFor) {
  ServiceOptions options = Served::open_options();
  options.access.key = "a key of the test";
  Served served(options);
  EXPECT_EQ(served.get("/").status, 200);
  EXPECT_EQ(served.get("/mdm/v1/models").status, 401);
  EXPECT_EQ(served.get("/metrics").status, 401);
  EXPECT_EQ(served.get("/mdm/v1/models", {"Authorization: Bearer a key of the test"}).status, 200);
  EXPECT_EQ(Json::parse(served.get("/mdm/v1/session").body), Json({{"key_needed", true}, {"signed_in", false}}));
  EXPECT_EQ(served.post("/mdm/v1/session", Json{{"key", "wrong"}}).status, 401);
  const Answer in = served.post("/mdm/v1/session", Json{{"key", "a key of the test"}});
  EXPECT_EQ(in.status, 200);
  const std::string cookie = "Cookie: " + in.headers.at("set-cookie");
  EXPECT_EQ(served.get("/mdm/v1/models", {cookie}).status, 200);
}

// Batches hold what their neighbours' jobs brought, and the pictures are each job's own (contract 4).
TEST(ServiceBatches, PicturesAreWhatTheirSeedsGiveAlone) {
  Served served;
  const auto order = [](int seed) {
    return Json{{"model", "flat"}, {"prompt", "p" + std::to_string(seed)}, {"num_inference_steps", 3}, {"seed", seed}};
  };
  const auto pixels = [&](const Json& job) {
    const Answer answer = served.get(job["pictures"][0]["url"]);
    return decode_image(reinterpret_cast<const uint8_t*>(answer.body.data()), answer.body.size(), "answer").pixels;
  };
  std::vector<std::vector<uint8_t>> alone;
  for (int seed = 0; seed < 4; ++seed) alone.push_back(pixels(served.made(order(seed))));
  const Json blocker = Json::parse(
      served.post("/mdm/v1/jobs", Json{{"model", "nested"}, {"prompt", "x"}, {"num_inference_steps", 300}}).body);
  std::vector<std::string> ids;
  for (int seed = 0; seed < 4; ++seed) ids.push_back(Json::parse(served.post("/mdm/v1/jobs", order(seed)).body)["id"]);
  serving_test::request(served.port(), "DELETE", "/mdm/v1/jobs/" + blocker["id"].get<std::string>());
  for (size_t seed = 0; seed < 4; ++seed) {
    const Json job = served.finished(ids[seed]);
    EXPECT_EQ(job["batched_with"], 3);
    const auto together = pixels(job);
    ASSERT_EQ(together.size(), alone[seed].size());
    int most = 0;
    for (size_t i = 0; i < together.size(); ++i) most = std::max(most, std::abs(together[i] - alone[seed][i]));
    EXPECT_LE(most, 2);
  }
}

TEST(ServiceStops, AndTellsWhoWaits) {
  auto served = std::make_unique<Served>();
  const uint16_t port = served->port();
  const Json job = Json::parse(
      served->post("/mdm/v1/jobs", Json{{"model", "nested"}, {"prompt", "x"}, {"num_inference_steps", 1000}}).body);
  RawClient events(port), waits(port);
  events.send("GET /mdm/v1/jobs/" + job["id"].get<std::string>() + "/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_NE(events.receive_until("event: progress", 20), "");
  const std::string body = R"({"prompt":"x"})";
  waits.send(
      "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: " +
      std::to_string(body.size()) + "\r\n\r\n" + body);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const auto began = std::chrono::steady_clock::now();
  served->service().stop();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
  EXPECT_NE(events.receive(2).find("\"state\":\"cancelled\""), std::string::npos);
  EXPECT_NE(waits.receive(2).find("503"), std::string::npos);
  EXPECT_FALSE(RawClient(port).connected());
}

TEST(ModelShelfMemory, UnloadsWhatWasUsedLongestAgo) {
  const auto shelf = serving_test::small_shelf(/*memory=*/1);
  const std::atomic<bool> go_on{false};
  GenerationCallbacks callbacks;
  callbacks.cancel = &go_on;
  SampleConfig sample = shelf->find("flat")->pipeline.config().sample;
  sample.num_inference_steps = 1;
  sample.batch_size = 1;
  callbacks.on_pictures = [](std::vector<Picture>) {};
  shelf->make("flat", {pipeline_test::request("x", 1)}, sample, callbacks);
  EXPECT_TRUE(shelf->find("flat")->pipeline.loaded());
  shelf->make("nested", {pipeline_test::request("x", 1)}, sample, callbacks);
  EXPECT_FALSE(shelf->find("flat")->pipeline.loaded());
  EXPECT_TRUE(shelf->find("nested")->pipeline.loaded());
  shelf->make("flat", {pipeline_test::request("x", 1)}, sample, callbacks);
  EXPECT_TRUE(shelf->find("flat")->pipeline.loaded());
}

TEST(ModelSpecs, AreRead) {
  const ModelSpec full = ModelSpec::parse("64=a/b.pth:c.yaml");
  EXPECT_EQ(full.name, "64");
  EXPECT_EQ(full.checkpoint, "a/b.pth");
  ASSERT_EQ(full.configs.size(), 1u);
  EXPECT_EQ(full.configs[0], "c.yaml");
  EXPECT_EQ(ModelSpec::parse("dir/name.pth").name, "name");
  for (const char* wrong : {"", "=", "x=", "a b=c.pth", "x=c.pth:", "<b>=x.pth", "x=:y"}) {
    EXPECT_THROW(ModelSpec::parse(wrong), ConfigError) << wrong;
  }
}

}  // namespace
}  // namespace mdm::serving
