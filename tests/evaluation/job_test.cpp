// The program as a function: folders, lists, archives and statistics in, numbers and clear errors out.
#include "mdm/evaluation/evaluate_job.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>

#include "evaluation/golden.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/data/tar.h"
#include "mdm/evaluation/statistics.h"
#include "mdm/media/png.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// An empty folder of its own for each test.
fs::path fresh_folder(const std::string& name) {
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  const fs::path folder = testing::scratch_folder() / (std::string(test->name()) + "_" + name);
  fs::remove_all(folder);
  fs::create_directories(folder);
  return folder;
}

Image drawn_picture(const std::string& name, int width, int height) {
  Image image(width, height, 3);
  const std::vector<double> u = testing::named_uniform(name, image.pixels.size());
  for (size_t i = 0; i < u.size(); ++i) image.pixels[i] = static_cast<uint8_t>(128 + 127 * u[i]);
  return image;
}

fs::path folder_of_pictures(const std::string& name, int count) {
  const fs::path folder = fresh_folder(name);
  for (int i = 0; i < count; ++i) {
    write_png(folder / ("p" + std::to_string(i) + ".png"), drawn_picture(name + std::to_string(i), 20 + i, 24));
  }
  return folder;
}

int run(const std::vector<std::string>& arguments) {
  static const std::atomic<bool> cancel{false};
  return run_evaluate(parse_command_line(arguments, evaluate_app_info()), cancel);
}

// What is printed meanwhile, also where an error comes.
class CapturedOutput {
 public:
  CapturedOutput() { ::testing::internal::CaptureStdout(); }
  ~CapturedOutput() {
    if (!taken_) ::testing::internal::GetCapturedStdout();
  }
  std::string text() {
    taken_ = true;
    return ::testing::internal::GetCapturedStdout();
  }

 private:
  bool taken_ = false;
};

struct Outcome {
  int code;
  Json json;
  double result(const char* name) const { return json["results"][name].get<double>(); }
};

// With 64 features, which a few pictures are enough for, and the JSON that comes of it.
Outcome scored(std::vector<std::string> arguments) {
  const fs::path output = fresh_folder("output") / "scores.json";
  for (const std::string& more :
       {std::string("--output"), output.string(), std::string("--fid-features"), std::string("64"),
        std::string("--inception"), testing::inception_weights().string()}) {
    arguments.push_back(more);
  }
  const CapturedOutput quiet;
  const int code = run(arguments);
  return {code, Json::parse(read_text_file(output))};
}

std::string problem(const std::vector<std::string>& arguments) {
  try {
    run(arguments);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Evaluate, ScoresTwoFolders) {
  const fs::path generated = folder_of_pictures("a", 6), reference = folder_of_pictures("b", 7);
  const Outcome both = scored(
      {"--generated", generated.string(), "--reference", reference.string(), "--metrics", "fid,kid,precision_recall"});
  EXPECT_EQ(both.code, 0);
  EXPECT_GT(both.result("fid"), 0);
  EXPECT_EQ(both.json["generated"]["pictures"], 6);
  EXPECT_EQ(both.json["reference"]["pictures"], 7);
  EXPECT_EQ(both.json["generated"]["broken"], 0);
  EXPECT_EQ(both.json["kid"]["subset_size"], 6);
  EXPECT_EQ(both.json["networks"]["inception"]["resize"], "tf1");
  EXPECT_EQ(both.json["networks"]["inception"]["features"], 64);
  EXPECT_EQ(both.json["networks"]["inception"]["weights"][0]["sha256"].get<std::string>().size(), 64U);
  EXPECT_GE(both.result("precision"), 0);
  EXPECT_EQ(both.json["warnings"].size(), 2U);  // few pictures for 64 features, twice
  const Outcome other =
      scored({"--generated", generated.string(), "--reference", reference.string(), "--fid-resize", "clean"});
  EXPECT_NE(other.result("fid"), both.result("fid"));
  EXPECT_FALSE(other.json["results"].contains("kid"));
}

TEST(Evaluate, GivesASetAgainstItselfNothing) {
  const fs::path folder = folder_of_pictures("a", 3);
  const Outcome same = scored({"--generated", folder.string(), "--reference", folder.string()});
  EXPECT_LT(same.result("fid"), 1e-6);
}

TEST(Evaluate, DoesNotDependOnTheNumberOfThreads) {
  const fs::path generated = folder_of_pictures("a", 9), reference = folder_of_pictures("b", 8);
  const int before = at::get_num_threads();
  double results[3];
  for (int threads = 1; threads <= 3; ++threads) {
    results[threads - 1] = scored({"--generated", generated.string(), "--reference", reference.string(), "--threads",
                                   std::to_string(threads)})
                               .result("fid");
  }
  at::set_num_threads(before);
  EXPECT_NEAR(results[1] / results[0], 1, 1e-12);
  EXPECT_NEAR(results[2] / results[0], 1, 1e-12);
}

TEST(Evaluate, KeepsAndReadsStatistics) {
  const fs::path generated = folder_of_pictures("a", 6), reference = folder_of_pictures("b", 7);
  const std::string file = (fresh_folder("statistics") / "b.npz").string();
  const Outcome first =
      scored({"--generated", generated.string(), "--reference", reference.string(), "--save-reference", file});
  const Outcome second = scored({"--generated", generated.string(), "--reference", file});
  EXPECT_DOUBLE_EQ(first.result("fid"), second.result("fid"));
  EXPECT_EQ(second.json["reference"]["pictures"], 7);
  const Outcome alone = scored({"--reference", reference.string(), "--save-reference", file});
  EXPECT_TRUE(alone.json["results"].empty());
  EXPECT_EQ(read_statistics(file)[0].second.count, 7);
  EXPECT_NE(problem({"--generated", generated.string(), "--reference", file, "--metrics", "kid", "--inception",
                     testing::inception_weights().string()})
                .find("statistics hold no features"),
            std::string::npos);
}

TEST(Evaluate, CountsBrokenPictures) {
  const fs::path generated = folder_of_pictures("a", 4), reference = folder_of_pictures("b", 4);
  const double before = scored({"--generated", generated.string(), "--reference", reference.string()}).result("fid");
  const std::string whole = read_text_file(generated / "p1.png");
  write_file(generated / "p00.png", whole.substr(0, whole.size() / 2));
  write_file(generated / "p9.jpg", "no picture");
  const Outcome some = scored({"--generated", generated.string(), "--reference", reference.string()});
  EXPECT_EQ(some.code, 4);
  EXPECT_EQ(some.json["generated"]["pictures"], 4);
  EXPECT_EQ(some.json["generated"]["broken"], 2);
  EXPECT_EQ(some.json["generated"]["broken_pictures"].size(), 2U);
  EXPECT_DOUBLE_EQ(some.result("fid"), before);
  for (int i = 0; i < 4; ++i) fs::remove(generated / ("p" + std::to_string(i) + ".png"));
  EXPECT_THROW(scored({"--generated", generated.string(), "--reference", reference.string()}), DataError);
}

TEST(Evaluate, TakesArchivesAndLists) {
  const fs::path pictures = folder_of_pictures("a", 5), reference = folder_of_pictures("b", 5);
  const fs::path folder = fresh_folder("tars");
  Json list = Json::array();
  {
    TarWriter first(folder / "0.tar"), second(folder / "1.tar");
    for (int i = 0; i < 5; ++i) {
      const std::string name = "p" + std::to_string(i);
      TarWriter& tar = i < 3 ? first : second;
      tar.add(name + ".png", read_text_file(pictures / (name + ".png")));
      tar.add(name + ".txt", "a fox " + std::to_string(i) + "\n");
      list.push_back({name + ".png", "a fox " + std::to_string(i)});
    }
    first.finish();
    second.finish();
  }
  const std::vector<std::string> more = {"--reference", reference.string(), "--clip", testing::clip_folder().string()};
  const auto with = [&](const fs::path& generated, std::vector<std::string> others = {}) {
    std::vector<std::string> arguments = {"--generated", generated.string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    arguments.insert(arguments.end(), others.begin(), others.end());
    return scored(arguments);
  };
  const Outcome archives = with(folder);
  write_file(pictures / "captions.txt", "a fox 0\na fox 1\na fox 2\na fox 3\na fox 4\n");
  const Outcome prompts = with(pictures, {"--prompts", (pictures / "captions.txt").string()});
  write_file(pictures / "lst.json", list.dump());
  const Outcome listed = with(pictures);
  for (const Outcome* other : {&prompts, &listed}) {
    EXPECT_DOUBLE_EQ(archives.result("fid"), other->result("fid"));
    EXPECT_NEAR(archives.result("clip_score"), other->result("clip_score"), 1e-9);
  }
  EXPECT_EQ(archives.json["networks"]["clip"]["cut_captions"], 0);
}

TEST(Evaluate, ComparesDinoFeatures) {
  const fs::path generated = folder_of_pictures("a", 4), reference = folder_of_pictures("b", 4);
  const fs::path output = fresh_folder("output") / "scores.json";
  CapturedOutput printed;
  EXPECT_EQ(run({"--generated", generated.string(), "--reference", reference.string(), "--dinov2",
                 testing::dinov2_folder().string(), "--output", output.string()}),
            0);
  EXPECT_NE(printed.text().find("fd_dinov2"), std::string::npos);
  const Json json = Json::parse(read_text_file(output));
  EXPECT_GT(json["results"]["fd_dinov2"].get<double>(), 0);
  EXPECT_EQ(json["networks"]["dinov2"]["features"], 48);
}

TEST(Evaluate, SaysWhatIsMissingOrWrong) {
  const fs::path pictures = folder_of_pictures("a", 4), empty = fresh_folder("empty");
  const std::string inception = testing::inception_weights().string(), clip = testing::clip_folder().string();
  const auto says = [](const std::vector<std::string>& arguments, const std::string& text) {
    const std::string found = problem(arguments);
    EXPECT_NE(found.find(text), std::string::npos) << found;
  };
  says({}, "nothing to score");
  says({"--generated", pictures.string()}, "metrics: none can be computed");
  says({"--generated", pictures.string(), "--metrics", "fid"}, "--inception");
  says({"--generated", pictures.string(), "--metrics", "fid", "--inception", inception}, "--reference");
  says({"--generated", pictures.string(), "--metrics", "fidd"}, "is none of fid");
  says({"--generated", pictures.string(), "--clip", clip}, "has no captions");
  says({"--generated", empty.string(), "--reference", pictures.string(), "--inception", inception}, "holds no picture");
  says({"--generated", "/nowhere", "--reference", pictures.string(), "--inception", inception}, "is not there");
  says({"--generated", pictures.string(), "--reference", pictures.string(), "--inception", clip + "/model.safetensors"},
       "doesn't fit the model");
  says({"--generated", pictures.string(), "--clip", "nobody/nothing"}, "no id of a model in the local");
  says({"--generated", pictures.string(), "--reference", pictures.string(), "--inception", inception, "--fid-features",
        "100"},
       "none of 64, 192, 768, 2048");
  const fs::path captions = fresh_folder("captions") / "captions.txt";
  for (const char* text : {"one\ntwo\nthree\n", "1\n2\n3\n4\n5\n"}) {  // more captions than pictures among them
    write_file(captions, text);
    says({"--generated", pictures.string(), "--clip", clip, "--prompts", captions.string()},
         "can't be shared out evenly");
  }
  says({"--generated", pictures.string(), "--checkpoint", "x.pth"}, "x.pth");
  const fs::path one = folder_of_pictures("one", 1);
  says(
      {"--generated", one.string(), "--reference", pictures.string(), "--inception", inception, "--fid-features", "64"},
      "at least 2 pictures");
}

}  // namespace
}  // namespace mdm
