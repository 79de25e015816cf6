// The program as one and as two processes: the same numbers, of folders and of what a checkpoint draws.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "evaluation/golden.h"
#include "mdm/core/files.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

std::string quoted(const std::string& text) { return "'" + text + "'"; }

// The JSON that `evaluate` writes as so many processes of one thread.
Json evaluated(const std::vector<std::string>& arguments, int processes) {
  const fs::path folder = testing::scratch_folder() / ("processes_" + std::to_string(processes));
  fs::remove_all(folder);
  fs::create_directories(folder);
  const fs::path output = folder / "scores.json";
  std::string command =
      "OMP_WAIT_POLICY=passive " + quoted(MDM_EVALUATE) + " --threads 1 --output " + quoted(output.string());
  for (const std::string& argument : arguments) command += " " + quoted(argument);
  std::vector<int> codes(static_cast<size_t>(processes), -1);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < processes; ++rank) {
    std::string own = command + " > " + quoted((folder / ("log" + std::to_string(rank))).string()) + " 2>&1";
    if (processes > 1) {
      own += " --rank " + std::to_string(rank) + " --world-size " + std::to_string(processes) + " --rendezvous-file " +
             quoted((folder / "meeting").string());
    }
    threads.emplace_back([own, rank, &codes] { codes[static_cast<size_t>(rank)] = std::system(own.c_str()); });
  }
  for (std::thread& thread : threads) thread.join();
  for (int rank = 0; rank < processes; ++rank) {
    EXPECT_EQ(codes[static_cast<size_t>(rank)], 0) << read_text_file(folder / ("log" + std::to_string(rank)));
  }
  return Json::parse(read_text_file(output));
}

void expect_equal(const Json& one, const Json& two) {
  ASSERT_EQ(one["results"].size(), two["results"].size());
  for (const auto& [name, value] : one["results"].items()) {
    const double wanted = value.get<double>(), found = two["results"][name].get<double>();
    EXPECT_NEAR(found, wanted, 1e-9 * std::abs(wanted)) << name;
  }
}

TEST(Processes, ScoreAFolderAsOne) {
  const std::string pictures = (testing::golden_folder() / "pictures").string();
  const fs::path captions = testing::scratch_folder() / "seven.txt";
  write_file(captions, "a\nb\nc\nd\ne\nf\ng\n");
  const fs::path reference = testing::scratch_folder() / "some";
  fs::create_directories(reference);
  int count = 0;
  for (const auto& path : testing::golden_pictures()) {
    if (++count <= 5) fs::copy_file(path, reference / path.filename(), fs::copy_options::overwrite_existing);
  }
  const std::vector<std::string> arguments = {"--generated",    pictures,
                                              "--reference",    reference.string(),
                                              "--prompts",      captions.string(),
                                              "--metrics",      "fid,kid,precision_recall,clip,fd_dinov2",
                                              "--fid-features", "64",
                                              "--inception",    testing::inception_weights().string(),
                                              "--clip",         testing::clip_folder().string(),
                                              "--dinov2",       testing::dinov2_folder().string()};
  const Json one = evaluated(arguments, 1), two = evaluated(arguments, 2);
  EXPECT_EQ(two["processes"], 2);
  EXPECT_EQ(one["results"].size(), 7U);
  expect_equal(one, two);
}

TEST(Processes, DrawAndScoreAsOne) {
  const fs::path prompts = testing::scratch_folder() / "validation.tsv";
  write_file(prompts, "tar\tfile\tcaption\na.tar\ta\ta red circle\na.tar\tb\ta blue star\na.tar\tc\ta green square\n");
  std::vector<std::string> arguments = {"--checkpoint",
                                        std::string(MDM_PROJECT_DIR) + "/configs/demo/shapes_32.pth",
                                        "--prompts",
                                        prompts.string(),
                                        "--num-samples",
                                        "8",
                                        "--batch-size",
                                        "3",
                                        "--num-inference-steps",
                                        "2",
                                        "--seed",
                                        "5",
                                        "--reference",
                                        (testing::golden_folder() / "pictures").string(),
                                        "--fid-features",
                                        "64",
                                        "--inception",
                                        testing::inception_weights().string(),
                                        "--clip",
                                        testing::clip_folder().string()};
  const Json one = evaluated(arguments, 1), two = evaluated(arguments, 2);
  expect_equal(one, two);
  EXPECT_EQ(one["generated"]["pictures"], 8);
  EXPECT_EQ(one["sampling"]["seed"], 5);
  EXPECT_EQ(one["sampling"]["sha256"].get<std::string>().size(), 64U);
  EXPECT_EQ(one["sampling"]["sample"]["num_inference_steps"], 2);
  // More captions than pictures: so many of them, drawn by the seed.
  arguments[5] = "2";
  EXPECT_EQ(evaluated(arguments, 1)["generated"]["pictures"], 2);
}

}  // namespace
}  // namespace mdm
