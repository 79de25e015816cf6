// Writing checkpoints and reading them back: bits, order, items; what happens when the disk is full.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "checkpoint/builders.h"
#include "checkpoint/zip_archive.h"
#include "checkpoint/zip_writer.h"
#include "mdm/checkpoint/inspect.h"
#include "mdm/checkpoint/write.h"
#include "mdm/core/error.h"

namespace mdm::checkpoint_tests {
namespace {

using nlohmann::json;

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const at::Tensor x = a.contiguous(), y = b.contiguous();
  return x.nbytes() == 0 || std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0;
}

// Every type and layout that .pth and safetensors share.
std::vector<NamedTensor> some_tensors() {
  const at::Tensor base = at::arange(120, at::kFloat).reshape({2, 3, 4, 5});
  std::vector<NamedTensor> tensors = {
      {"conv.weight", base},
      {"channels_last", base.contiguous(at::MemoryFormat::ChannelsLast)},
      {"transposed", base.select(0, 1).select(0, 2).t()},
      {"expanded", at::arange(5, at::kFloat).expand({4, 5})},
      {"scalar", at::scalar_tensor(3.5, at::kDouble)},
      {"empty", at::empty({0, 3})},
      {"not finite", at::tensor({NAN, INFINITY, -INFINITY, -0.0F})},
      {"unicode \u2603 \"quoted\"\n", at::ones({2})},
  };
  for (const auto type : {at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kHalf, at::kBFloat16, at::kBool}) {
    tensors.push_back({std::string("type_") + c10::toString(type), at::arange(-3, 4).to(type)});
  }
  return tensors;
}

void expect_read_back(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors) {
  const TensorFile file = TensorFile::open(path);
  ASSERT_EQ(file.entries().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(file.entries()[i].name, tensors[i].name);
    EXPECT_TRUE(same_bits(file.tensor(tensors[i].name), tensors[i].tensor)) << tensors[i].name;
  }
}

TEST(WriteTest, SafetensorsReadBackBitForBitInOrder) {
  const TemporaryFolder folder;
  write_safetensors(folder.path() / "x.safetensors", some_tensors(), {{"format", "pt"}, {"note", "a \"b\"\n"}});
  expect_read_back(folder.path() / "x.safetensors", some_tensors());
  const json metadata = json::parse(TensorFile::open(folder.path() / "x.safetensors").metadata_json());
  EXPECT_EQ(metadata.at("note"), "a \"b\"\n");
  EXPECT_EQ(metadata.at("format"), "pt");
  EXPECT_TRUE(verify_checkpoint(folder.path() / "x.safetensors").sound());
}

TEST(WriteTest, PthReadsBackBitForBitWithItems) {
  const TemporaryFolder folder;
  const std::string items = R"({"batch_num": 5601, "loss": 0.1, "big": {"__int__": "-1000000000000000000000000000000"},
      "unsigned": 18446744073709551615, "least": -9223372036854775808, "nan": {"__float__": "nan"},
      "inf": {"__float__": "-inf"}, "none": null, "yes": true, "text": "gr\u00f6\u00dfe", "whole": 2.0,
      "args": {"list": [1, [2, "x"], {}], "empty": [], "nested": {"a": {"b": -1}}}})";
  write_pth(folder.path() / "model v1.pth", some_tensors(), items);
  expect_read_back(folder.path() / "model v1.pth", some_tensors());
  const TensorFile file = TensorFile::open(folder.path() / "model v1.pth");
  EXPECT_EQ(json::parse(file.metadata_json()), json::parse(items));
  EXPECT_NE(file.metadata_json().find("\"whole\": 2.0"), std::string::npos);
  const Verification verification = verify_checkpoint(folder.path() / "model v1.pth");
  EXPECT_TRUE(verification.sound());
  EXPECT_EQ(verification.records, some_tensors().size() + 5);
  ASSERT_EQ(verification.not_finite.size(), 1U);
  EXPECT_EQ(verification.not_finite[0].nan, 1U);
  EXPECT_EQ(verification.not_finite[0].infinite, 2U);
}

TEST(WriteTest, StoragesOfPthAreAligned) {
  const TemporaryFolder folder;
  write_pth(folder.path() / "x.pth", some_tensors());
  const std::string bytes = read_text_file(folder.path() / "x.pth");
  const checkpoint::ZipArchive zip(bytes, "x.pth");
  for (const auto& entry : zip.entries()) EXPECT_EQ(entry.offset % 64, 0U) << entry.name;
}

TEST(WriteTest, ConvertsFloatingPointTypesOnly) {
  const TemporaryFolder folder;
  WriteOptions options;
  options.dtype = at::kBFloat16;
  const std::vector<NamedTensor> tensors = {{"w", at::randn({5, 7})}, {"n", at::arange(3)}};
  write_pth(folder.path() / "x.pth", tensors, "{}", options);
  write_safetensors(folder.path() / "x.safetensors", tensors, {}, options);
  for (const char* name : {"x.pth", "x.safetensors"}) {
    const TensorFile file = TensorFile::open(folder.path() / name);
    EXPECT_TRUE(same_bits(file.tensor("w"), tensors[0].tensor.to(at::kBFloat16)));
    EXPECT_TRUE(same_bits(file.tensor("n"), tensors[1].tensor));
  }
}

TEST(WriteTest, ShardsHoldEveryTensorOnce) {
  const TemporaryFolder folder;
  const auto tensors = some_tensors();
  const auto path = write_sharded_safetensors(folder.path(), tensors, 500);
  EXPECT_EQ(path.filename(), "model.safetensors.index.json");
  expect_read_back(path, tensors);
  expect_read_back(folder.path(), tensors);
  const json index = json::parse(read_text_file(path));
  EXPECT_EQ(index.at("weight_map").size(), tensors.size());
  int64_t total = 0;
  for (const auto& item : tensors) total += item.tensor.numel() * static_cast<int64_t>(item.tensor.itemsize());
  EXPECT_EQ(index.at("metadata").at("total_size"), total);

  const TemporaryFolder one;
  EXPECT_EQ(write_sharded_safetensors(one.path(), tensors, 1 << 20).filename(), "model.safetensors");
  expect_read_back(one.path(), tensors);
}

TEST(WriteTest, RefusesWhatFilesCannotHold) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "x.pth";
  const at::Tensor w = at::ones({2});
  const auto refuse = [&](const std::vector<NamedTensor>& tensors, const std::string& items,
                          const std::string& fragment) {
    try {
      write_pth(path, tensors, items);
      ADD_FAILURE() << "written: " << fragment;
    } catch (const CheckpointError& error) {
      EXPECT_NE(std::string(error.what()).find(fragment), std::string::npos) << error.what();
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  };
  refuse({{"a", w}, {"a", w}}, "{}", "given twice");
  refuse({{"", w}}, "{}", "can't be the name");
  refuse({{"\xff", w}}, "{}", "can't be the name");
  refuse({{"a", at::Tensor()}}, "{}", "undefined");
  refuse({{"a", at::ones({2}, at::kComplexFloat)}}, "{}", "ComplexFloat");
  refuse({{"a", w.to(at::kUInt16)}}, "{}", "uint16");
  refuse({{"a", w}}, "[]", "no JSON object");
  refuse({{"a", w}}, "{", "no valid JSON");
  refuse({{"a", w}}, R"({"state_dict": 1})", "state_dict");
  refuse({{"a", w}}, R"({"x": {"__int__": "12a"}})", "whole number");
  refuse({{"a", w}}, R"({"x": {"__float__": "1"}})", "nan, inf and -inf");
  refuse({{"a", w}}, R"({"x": {"__int__": "1", "y": 2}})", "more than one field");
  refuse({{"a", w}}, R"({"x": {"__int__": 1}})", "no text");
  refuse({{"a", w}}, R"({"x": 1, "x": 2})", "twice");
  refuse({{"a", w}}, "{\"x\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}", "64 levels");
  EXPECT_THROW(write_safetensors(path, {{"__metadata__", w}}), CheckpointError);
  EXPECT_THROW(write_safetensors(folder.path() / "missing" / "x", {{"a", w}}), Error);
}

TEST(WriteTest, Zip64RecordsReadBack) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "x.zip";
  AtomicFile file(path);
  checkpoint::ZipWriter zip(file, true);
  zip.add("m/a", "hello");
  zip.add("m/b", "");
  zip.finish();
  file.commit();
  const std::string bytes = read_text_file(path);
  const checkpoint::ZipArchive archive(bytes, "x.zip");
  ASSERT_EQ(archive.entries().size(), 2U);
  EXPECT_EQ(archive.stored(archive.entries()[0]), "hello");
  EXPECT_TRUE(archive.crc_matches(archive.entries()[0]));
  EXPECT_EQ(archive.entries()[0].offset % 64, 0U);
}

// A limit on the size of files stands in for a full disk: write() fails in the same place.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};

TEST(WriteTest, AFullDiskLeavesTheOldFile) {
  const TemporaryFolder folder;
  const std::vector<NamedTensor> small = {{"w", at::ones({4})}};
  for (const char* name : {"x.pth", "x.safetensors"}) {
    const auto path = folder.path() / name;
    const auto write = [&](const std::vector<NamedTensor>& tensors) {
      path.extension() == ".pth" ? write_pth(path, tensors) : write_safetensors(path, tensors);
    };
    write(small);
    // Cut in the middle of values, and in the last bytes of the file.
    for (const rlim_t limit : {rlim_t{70'000}, rlim_t{262'200}}) {
      const FileSizeLimit full(limit);
      EXPECT_THROW(write({{"w", at::ones({65'536})}}), Error);
    }
    expect_read_back(path, small);
  }
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path())) ++files;
  EXPECT_EQ(files, 2U);  // nothing temporary stays
}

// --- conversion

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(MDM_TEST_DATA) / "golden" / "checkpoint" / name;
}

TEST(ConvertTest, RoundTripKeepsTensorsOrderAndItems) {
  const TemporaryFolder folder;
  for (const char* name : {"unet_ref.pth", "legacy_nonzip.pth", "odd_tensors.pth", "nested_old_modules.pth"}) {
    const auto to_safetensors = convert_checkpoint(golden(name), folder.path() / "a.safetensors");
    const auto to_pth = convert_checkpoint(to_safetensors.target, folder.path() / "b.pth");
    const TensorFile source = TensorFile::open(golden(name));
    EXPECT_EQ(to_safetensors.tensors, source.entries().size());
    for (const auto& path : {to_safetensors.target, to_pth.target}) {
      const TensorFile file = TensorFile::open(path);
      EXPECT_EQ(file.metadata_json(), source.metadata_json());
      ASSERT_EQ(file.entries().size(), source.entries().size());
      for (size_t i = 0; i < file.entries().size(); ++i) {
        EXPECT_EQ(file.entries()[i].name, source.entries()[i].name);
        EXPECT_TRUE(same_bits(file.tensor(file.entries()[i].name), source.tensor(file.entries()[i].name)));
      }
    }
  }
}

TEST(ConvertTest, ChangesTypeAndShards) {
  const TemporaryFolder folder;
  ConvertOptions options;
  options.dtype = at::kHalf;
  options.max_shard_bytes = 8000;
  const auto result = convert_checkpoint(golden("unet.safetensors"), folder.path() / "shards", options);
  const TensorFile source = TensorFile::open(golden("unet.safetensors")),
                   file = TensorFile::open(folder.path() / "shards");
  uint64_t bytes = 0;
  for (const auto& entry : source.entries()) {
    EXPECT_TRUE(same_bits(file.tensor(entry.name), source.tensor(entry.name).to(at::kHalf))) << entry.name;
    bytes += static_cast<uint64_t>(entry.numel()) * 2;
  }
  EXPECT_EQ(result.bytes, bytes);
  const Inspection inspection = inspect_checkpoint(folder.path() / "shards");
  EXPECT_NE(inspection.format.find("shards"), std::string::npos);
  EXPECT_EQ(inspection.tensors.size(), source.entries().size());
  EXPECT_TRUE(verify_checkpoint(folder.path() / "shards").sound());
}

TEST(ConvertTest, RefusesUnknownEndingsAndItself) {
  const TemporaryFolder folder;
  EXPECT_THROW(convert_checkpoint(golden("unet_ref.pth"), folder.path() / "x.zip"), ConfigError);
  const auto copy = folder.path() / "x.pth";
  std::filesystem::copy_file(golden("unet_ref.pth"), copy);
  EXPECT_THROW(convert_checkpoint(copy, copy), ConfigError);
  EXPECT_THROW(convert_checkpoint(folder.path() / "none.pth", folder.path() / "y.pth"), CheckpointError);
}

TEST(InspectTest, ListsTensorsAndItems) {
  const Inspection inspection = inspect_checkpoint(golden("unet_ref.pth"));
  EXPECT_EQ(inspection.state_dict_path, "state_dict");
  EXPECT_EQ(inspection.format, "PyTorch zip");
  EXPECT_TRUE(inspection.problem.empty());
  for (const auto& name : inspection.names) EXPECT_EQ(name.verdict, NameVerdict::kData) << name.name;
  std::ostringstream out;
  print_inspection(inspection, out);
  EXPECT_NE(out.str().find("temb_layer1.weight\t(16, 4)\tFloat\t256 B"), std::string::npos) << out.str();
  EXPECT_NE(out.str().find("batch_num"), std::string::npos);
}

}  // namespace
}  // namespace mdm::checkpoint_tests
