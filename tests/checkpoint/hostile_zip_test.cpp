// Hostile zip archives, and things that are no checkpoints (classes P5 and P6).
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <zlib.h>

#include "checkpoint/builders.h"
#include "mdm/checkpoint/inspect.h"
#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"

namespace mdm::checkpoint_tests {
namespace {

std::string sound_pickle() {
  return pickle(pickle_dict({{"w", pickle_tensor(pickle_storage("FloatStorage", "0", 4), 0, {4}, {1})}}));
}

ZipFile sound() { return pth(sound_pickle(), {{"0", std::string(16, '\1')}}); }

std::string deflated(const std::string& data) {
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, data.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

class HostileZip : public testing::Test {
 protected:
  void refused(const ZipFile& file, const std::string& fragment) {
    SCOPED_TRACE(fragment);
    expect_refused(folder_.write("model.pth", file.bytes()), fragment);
  }
  void opens(const ZipFile& file) {
    const Outcome outcome = expect_bounded(folder_.write("model.pth", file.bytes()));
    EXPECT_TRUE(outcome.opened) << outcome.error;
  }
  void refused_bytes(const std::string& bytes, const std::string& fragment) {
    SCOPED_TRACE(fragment);
    expect_refused(folder_.write("model.pth", bytes), fragment);
  }
  TemporaryFolder folder_;
};

TEST_F(HostileZip, TruncatedAtEveryByte) {
  const std::string bytes = sound().bytes();
  for (size_t length = 0; length < bytes.size(); ++length) {
    const auto path = folder_.write("cut.pth", bytes.substr(0, length));
    EXPECT_THROW(TensorFile::open(path), CheckpointError) << length;
  }
  opens(sound());
}

TEST_F(HostileZip, RefusesSecondReadings) {
  ZipFile file = sound();
  file.comment = "PK\x05\x06" + std::string(18, '\0');
  refused(file, "end record");
  file.comment = "a comment";
  refused(file, "bytes were added");
  file = sound();
  refused_bytes(file.bytes() + "x", "bytes were added");
  file.records.push_back(file.records[0]);
  refused(file, "twice");
  file = sound();
  file.records[1].local_name = "model/data/1";
  refused(file, "another name");
  file = sound();
  file.records[1].header_offset = 0;
  refused(file, "another name");
  file = sound();
  file.records[1].name = file.records[0].name;
  file.records[1].header_offset = 0;
  for (auto& record : file.records) record.flags = 8;  // sizes stand in the directory only
  refused(file, "overlap");
  file = sound();
  file.records[0].claimed_size = file.records[0].claimed_stored =
      static_cast<int64_t>(file.records[0].data.size()) + 60;
  refused(file, "overlap");
  file = sound();
  file.before_directory = std::string(100, 'x');  // harmless slack, as of alignment
  opens(file);
  file.after_directory = std::string(10, 'x');
  refused(file, "unexplained");
  file = sound();
  file.claimed_directory = 10;
  refused(file, "end record");
  file = sound();
  file.claimed_count = 2;
  refused(file, "unexplained");
  file.claimed_count = 9;
  refused(file, "claims 9 entries");
  file = sound();
  refused_bytes("PK\x03\x04" + std::string(40, '\0') + file.bytes(), "end record");
}

TEST_F(HostileZip, RefusesZip64Lies) {
  ZipFile file = sound();
  file.zip64 = true;
  opens(file);
  for (const int64_t place : {int64_t{0}, int64_t{5}, INT64_MAX}) {
    file.zip64_record = place;
    refused(file, "points at no record");
  }
  file.zip64_record = -1;
  file.zip64_count = INT64_MAX;
  refused(file, "entries");
  file.zip64_count = -1;
  file.zip64_directory = INT64_MAX;
  refused(file, "end record");
}

TEST_F(HostileZip, RefusesOddEntries) {
  ZipFile file = sound();
  file.records[1].flags = 1;
  refused(file, "encrypted");
  file = sound();
  file.records[1].method = 99;
  refused(file, "method 99");
  file = sound();
  file.records[1].made_by = 3 << 8 | 20;
  file.records[1].attributes = 0120777U << 16;
  refused(file, "no regular file");
  file = sound();
  file.records[1].claimed_size = 1 << 20;
  refused(file, "two sizes");
  file = sound();
  file.records[1].claimed_size = file.records[1].claimed_stored = 1 << 20;
  refused(file, "claims 1048576 bytes");
  file = sound();
  file.records[0].wrong_crc = true;
  refused(file, "checksum");
  file = sound();
  file.records[0].no_crc = true;
  opens(file);
  for (const char* name : {"../x", "/etc/passwd", "model/../../x", "model\\x", ".."}) {
    file = sound();
    file.records[1].name = name;
    refused(file, "no plain relative path");
  }
  file = sound();
  file.records[1].name = std::string("model/a\0b", 9);
  refused(file, "no plain relative path");
  file = sound();
  file.records[1].name = "model/" + std::string(5000, 'a');
  refused(file, "entry name of");
}

TEST_F(HostileZip, RefusesOtherArchives) {
  ZipFile file = sound();
  file.records[1].name = "other/data/0";
  refused(file, "one folder");
  file = sound();
  file.records[0].name = "model/data.pkl2";
  refused(file, "lacks 'model/data.pkl'");
  file = sound();
  file.records[1].name = "model/constants.pkl";
  refused(file, "TorchScript");
  file = sound();
  file.records[2].name = "model/byteorder";
  file.records[2].data = "big";
  refused(file, "byte order 'big'");
  file.records[2].data = "little";
  opens(file);
  file.records[0].data += "N.";
  refused(file, "behind its end");
  file = sound();
  file.records.clear();
  refused_bytes(file.bytes(), "neither");
}

TEST_F(HostileZip, UnpacksOnlySmallPickles) {
  ZipFile file = sound();
  const std::string packed = deflated(file.records[0].data);
  file.records[0].method = 8;
  file.records[0].claimed_size = static_cast<int64_t>(file.records[0].data.size());
  file.records[0].data = packed;
  file.records[0].no_crc = true;
  opens(file);
  file.records[0].claimed_size += 1;
  refused(file, "broken packed data");
  file.records[0].claimed_size -= 2;
  refused(file, "broken packed data");
  file.records[0].claimed_size = int64_t{4} << 30 >> 1;
  refused(file, "data.pkl has");
  file.records[0].claimed_size = int64_t{255} << 20;
  refused(file, "at most");
  file.records[0].data = deflated(std::string(64 << 20, 'N'));
  file.records[0].claimed_size = 64 << 20;
  refused(file, "at most");
  file = sound();
  file.records[1].method = 8;
  file.records[1].data = deflated(std::string(16, '\1'));
  file.records[1].claimed_size = 16;
  refused(file, "compressed");
}

TEST_F(HostileZip, ManyEntriesAreBounded) {
  ZipFile file = sound();
  for (int i = 0; i < 60'000; ++i) {
    ZipRecord record;
    record.name = "model/data/x" + std::to_string(i);
    file.records.push_back(record);
  }
  opens(file);
}

// --- P6: what people mistake for a checkpoint

TEST_F(HostileZip, SaysWhatAFileIsInstead) {
  refused_bytes("", "is empty");
  refused_bytes("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS");
  refused_bytes("<!DOCTYPE html><html><body>403</body></html>", "web page");
  refused_bytes("a checkpoint\n", "text file");
  refused_bytes(std::string(100, '\0'), "neither");
  refused_bytes(std::string("\x1f\x8b", 2) + std::string(100, '\0'), "gzip");
  refused_bytes("GGUF" + std::string(100, '\0'), "GGUF");
  refused_bytes(std::string(257, 'a') + "ustar" + std::string(300, '\0'), "tar archive");
  refused_bytes(sound_pickle(), "bare pickle");
  expect_refused(folder_.path() / "missing.pth", "No such file");
  ASSERT_EQ(::mkfifo((folder_.path() / "pipe").c_str(), 0600), 0);
  expect_refused(folder_.path() / "pipe", "not a regular file");
  std::filesystem::create_directory(folder_.path() / "empty");
  expect_refused(folder_.path() / "empty", "folder without weights");
  EXPECT_THROW(TensorFile::open("/dev/zero"), CheckpointError);
  EXPECT_THROW(TensorFile::open("/dev/null"), CheckpointError);
}

TEST_F(HostileZip, TakesFilesUnderAnyName) {
  const std::string json = R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  EXPECT_EQ(TensorFile::open(folder_.write("really.pth", safetensors(json, "abcd"))).entries().size(), 1U);
  EXPECT_EQ(TensorFile::open(folder_.write("really.safetensors", sound().bytes())).entries().size(), 1U);
}

TEST_F(HostileZip, EscapesWhatItPrints) {
  const std::string evil = "\x1b[2Jw";
  const auto path = folder_.write(
      "model.pth",
      pth(pickle(pickle_dict({{evil, pickle_tensor(pickle_storage("FloatStorage", "0", 9), 0, {4}, {1})}})),
          {{"0", ""}})
          .bytes());
  const Outcome outcome = try_open(path);
  EXPECT_EQ(outcome.error.find('\x1b'), std::string::npos);
  EXPECT_NE(outcome.error.find("\\x1b[2Jw"), std::string::npos) << outcome.error;
}

TEST_F(HostileZip, VerifyFindsDamagedValues) {
  ZipFile file = sound();
  file.records[1].wrong_crc = true;
  const auto path = folder_.write("model.pth", file.bytes());
  EXPECT_EQ(TensorFile::open(path).entries().size(), 1U);  // loading doesn't read every value twice
  const Verification verification = verify_checkpoint(path);
  ASSERT_EQ(verification.problems.size(), 1U);
  EXPECT_NE(verification.problems[0].find("model/data/0"), std::string::npos);
  EXPECT_FALSE(verification.sound());
  EXPECT_TRUE(verify_checkpoint(folder_.write("sound.pth", sound().bytes())).sound());
  EXPECT_THROW(convert_checkpoint(path, folder_.path() / "out.safetensors"), CheckpointError);
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "out.safetensors"));
}

TEST_F(HostileZip, HugeExpandedTensorsAreNotMadeReal) {
  const std::string huge = pickle_tensor(pickle_storage("FloatStorage", "0", 4), 0, {int64_t{1} << 40, 4}, {0, 1});
  const auto path =
      folder_.write("model.pth", pth(pickle(pickle_dict({{"w", huge}})), {{"0", std::string(16, '\0')}}).bytes());
  const Verification verification = verify_checkpoint(path);
  ASSERT_EQ(verification.problems.size(), 1U);
  EXPECT_NE(verification.problems[0].find("expands"), std::string::npos) << verification.problems[0];
  EXPECT_THROW(convert_checkpoint(path, folder_.path() / "out.safetensors"), CheckpointError);
}

TEST_F(HostileZip, VerifyChecksTensorsOutsideTheStateDict) {
  const std::string good = pickle_tensor(pickle_storage("FloatStorage", "0", 4), 0, {4}, {1});
  const std::string bad = pickle_tensor(pickle_storage("FloatStorage", "0", 4), 2, {4}, {1});
  const auto path = folder_.write(
      "model.pth",
      pth(pickle(pickle_dict({{"state_dict", pickle_dict({{"w", good}})}, {"optimizer", pickle_dict({{"m", bad}})}})),
          {{"0", std::string(16, '\0')}})
          .bytes());
  EXPECT_EQ(TensorFile::open(path).entries().size(), 1U);
  EXPECT_EQ(verify_checkpoint(path).problems.size(), 1U);
}

}  // namespace
}  // namespace mdm::checkpoint_tests
