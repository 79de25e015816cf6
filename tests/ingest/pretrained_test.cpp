// Published weights, from a server of the test's own.
#include "mdm/ingest/pretrained.h"

#include <atomic>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>

#include "ingest/support.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/text/text_model.h"
#include "net/tiny_server.h"
#include "support/tiny_spiece.h"

namespace mdm::ingest {
namespace {

namespace fs = std::filesystem;
using ingest_test::FolderTest;
using ingest_test::names_in;
using net_test::http_answer;
using net_test::serve_file;
using net_test::ServerReply;
using net_test::ServerRequest;
using net_test::TinyServer;

// Files that begin as such files do.
std::string weights_of(char fill, size_t bytes = 100000) { return "PK\x03\x04" + std::string(bytes - 4, fill); }
std::string tensors(const std::string& text) { return std::string("\x20\0\0\0\0\0\0\0{", 9) + text; }

class PretrainedTest : public FolderTest {
 protected:
  ServerReply answer(const ServerRequest& request) {
    const std::lock_guard<std::mutex> lock(mutex_);
    requests_.push_back(request);
    if (const auto moved = moved_.find(request.path); moved != moved_.end()) {
      return {http_answer("302 Found", "", {"Location: " + moved->second})};
    }
    const auto found = files_.find(request.path);
    if (found == files_.end()) return {http_answer("404 Not Found", "")};
    ServerReply reply = serve_file(request, found->second, '"' + sha256_hex(found->second) + '"');
    if (cuts_ > 0 && request.header("range") != "bytes=0-0") {
      --cuts_;
      reply.bytes.resize(reply.bytes.size() / 2);
    }
    return reply;
  }
  PretrainedSettings settings() {
    PretrainedSettings settings;
    settings.folder = folder_ / "cache";
    settings.model_url = server_.url("/mdm");
    settings.text_url = server_.url("/hub");
    settings.http.allow_private = true;
    settings.http.first_wait_seconds = 0.01;
    return settings;
  }
  template <typename Kind>
  std::string error_of(const PretrainedSettings& settings) {
    try {
      fetch_pretrained(settings);
    } catch (const Kind& error) {
      return error.what();
    }
    ADD_FAILURE() << "no such error";
    return {};
  }

  std::map<std::string, std::string> files_ = {
      {"/mdm/flickr64/vis_model.pth", weights_of('w')},
      {"/hub/google/t5/resolve/main/config.json", "{}"},
      {"/hub/google/t5/resolve/main/spiece.model", test_support::tiny_spiece_model()}};
  std::map<std::string, std::string> moved_;  // to where
  std::atomic<int> cuts_{0};
  std::mutex mutex_;
  std::vector<ServerRequest> requests_;
  TinyServer server_{[this](const ServerRequest& request) { return answer(request); }};
};

TEST_F(PretrainedTest, BringsAModelOnceAndRecordsIt) {
  PretrainedSettings all = settings();
  all.models = {"flickr64"};
  uint64_t last = 0;
  all.show = [&](const std::string& file, uint64_t done, uint64_t total) {
    EXPECT_EQ(file, "vis_model_64x64.pth");
    EXPECT_EQ(total, 100000u);
    last = done;
  };
  const auto items = fetch_pretrained(all);
  ASSERT_EQ(items.size(), 1u);
  EXPECT_TRUE(items[0].fetched);
  EXPECT_EQ(items[0].path, folder_ / "cache" / "vis_model_64x64.pth");
  EXPECT_EQ(last, 100000u);
  EXPECT_EQ(read_text_file(items[0].path), weights_of('w'));
  const auto note = nlohmann::json::parse(read_text_file(items[0].path.string() + ".json"));
  EXPECT_EQ(note["sha256"], sha256_hex(weights_of('w')));
  EXPECT_EQ(note["bytes"], 100000);
  const size_t asked = requests_.size();
  EXPECT_FALSE(fetch_pretrained(all)[0].fetched);
  EXPECT_EQ(requests_.size(), asked);
  EXPECT_EQ(names_in(folder_ / "cache"), (std::set<std::string>{"vis_model_64x64.pth", "vis_model_64x64.pth.json"}));
}

TEST_F(PretrainedTest, GoesOnAfterACut) {
  cuts_ = 2;
  PretrainedSettings all = settings();
  all.models = {"flickr64"};
  all.http.tries = 1;
  EXPECT_THROW(fetch_pretrained(all), NetError);
  EXPECT_FALSE(fs::exists(folder_ / "cache" / "vis_model_64x64.pth"));
  EXPECT_THROW(fetch_pretrained(all), NetError);
  EXPECT_TRUE(fetch_pretrained(all)[0].fetched);
  EXPECT_EQ(read_text_file(folder_ / "cache" / "vis_model_64x64.pth"), weights_of('w'));
  int parts = 0;
  for (const auto& request : requests_)
    parts += request.header("range").empty() || request.header("range") == "bytes=0-0" ? 0 : 1;
  EXPECT_EQ(parts, 2);  // it did not begin anew
}

TEST_F(PretrainedTest, AnotherFileUnderTheSameNameIsRefused) {
  PretrainedSettings all = settings();
  all.models = {"flickr64"};
  const fs::path file = fetch_pretrained(all)[0].path;
  const std::string before = sha256_hex(weights_of('w')), after = sha256_hex(weights_of('v'));
  write_file(file, weights_of('v'));  // the same size: only looked at when asked for
  EXPECT_FALSE(fetch_pretrained(all)[0].fetched);
  all.check = true;
  std::string text = error_of<DataError>(all);
  EXPECT_NE(text.find(before), std::string::npos) << text;
  EXPECT_NE(text.find(after), std::string::npos) << text;
  all.check = false;
  fs::remove(file);
  files_["/mdm/flickr64/vis_model.pth"] = weights_of('x', 90000);  // the server has another one
  text = error_of<DataError>(all);
  EXPECT_NE(text.find("90000 bytes"), std::string::npos) << text;
  EXPECT_FALSE(fs::exists(file));
  all.accept_changed = true;
  EXPECT_TRUE(fetch_pretrained(all)[0].fetched);
  EXPECT_EQ(fs::file_size(file), 90000u);
  all.accept_changed = false;
  all.check = true;
  EXPECT_FALSE(fetch_pretrained(all)[0].fetched);
  fs::resize_file(file, 5);  // a wrong size is noticed without being asked
  all.check = false;
  error_of<DataError>(all);
}

TEST_F(PretrainedTest, ATextModelAppearsWhenItIsComplete) {
  const std::string base = "/hub/google/t5/resolve/main/";
  files_[base + "model.safetensors.index.json"] =
      R"({"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}})";
  files_[base + "model-00001-of-00002.safetensors"] = tensors("one");
  PretrainedSettings all = settings();
  all.text_models = {"google/t5"};
  all.token = "secret-token";
  const fs::path folder = text_model_folder(folder_ / "cache", "google/t5");
  const std::string text = error_of<NetError>(all);
  EXPECT_NE(text.find("404"), std::string::npos) << text;
  EXPECT_FALSE(fs::exists(folder));
  files_[base + "model-00002-of-00002.safetensors"] = tensors("two");
  const auto items = fetch_pretrained(all);
  EXPECT_EQ(items[0].path, folder);
  EXPECT_EQ(find_text_model_files(folder).weights.size(), 2u);
  EXPECT_EQ(find_text_model_files(folder).spiece_model.filename(), "spiece.model");
  for (const auto& request : requests_) EXPECT_EQ(request.header("authorization"), "Bearer secret-token");
  EXPECT_FALSE(fetch_pretrained(all)[0].fetched);
}

TEST_F(PretrainedTest, ATextModelInOneFile) {
  files_["/hub/google/t5/resolve/main/model.safetensors"] = tensors("weights");
  PretrainedSettings all = settings();
  all.text_models = {"google/t5"};
  EXPECT_EQ(find_text_model_files(fetch_pretrained(all)[0].path).weights.size(), 1u);
}

// A page in the place of weights, with status 200, is told at once, and nothing of it is kept or recorded.
TEST_F(PretrainedTest, APageIsNoModel) {
  const std::string page = "<!DOCTYPE html><title>Please log in</title>";
  files_["/mdm/flickr64/vis_model.pth"] = page;
  PretrainedSettings all = settings();
  all.models = {"flickr64"};
  EXPECT_NE(error_of<DataError>(all).find("no .pth file; it begins with \"<!DOCTYPE"), std::string::npos);
  EXPECT_TRUE(names_in(folder_ / "cache").empty());
  files_["/mdm/flickr64/vis_model.pth"] = weights_of('w');
  EXPECT_TRUE(fetch_pretrained(all)[0].fetched);
  all.models = {};
  all.text_models = {"google/t5"};
  const std::string base = "/hub/google/t5/resolve/main/";
  files_[base + "model.safetensors"] = tensors("weights");
  for (const char* name : {"config.json", "spiece.model", "model.safetensors"}) {
    const std::string right = files_[base + name];
    for (const std::string& wrong : {page, std::string()}) {
      files_[base + name] = wrong;
      EXPECT_NE(error_of<DataError>(all).find(name), std::string::npos) << name;
    }
    files_[base + name] = right;
  }
  EXPECT_TRUE(fetch_pretrained(all)[0].fetched);
}

// The token is for the text model's server, not for where that sends us.
TEST_F(PretrainedTest, ATokenStaysWithItsServer) {
  std::string elsewhere_saw = "nothing";
  TinyServer elsewhere([&](const ServerRequest& request) -> ServerReply {
    elsewhere_saw = request.header("authorization");
    return serve_file(request, tensors("weights"), "\"1\"");
  });
  moved_["/hub/google/t5/resolve/main/model.safetensors"] = elsewhere.url("/blob");
  PretrainedSettings all = settings();
  all.text_models = {"google/t5"};
  all.token = "secret-token";
  fetch_pretrained(all);
  EXPECT_EQ(elsewhere_saw, "");
}

TEST_F(PretrainedTest, AnIndexNamesOnlyFilesBesideIt) {
  for (const char* name : {"../evil", "/etc/passwd", "a/b", ".hidden", ""}) {
    files_["/hub/google/t5/resolve/main/model.safetensors.index.json"] =
        nlohmann::json{{"weight_map", {{"a", name}}}}.dump();
    PretrainedSettings all = settings();
    all.text_models = {"google/t5"};
    EXPECT_NE(error_of<DataError>(all).find("which is no file beside it"), std::string::npos);
    fs::remove_all(folder_ / "cache");
  }
  EXPECT_FALSE(fs::exists(folder_ / "evil"));
}

TEST_F(PretrainedTest, UnknownNames) {
  PretrainedSettings all = settings();
  all.models = {"flickr46"};
  EXPECT_NE(error_of<ConfigError>(all).find("is flickr64 meant?"), std::string::npos);
  all.models = {};
  for (const char* id : {"../x", "a/b/c", "", "-x"}) {
    all.text_models = {id};
    error_of<ConfigError>(all);
  }
  EXPECT_TRUE(requests_.empty());
}

TEST_F(PretrainedTest, TheDownloadedTextModelIsFoundByItsId) {
  files_["/hub/google/t5/resolve/main/model.safetensors"] = tensors("weights");
  PretrainedSettings all = settings();
  all.folder = folder_ / "home" / "cache" / "text";
  all.text_models = {"google/t5"};
  fetch_pretrained(all);
  const char* before = std::getenv("MDM_HOME");
  const std::string kept = before == nullptr ? "" : before;
  ::setenv("MDM_HOME", (folder_ / "home").c_str(), 1);
  EXPECT_EQ(resolve_text_model("google/t5", folder_ / "no hub"), text_model_folder(all.folder, "google/t5"));
  EXPECT_THROW(resolve_text_model("google/t6", folder_ / "no hub"), ConfigError);
  if (before == nullptr) {
    ::unsetenv("MDM_HOME");
  } else {
    ::setenv("MDM_HOME", kept.c_str(), 1);
  }
}

}  // namespace
}  // namespace mdm::ingest
