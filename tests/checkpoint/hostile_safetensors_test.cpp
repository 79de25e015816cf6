// Hostile safetensors files and indices of shards (class P7).
#include <gtest/gtest.h>

#include "checkpoint/builders.h"
#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"

namespace mdm::checkpoint_tests {
namespace {

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":[)" + shape + R"(],"data_offsets":[)" + offsets + "]}";
}

class HostileSafetensors : public testing::Test {
 protected:
  void refused(const std::string& json, const std::string& data, const std::string& fragment) {
    refused_bytes(safetensors(json, data), fragment);
  }
  void refused_bytes(const std::string& bytes, const std::string& fragment) {
    SCOPED_TRACE(fragment);
    expect_refused(folder_.write("x.safetensors", bytes), fragment);
  }
  void opens(const std::string& json, const std::string& data, size_t tensors) {
    const auto path = folder_.write("x.safetensors", safetensors(json, data));
    const Outcome outcome = expect_bounded(path);
    ASSERT_TRUE(outcome.opened) << outcome.error;
    EXPECT_EQ(TensorFile::open(path).entries().size(), tensors);
  }
  TemporaryFolder folder_;
};

TEST_F(HostileSafetensors, TakesWhatTheFormatAllows) {
  opens("{}", "", 0);
  opens("{}      ", "", 0);
  opens("{" + entry("a", "F32", "2", "0,8") + "}", "12345678", 1);
  opens("{" + entry("b", "F32", "1", "4,8") + "," + entry("a", "F32", "1", "0,4") + "}", "12345678", 2);
  opens("{" + entry("a", "F32", "0,3", "0,0") + "," + entry("b", "U8", "", "0,1") + "}", "1", 2);
  opens(R"({"__metadata__":{"format":"pt"},)" + entry("a", "BF16", "1", "0,2") + "}", "12", 1);
  opens("{" + entry("a", "U8", "1", "0,1") + "," + entry("b", "F64", "1", "1,9") + "}", "123456789", 2);  // unaligned
}

TEST_F(HostileSafetensors, RefusesBadLengths) {
  const std::string good = "{" + entry("a", "F32", "2", "0,8") + "}";
  refused_bytes(little(uint64_t{1} << 63, 8) + good + "12345678", "longer than the file");
  refused_bytes(little(good.size() + 9, 8) + good + "12345678", "longer than the file");
  refused_bytes(little(0, 8) + good, "safetensors header");
  refused_bytes(little(good.size() - 1, 8) + good + "1234567", "JSON");
  refused_bytes(little(good.size(), 8), "neither");
  refused(good, "1234567", "data section has 7 bytes");
  refused(good, "123456789", "end at byte 8");
}

TEST_F(HostileSafetensors, TruncatedAtEveryByte) {
  const std::string bytes =
      safetensors("{" + entry("a", "F32", "1", "0,4") + "," + entry("b", "I64", "1", "4,12") + "}", "123456789012");
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THROW(TensorFile::open(folder_.write("cut.safetensors", bytes.substr(0, length))), CheckpointError)
        << length;
  }
}

TEST_F(HostileSafetensors, RefusesBadTilings) {
  refused("{" + entry("a", "F32", "1", "4,8") + "}", "12345678", "leaving a hole");
  refused("{" + entry("a", "F32", "1", "0,4") + "," + entry("b", "F32", "1", "5,9") + "}", "123456789",
          "leaving a hole");
  refused("{" + entry("a", "F32", "2", "0,8") + "," + entry("b", "F32", "1", "4,8") + "}", "12345678",
          "inside the tensor");
  refused("{" + entry("a", "F32", "1", "0,4") + "," + entry("b", "F32", "1", "0,4") + "}", "1234", "inside the tensor");
  refused("{" + entry("a", "F32", "1", "4,0") + "}", "1234", "data_offsets");
  refused("{" + entry("a", "F32", "1", "0,18446744073709551615") + "}", "1234", "data_offsets");
  refused("{" + entry("a", "F32", "3", "0,8") + "}", "12345678", "needs 12 bytes");
  refused("{" + entry("a", "F32", "9223372036854775807,9223372036854775807", "0,8") + "}", "12345678", "overflows");
  refused("{" + entry("a", "F32", "4611686018427387904", "0,0") + "}", "", "overflows");
  refused("{" + entry("a", "F32", "18446744073709551615", "0,8") + "}", "12345678", "size");
}

TEST_F(HostileSafetensors, RefusesBadHeaders) {
  const std::string a = entry("a", "F32", "1", "0,4");
  refused("{" + a + "," + a + "}", "1234", "'a' twice");
  refused(R"({"__metadata__":{"k":"v","k":"w"},)" + a + "}", "1234", "'k' twice");
  refused(R"({"__metadata__":{},"__metadata__":{},)" + a + "}", "1234", "__metadata__ twice");
  refused(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234",
          "dtype of tensor 'a' twice");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", "1234", "unknown field 'x'");
  refused(R"({"a":{"dtype":"F32","shape":[1]}})", "", "lacks two data_offsets");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "1234", "lacks two data_offsets");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", "1234", "more than two");
  refused(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", "1234", "lacks shape");
  refused(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", "1234", "lacks dtype");
  refused(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234", "negative");
  refused(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", "1234", "1.5");
  refused(R"({"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4]}})", "1234", "999");
  refused(R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", "1234", "an array");
  refused(R"({"a":{"dtype":1,"shape":[1],"data_offsets":[0,4]}})", "1234", "a number");
  refused(R"({"a":null})", "", "null");
  refused(R"({"a":[1]})", "", "an array");
  refused(R"({"__metadata__":{"k":1}})", "", "a number");
  refused(R"({"__metadata__":{"k":{}}})", "", "an object");
  refused(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", "1234",
          "more than 16 dimensions");
  for (const char* dtype : {"F8_E4M3", "F8_E5M2", "F4", "F6_E2M3", "F8_E8M0", "C64", "float32", ""}) {
    refused("{" + entry("a", dtype, "1", "0,4") + "}", "1234", std::string("the dtype '") + dtype + "'");
  }
  refused("{" + a + "} x", "1234", "JSON");
  refused("{\"\xff\xfe\":{}}", "", "JSON");
  refused("{\"a\\u0000b\":{}}", "", "NUL");
  refused("{\"" + std::string(5000, 'a') + "\":{}}", "", "5000 bytes");
  refused("{" + std::string(100'000, '[') + "}", "", "JSON");
  refused("{\"a\":" + std::string(100'000, '['), "", "an array");
  refused("{\"a\":" + std::string(100'000, '{'), "", "JSON");
}

TEST_F(HostileSafetensors, LargeHeadersAreBounded) {
  std::string json = "{";
  for (int i = 0; i < 90'000; ++i) json += (i > 0 ? "," : "") + entry(std::to_string(i), "U8", "0", "0,0");
  opens(json + "}", "", 90'000);
  for (int i = 90'000; i < 110'000; ++i) json += "," + entry(std::to_string(i), "U8", "0", "0,0");
  refused(json + "}", "", "more than 100000 tensors");
}

// --- shards

class HostileIndex : public testing::Test {
 protected:
  HostileIndex() {
    folder_.write("one.safetensors", safetensors("{" + entry("a", "F32", "1", "0,4") + "}", "1234"));
    folder_.write("two.safetensors", safetensors("{" + entry("b", "F32", "1", "0,4") + "}", "5678"));
  }
  std::filesystem::path index(const std::string& json) { return folder_.write("model.safetensors.index.json", json); }
  void refused(const std::string& json, const std::string& fragment) {
    SCOPED_TRACE(fragment);
    expect_refused(index(json), fragment);
  }
  TemporaryFolder folder_;
};

TEST_F(HostileIndex, OpensShardsByIndexAndByFolder) {
  const auto path =
      index(R"({"metadata":{"total_size":8},"weight_map":{"b":"two.safetensors","a":"one.safetensors"}})");
  for (const auto& name : {path, folder_.path()}) {
    const TensorFile file = TensorFile::open(name);
    ASSERT_EQ(file.entries().size(), 2U);
    EXPECT_EQ(file.entries()[0].name, "b");  // the order of the index
    EXPECT_EQ(std::string(static_cast<const char*>(file.tensor("a").const_data_ptr()), 4), "1234");
    EXPECT_EQ(std::string(static_cast<const char*>(file.tensor("b").const_data_ptr()), 4), "5678");
  }
}

TEST_F(HostileIndex, RefusesPathsAndLinks) {
  for (const char* name :
       {"../one.safetensors", "/etc/passwd", "x/../one.safetensors", "a\\\\b", "..", ".", ".hidden", ""}) {
    refused(std::string(R"({"weight_map":{"a":")") + name + "\"}}", "bare names");
  }
  TemporaryFolder elsewhere;
  const auto target =
      elsewhere.write("one.safetensors", safetensors("{" + entry("a", "F32", "1", "0,4") + "}", "1234"));
  std::filesystem::create_symlink(target, folder_.path() / "link.safetensors");
  refused(R"({"weight_map":{"a":"link.safetensors"}})", "leads out of the folder");
  std::filesystem::create_symlink("one.safetensors", folder_.path() / "inside.safetensors");
  EXPECT_EQ(TensorFile::open(index(R"({"weight_map":{"a":"inside.safetensors"}})")).entries().size(), 1U);
}

TEST_F(HostileIndex, FollowsTheLinksOfAHuggingFaceCache) {
  const auto model = folder_.path() / "models--some--model";
  const auto snapshot = model / "snapshots" / "0123abcd";
  std::filesystem::create_directories(snapshot);
  std::filesystem::create_directories(model / "blobs");
  std::filesystem::rename(folder_.path() / "one.safetensors", model / "blobs" / "aaaa");
  std::filesystem::create_symlink("../../blobs/aaaa", snapshot / "one.safetensors");
  folder_.write("models--some--model/snapshots/0123abcd/model.safetensors.index.json",
                R"({"weight_map":{"a":"one.safetensors"}})");
  EXPECT_EQ(TensorFile::open(snapshot).entries().size(), 1U);
}

TEST_F(HostileIndex, RefusesContradictions) {
  refused(R"({"weight_map":{"a":"two.safetensors"}})", "not in 'two.safetensors'");
  refused(R"({"weight_map":{"a":"one.safetensors","c":"two.safetensors"}})", "'c' is not in");
  refused(R"({"weight_map":{"a":"two.safetensors","b":"one.safetensors"}})", "the index places it in");
  refused(R"({"weight_map":{"a":"one.safetensors","a":"one.safetensors"}})", "'a' twice");
  refused(R"({"weight_map":{"a":"one.safetensors"},"weight_map":{}})", "two weight_maps");
  refused(R"({"weight_map":{"a":1}})", "other than a file name");
  refused(R"({"weight_map":{"a":{"b":"c"}}})", "other than a file name");
  refused(R"({"weight_map":{"a":["one.safetensors"]}})", "other than a file name");
  refused(R"({"metadata":{}})", "no weight_map");
  refused(R"([])", "not a JSON object");
  refused(R"("x")", "not a JSON object");
  refused("", "JSON");
  refused(R"({"weight_map":{"a":"one.safetensors")", "JSON");
  refused("{\"x\":" + std::string(100'000, '['), "32 levels");
  EXPECT_THROW(TensorFile::open(index(R"({"weight_map":{"a":"gone.safetensors"}})")), CheckpointError);
}

}  // namespace
}  // namespace mdm::checkpoint_tests
