// The program `checkpoint`: what it says about files, what it converts, what it makes, and its exit codes.
#include <ATen/ops/equal.h>

#include "apps/workshop.h"
#include "checkpoint/builders.h"
#include "mdm/checkpoint/tensor_file.h"

namespace mdm::apps_test {
namespace {

namespace make = checkpoint_tests;

// A file of one tensor "w" of two floats, and another item of the top dictionary.
std::string small_pth(const std::string& key, const std::string& item) {
  const std::string tensor = make::pickle_tensor(make::pickle_storage("FloatStorage", "0", 2), 0, {2}, {1});
  const std::string dictionary = make::pickle_dict({{"state_dict", make::pickle_dict({{"w", tensor}})}, {key, item}});
  return make::pth(make::pickle(dictionary), {{"0", std::string("\0\0\x80\x3f\0\0\0\x40", 8)}}).bytes();
}

// os.system(command), as an attacker pickles it.
std::string attack(const std::string& command) {
  return make::pickle_global("os", "system") + make::pickle_tuple({make::pickle_text(command)}) + "R";
}

void expect_same_tensors(const std::string& a, const std::string& b) {
  const TensorFile first = TensorFile::open(a), second = TensorFile::open(b);
  ASSERT_EQ(first.entries().size(), second.entries().size());
  for (const TensorEntry& entry : first.entries()) {
    const at::Tensor x = first.tensor(entry.name), y = second.tensor(entry.name);
    EXPECT_EQ(x.scalar_type(), y.scalar_type()) << entry.name;
    EXPECT_TRUE(at::equal(x, y)) << entry.name;
  }
}

TEST(CheckpointInit, MakesTheSameWeightsForTheSameSeedAndOthersForAnother) {
  const Folder folder;
  const auto init = [&](const std::string& name, const Words& more) {
    Words words = {"init", folder.file(name), "--config-path", demo_config(false)};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome outcome = checkpoint(words);
    expect_success(outcome);
    EXPECT_TRUE(holds(outcome.out, name + ": unet with 931011 parameters in 173 tensors")) << outcome.out;
    return folder.file(name);
  };
  const std::string fresh = init("a.safetensors", {"--seed", "3"});
  expect_same_tensors(fresh, init("b.pth", {"--seed", "3"}));
  EXPECT_FALSE(at::equal(TensorFile::open(fresh).tensor("conv_in.weight"),
                         TensorFile::open(init("c.pth", {"--seed", "4"})).tensor("conv_in.weight")));
  // A fresh model starts with layers of zeros, a randomized one does not.
  EXPECT_EQ(TensorFile::open(fresh).tensor("conv_out.weight").count_nonzero().item<int64_t>(), 0);
  EXPECT_GT(TensorFile::open(flat_checkpoint()).tensor("conv_out.weight").count_nonzero().item<int64_t>(), 0);
  EXPECT_EQ(TensorFile::open(init("d.pth", {"--dtype", "bf16"})).tensor("conv_in.weight").scalar_type(), at::kBFloat16);
}

TEST(CheckpointInit, NeedsToKnowTheModel) {
  const Folder folder;
  expect_failure(checkpoint({"init", folder.file("a.pth")}), 2, {"init: name the model's config with --config_path"});
  expect_failure(checkpoint({"init", folder.file("a.xyz"), "--config-path", demo_config(false)}), 2,
                 {"a.xyz must end in .pth"});
  expect_failure(checkpoint({"init", folder.file("a.pth"), "--config-path",
                             (project() / "configs/models/cc12m_64x64.yaml").string()}),
                 2, {"text's width open; say --text-width N"});
  expect_failure(checkpoint({"init", folder.file("a.pth"), "--config-path", demo_config(false), "--seed", "-1"}), 2,
                 {"--seed: '-1' is not a whole number"});
  expect_failure(checkpoint({"init", folder.file("no/a.pth"), "--config-path", demo_config(false)}), 1,
                 {"no/a.pth: can't be written"});
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(CheckpointInspect, ListsTensorsAndWhatLiesBesideThem) {
  const Outcome outcome = checkpoint({"inspect", flat_checkpoint()});
  expect_success(outcome);
  for (const char* part : {"format: PyTorch zip", "tensors at: state_dict", "metadata: ", "batch_num",
                           "conv_in.weight\t", "Float", "173 tensors, 931011 values"}) {
    EXPECT_TRUE(holds(outcome.out, part)) << part << " in " << outcome.out;
  }
}

TEST(CheckpointInspect, FlagsWhatLooksLikeAnAttackAndRunsNothing) {
  const Folder folder;
  const std::string sentinel = folder.file("executed");
  const std::string beside = folder.write("beside.pth", small_pth("extra", attack("touch " + sentinel)));
  Outcome outcome = checkpoint({"inspect", beside});
  expect_success(outcome);  // the weights themselves are fine
  EXPECT_TRUE(holds(outcome.out, "SUSPICIOUS names in the pickle (not executed")) << outcome.out;
  EXPECT_TRUE(holds(outcome.out, "os.system (1x)")) << outcome.out;
  EXPECT_TRUE(holds(outcome.out, "w\t")) << outcome.out;

  const std::string instead = folder.write("instead.pth", make::pth(make::pickle(attack("touch " + sentinel))).bytes());
  outcome = checkpoint({"inspect", instead});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_TRUE(holds(outcome.out, "os.system (1x)")) << outcome.out;
  EXPECT_TRUE(holds(outcome.out, "problem: ")) << outcome.out;
  EXPECT_EQ(checkpoint({"verify", instead}).code, 3);
  expect_failure(sample({"--checkpoint", instead, "--prompt", "x", "--sample-dir", folder.file("out")}), 3,
                 {"instead.pth"});

  const std::string odd = folder.write("odd.pth", small_pth("\x1B[2Jkey", make::pickle_text("value\r\n")));
  EXPECT_EQ(checkpoint({"inspect", odd}).out.find('\x1B'), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(sentinel));
}

TEST(CheckpointInspect, AndVerifySayWhyAFileIsNone) {
  const Folder folder;
  const std::string whole = bytes_of(flat_checkpoint());
  expect_failure(checkpoint({"inspect", folder.file("gone.pth")}), 3, {"gone.pth: No such file"});
  expect_failure(checkpoint({"inspect", folder.write("empty.pth", "")}), 3, {"empty.pth: is empty"});
  expect_failure(checkpoint({"inspect", folder.path().string()}), 3, {"is a folder without weights"});
  expect_failure(checkpoint({"inspect", folder.write("cut.pth", whole.substr(0, whole.size() - 100))}), 3,
                 {"cut.pth: "});
  Outcome outcome = checkpoint({"verify", folder.file("cut.pth")});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_TRUE(holds(outcome.out, "problem: ")) << outcome.out;
  EXPECT_TRUE(holds(outcome.out, "DAMAGED\n")) << outcome.out;
}

TEST(CheckpointVerify, FindsOneFlippedBit) {
  const Folder folder;
  std::string bytes = bytes_of(flat_checkpoint());
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  const Outcome damaged = checkpoint({"verify", folder.write("flipped.pth", bytes)});
  EXPECT_EQ(damaged.code, 3);
  EXPECT_TRUE(holds(damaged.out, "its checksum differs")) << damaged.out;
  const Outcome sound = checkpoint({"verify", flat_checkpoint()});
  expect_success(sound);
  EXPECT_TRUE(holds(sound.out, "173 tensors, 931011 values")) << sound.out;
  EXPECT_TRUE(holds(sound.out, "sound\n")) << sound.out;
  expect_failure(checkpoint({"convert", folder.file("flipped.pth"), folder.file("new.safetensors")}), 3,
                 {"flipped.pth"});
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "new.safetensors"));
}

TEST(CheckpointConvert, ThereAndBackIsTheSameToTheBit) {
  const Folder folder;
  const std::string there = folder.file("there.safetensors"), back = folder.file("back.pth");
  const Outcome outcome = checkpoint({"convert", nested_checkpoint(), there});
  expect_success(outcome);
  EXPECT_TRUE(holds(outcome.out, "there.safetensors: 263 tensors, ")) << outcome.out;
  expect_success(checkpoint({"convert", there, back}));
  expect_same_tensors(nested_checkpoint(), there);
  expect_same_tensors(nested_checkpoint(), back);
  // The config travels with the weights: no --config-path is needed, and the pictures are the same.
  const Words flags = {"--prompt", "a cat", "--no-metadata", "--no-gallery"};
  expect_success(sample(quick(nested_checkpoint(), folder.file("a"), flags)));
  expect_success(sample(quick(there, folder.file("b"), flags)));
  expect_success(sample(quick(back, folder.file("c"), flags)));
  for (const char* other : {"b", "c"}) {
    EXPECT_EQ(bytes_of(folder.path() / other / "sample_000000.png"), bytes_of(folder.file("a/sample_000000.png")));
  }
}

TEST(CheckpointConvert, ChangesTheTypeAndCutsIntoShards) {
  const Folder folder;
  expect_success(checkpoint({"convert", flat_checkpoint(), folder.file("half.pth"), "--dtype", "bf16"}));
  const TensorFile full = TensorFile::open(flat_checkpoint()), half = TensorFile::open(folder.file("half.pth"));
  for (const TensorEntry& entry : full.entries()) {
    EXPECT_TRUE(at::equal(half.tensor(entry.name), full.tensor(entry.name).to(at::kBFloat16))) << entry.name;
  }
  expect_success(checkpoint({"convert", flat_checkpoint(), folder.file("shards"), "--max-shard-bytes", "1000000"}));
  EXPECT_GE(names_in(folder.path() / "shards").size(), 5u);
  expect_same_tensors(flat_checkpoint(), folder.file("shards"));
  expect_failure(checkpoint({"convert", flat_checkpoint(), folder.file("a.pth"), "--dtype", "int8"}), 2,
                 {"--dtype: 'int8' is not one of"});
  expect_failure(checkpoint({"convert", flat_checkpoint(), folder.file("a.onnx")}), 2, {"a.onnx", ".safetensors"});
  expect_failure(checkpoint({"convert", folder.file("half.pth"), folder.file("half.pth")}), 2, {"half.pth"});
  expect_failure(checkpoint({"convert", folder.file("gone.pth"), folder.file("a.pth")}), 3, {"gone.pth: No such file"});
}

TEST(CheckpointWords, ThatAreWrongAreExplained) {
  expect_failure(checkpoint({}), 2, {"usage: checkpoint inspect FILE | verify FILE"});
  expect_failure(checkpoint({"inspct", "x"}), 2, {"'inspct' is not one of", "did you mean inspect?"});
  expect_failure(checkpoint({"inspect"}), 2, {"usage: checkpoint inspect FILE"});
  expect_failure(checkpoint({"convert", "a.pth"}), 2, {"usage: checkpoint convert FROM TO"});
  expect_failure(checkpoint({"inspect", "a", "b"}), 2, {"usage: checkpoint inspect FILE"});
}

}  // namespace
}  // namespace mdm::apps_test
