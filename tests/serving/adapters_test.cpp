// The forms of OpenAI's and AUTOMATIC1111's APIs, field by field; real clients are in clients_test.py.
#include <gtest/gtest.h>

#include "mdm/core/digest.h"
#include "serving/served.h"

namespace mdm::serving {
namespace {

using serving_test::Answer;
using serving_test::RawClient;
using serving_test::Served;

Served& served() {
  static Served one;
  return one;
}

Json json(const Answer& answer) { return Json::parse(answer.body); }

// The same order by the native API, as base64.
std::string native_png(const Json& order) {
  const Json job = served().made(order);
  return to_base64(served().get(job["pictures"][0]["url"]).body);
}

TEST(OpenAiApi, GivesTheNativePictures) {
  const Answer answer = served().post("/v1/images/generations", Json{{"model", "flat"},
                                                                     {"prompt", "a red circle"},
                                                                     {"n", 2},
                                                                     {"size", "16x16"},
                                                                     {"response_format", "b64_json"},
                                                                     {"user", "me"},
                                                                     {"stream", nullptr},
                                                                     {"partial_images", 0},
                                                                     {"quality", "high"},
                                                                     {"num_inference_steps", 2},
                                                                     {"seed", 4}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json body = json(answer);
  ASSERT_EQ(body["data"].size(), 2u);
  EXPECT_GT(body["created"].get<int64_t>(), 1700000000);
  EXPECT_EQ(body["data"][0]["b64_json"], native_png({{"model", "flat"},
                                                     {"prompt", "a red circle"},
                                                     {"num_samples", 2},
                                                     {"num_inference_steps", 2},
                                                     {"seed", 4}}));
  EXPECT_EQ(json(served().get("/v1/models"))["data"].size(), 2u);
}

TEST(OpenAiApi, RefusesInItsOwnForm) {
  const std::vector<std::pair<Json, std::string>> cases = {
      {{{"n", 1}}, "prompt"},
      {{{"prompt", "x"}, {"response_format", "url"}}, "response_format"},
      {{{"prompt", "x"}, {"size", "16x32"}}, "size"},
      {{{"prompt", "x"}, {"size", "huge"}}, "size"},
      {{{"prompt", "x"}, {"size", "1024x1024"}}, "sample_image_size"},
      {{{"prompt", "x"}, {"output_format", "webp"}}, "output_format"},
      {{{"prompt", "x"}, {"stream", true}}, "stream"},
      {{{"prompt", "x"}, {"n", 100}}, "num_samples"},
      {{{"prompt", "x"}, {"nonsense", 1}}, "nonsense"}};
  for (const auto& [order, field] : cases) {
    const Answer answer = served().post("/v1/images/generations", order);
    EXPECT_EQ(answer.status, 400) << order;
    EXPECT_EQ(json(answer)["error"]["param"], field) << answer.body;
    EXPECT_EQ(json(answer)["error"]["type"], "invalid_request_error");
  }
  const Answer missing = served().post("/v1/images/generations", Json{{"prompt", "x"}, {"model", "dall-e-3"}});
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(json(missing)["error"]["code"], "model_not_found");
}

TEST(A1111Api, GivesTheNativePictures) {
  const Answer answer =
      served().post("/sdapi/v1/txt2img", Json{{"prompt", "a red circle"},
                                              {"negative_prompt", "blue"},
                                              {"steps", 2},
                                              {"cfg_scale", 3},
                                              {"seed", 4},
                                              {"width", 16},
                                              {"height", 16},
                                              {"batch_size", 1},
                                              {"n_iter", 2},
                                              {"sampler_name", "DPM++ 2M"},
                                              {"restore_faces", false},
                                              {"tiling", false},
                                              {"styles", Json::array()},
                                              {"s_noise", 1.0},
                                              {"hr_scale", 2},
                                              {"eta", 0},
                                              {"scheduler", "Automatic"},
                                              {"save_images", false},
                                              {"override_settings", {{"sd_model_checkpoint", "nested"}}}});
  ASSERT_EQ(answer.status, 200) << answer.body;
  const Json body = json(answer);
  ASSERT_EQ(body["images"].size(), 2u);
  EXPECT_EQ(body["images"][0], native_png({{"model", "nested"},
                                           {"prompt", "a red circle"},
                                           {"negative_prompt", "blue"},
                                           {"num_inference_steps", 2},
                                           {"guidance_scale", 3},
                                           {"seed", 4},
                                           {"num_samples", 2},
                                           {"sampler", "dpmpp_2m"}}));
  const Json info = Json::parse(body["info"].get<std::string>());
  EXPECT_EQ(info["all_seeds"], Json({4, 5}));
  EXPECT_EQ(json(served().get("/sdapi/v1/sd-models")).size(), 2u);
  EXPECT_GE(json(served().get("/sdapi/v1/samplers")).size(), 7u);
}

TEST(A1111Api, RefusesWhatItCannotDo) {
  const std::vector<std::pair<Json, std::string>> cases = {
      {{{"prompt", "x"}, {"enable_hr", true}}, "enable_hr"},
      {{{"prompt", "x"}, {"restore_faces", true}}, "restore_faces"},
      {{{"prompt", "x"}, {"styles", {"a"}}}, "styles"},
      {{{"prompt", "x"}, {"width", 16}, {"height", 32}}, "width"},
      {{{"prompt", "x"}, {"batch_size", 1000000}, {"n_iter", 1000000}}, "batch_size"},
      {{{"prompt", "x"}, {"steps", 0}}, "steps"},
      {{{"prompt", "x"}, {"cfg_scale", "a"}}, "cfg_scale"},
      {{{"prompt", "x"}, {"batch_size", 100}}, "batch_size"},
      {{{"prompt", "x"}, {"width", 32}, {"height", 32}}, "width"},
      {{{"prompt", "x"}, {"sampler_name", "Magic"}}, "sampler_name"},
      {{{"prompt", "x"}, {"sampler_index", "Magic"}}, "sampler_name"},
      {{{"prompt", "x"}, {"scheduler", "Karras"}}, "scheduler"},
      {{{"prompt", "x"}, {"send_images", false}}, "send_images"},
      {{{"prompt", "x"}, {"alwayson_scripts", {{"controlnet", 1}}}}, "alwayson_scripts"},
      {{{"prompt", "x"}, {"override_settings", "abc"}}, "override_settings"},
      {{{"prompt", "x"}, {"override_settings", {{"outdir_samples", "/etc"}}}}, "override_settings"}};
  for (const auto& [order, field] : cases) {
    const Answer answer = served().post("/sdapi/v1/txt2img", order);
    EXPECT_EQ(answer.status, 422) << order;
    EXPECT_EQ(json(answer)["detail"].get<std::string>().rfind(field, 0), 0u) << answer.body;
  }
}

TEST(Adapters, AClientThatGoesCancelsItsJob) {
  Served own;
  const std::string body = R"({"model":"nested","prompt":"x","num_inference_steps":1000})";
  {
    RawClient client(own.port());
    client.send(
        "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        "application/json\r\nContent-Length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body);
    for (int i = 0; i < 500 && own.service().queue().counts().running == 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_EQ(own.service().queue().counts().running, 1u);
  }
  for (int i = 0; i < 500 && own.service().queue().counts().running > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(own.service().queue().counts().running, 0u);
  EXPECT_NE(own.get("/metrics").body.find("mdm_jobs_total{state=\"cancelled\"} 1"), std::string::npos);
}

}  // namespace
}  // namespace mdm::serving
