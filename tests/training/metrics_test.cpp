// What a run writes down, read back: by a parser of event files of the test's own, and by TensorBoard's.
#include "mdm/training/metrics.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "mdm/core/error.h"
#include "mdm/media/decode.h"
#include "training/event_file.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string file_text(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// CRC-32C bit by bit, from its polynomial.
uint32_t slow_crc32c(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82F63B78u : crc >> 1;
  }
  return crc ^ 0xFFFFFFFFu;
}

// One field of a protocol buffer.
struct Field {
  int number = 0, type = 0;
  uint64_t value = 0;      // of types 0, 1 and 5
  std::string_view bytes;  // of type 2
  double real() const {
    double out = 0;
    std::memcpy(&out, &value, sizeof out);
    return out;
  }
  float single() const {
    const auto low = static_cast<uint32_t>(value);
    float out = 0;
    std::memcpy(&out, &low, sizeof out);
    return out;
  }
};

uint64_t little(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes.size(); ++i)
    value |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[i])) << 8 * i;
  return value;
}

std::vector<Field> fields_of(std::string_view message) {
  size_t at = 0;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      if (at >= message.size() || shift > 63) throw std::runtime_error("a varint that does not end");
      const auto byte = static_cast<unsigned char>(message[at++]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
  };
  const auto take = [&](size_t count) {
    if (count > message.size() - at) throw std::runtime_error("a field that is cut");
    at += count;
    return message.substr(at - count, count);
  };
  std::vector<Field> fields;
  while (at < message.size()) {
    const uint64_t key = varint();
    Field field;
    field.number = static_cast<int>(key >> 3);
    field.type = static_cast<int>(key & 7);
    switch (field.type) {
      case 0: field.value = varint(); break;
      case 1: field.value = little(take(8)); break;
      case 2: field.bytes = take(varint()); break;
      case 5: field.value = little(take(4)); break;
      default: throw std::runtime_error("an unknown type of field");
    }
    fields.push_back(field);
  }
  return fields;
}

const Field* find(const std::vector<Field>& fields, int number) {
  for (const Field& field : fields) {
    if (field.number == number) return &field;
  }
  return nullptr;
}

struct Event {
  double time = 0;
  int64_t step = 0;
  std::string version;
  bool session_start = false;
  std::vector<std::string> values;  // Summary.Value messages
};

// The events of a file; checksums are checked. `torn`: bytes at the end that are no whole record.
std::vector<Event> read_events(const fs::path& file, size_t* torn = nullptr) {
  const std::string text = file_text(file);
  const auto unmasked = [](uint32_t masked) {
    const uint32_t rotated = masked - 0xa282ead8u;
    return rotated >> 17 | rotated << 15;
  };
  std::vector<Event> events;
  size_t at = 0;
  while (at + 16 <= text.size()) {
    const std::string_view all = text;
    const uint64_t length = little(all.substr(at, 8));
    EXPECT_EQ(unmasked(static_cast<uint32_t>(little(all.substr(at + 8, 4)))), slow_crc32c(all.substr(at, 8)));
    if (length > text.size() - at - 16) break;
    const auto message = all.substr(at + 12, length);
    EXPECT_EQ(unmasked(static_cast<uint32_t>(little(all.substr(at + 12 + length, 4)))), slow_crc32c(message));
    at += 16 + length;
    Event event;
    for (const Field& field : fields_of(message)) {
      if (field.number == 1) event.time = field.real();
      if (field.number == 2) event.step = static_cast<int64_t>(field.value);
      if (field.number == 3) event.version = field.bytes;
      if (field.number == 7) event.session_start = find(fields_of(field.bytes), 1)->value == 1;
      if (field.number != 5) continue;
      for (const Field& value : fields_of(field.bytes)) event.values.emplace_back(value.bytes);
    }
    events.push_back(std::move(event));
  }
  if (torn != nullptr) *torn = text.size() - at;
  return events;
}

class MetricsTest : public testing::Test {
 protected:
  MetricsTest() {
    std::string name = (fs::path(::testing::TempDir()) / "mdm_metrics_XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~MetricsTest() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  MetricsOptions options(int64_t first_step = 0) const {
    MetricsOptions options;
    options.folder = folder_ / "train";
    options.first_step = first_step;
    return options;
  }
  std::vector<json> lines() const {
    std::vector<json> lines;
    std::istringstream in(file_text(folder_ / "train/metrics.jsonl"));
    for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
    return lines;
  }
  std::vector<int64_t> steps() const {
    std::vector<int64_t> steps;
    for (const json& line : lines()) steps.push_back(line.at("step"));
    return steps;
  }
  fs::path folder_;
};

TEST(EventFile, ChecksumsAreCastagnolis) {
  // RFC 3720, B.4.
  EXPECT_EQ(events::crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(events::crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
  EXPECT_EQ(events::crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(events::crc32c("56789", events::crc32c("1234")), 0xE3069283u);
  std::string bytes;
  for (int i = 0; i < 1000; ++i) bytes += static_cast<char>(i * 37);
  EXPECT_EQ(events::crc32c(bytes), slow_crc32c(bytes));
}

TEST_F(MetricsTest, ReadsBackByAnOwnParser) {
  Image picture(5, 4, 3);
  for (size_t i = 0; i < picture.pixels.size(); ++i) picture.pixels[i] = static_cast<uint8_t>(i * 4);
  fs::path file;
  {
    MetricsWriter writer(options());
    writer.scalars(0, {{"loss", 0.5}, {"lr", 1e-4}});
    writer.scalars(10, {{"loss", std::numeric_limits<double>::quiet_NaN()}, {"speed", 3e9}});
    writer.image(10, "samples", picture);
    writer.text(10, "config", "a: 1\n\xC3\xA9\n");
    EXPECT_FALSE(writer.failed());
    file = writer.event_file();
  }
  EXPECT_EQ(file.filename().string().rfind("events.out.tfevents.", 0), 0u);
  size_t torn = 1;
  const auto events = read_events(file, &torn);
  EXPECT_EQ(torn, 0u);
  ASSERT_EQ(events.size(), 6u);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  EXPECT_TRUE(events[1].session_start);
  const auto now = static_cast<double>(::time(nullptr));
  for (const Event& event : events) EXPECT_NEAR(event.time, now, 60);

  const auto scalar = [](const Event& event, size_t at) {
    const auto value = fields_of(event.values.at(at));
    return std::pair{std::string(find(value, 1)->bytes), find(value, 2)->single()};
  };
  EXPECT_EQ(scalar(events[2], 0), (std::pair{std::string("loss"), 0.5F}));
  EXPECT_EQ(scalar(events[2], 1), (std::pair{std::string("lr"), 1e-4F}));
  EXPECT_EQ(events[3].step, 10);
  EXPECT_TRUE(std::isnan(scalar(events[3], 0).second));

  const auto image_value = fields_of(events[4].values.at(0));
  EXPECT_EQ(find(image_value, 1)->bytes, "samples");
  const auto image = fields_of(find(image_value, 4)->bytes);
  EXPECT_EQ(find(image, 1)->value, 4u);
  EXPECT_EQ(find(image, 2)->value, 5u);
  EXPECT_EQ(find(image, 3)->value, 3u);
  const auto png = find(image, 4)->bytes;
  EXPECT_EQ(decode_image(reinterpret_cast<const uint8_t*>(png.data()), png.size(), "png").pixels, picture.pixels);

  const auto text_value = fields_of(events[5].values.at(0));
  EXPECT_EQ(find(fields_of(find(text_value, 8)->bytes), 8)->bytes, "a: 1\n\xC3\xA9\n");
  const auto metadata = fields_of(find(text_value, 9)->bytes);
  EXPECT_EQ(find(fields_of(find(metadata, 1)->bytes), 1)->bytes, "text");

  const auto written = lines();
  ASSERT_EQ(written.size(), 2u);
  EXPECT_EQ(written[0].at("step"), 0);
  EXPECT_EQ(written[0].at("lr"), 1e-4);
  EXPECT_NEAR(written[0].at("time").get<double>(), now, 60);
  EXPECT_TRUE(written[1].at("loss").is_null());
  EXPECT_EQ(written[1].at("speed"), 3e9);
}

TEST_F(MetricsTest, AResumedRunHasNoStepTwice) {
  {
    MetricsWriter writer(options());
    for (int64_t step = 0; step < 8; ++step) writer.scalars(step, {{"loss", static_cast<double>(step)}});
  }
  // A line that a crash has cut, and one that the user wrote.
  std::ofstream(folder_ / "train/metrics.jsonl", std::ios::app) << "{\"note\": \"mine\"}\n{\"step\": 8, \"los";
  fs::path second;
  {
    MetricsWriter writer(options(5));
    second = writer.event_file();
    for (int64_t step = 5; step < 7; ++step) writer.scalars(step, {{"loss", 100.0 + static_cast<double>(step)}});
  }
  std::vector<json> written = lines();
  ASSERT_EQ(written.size(), 8u);
  EXPECT_EQ(written[5], json::parse("{\"note\": \"mine\"}"));
  EXPECT_EQ(written[6].at("loss"), 105);
  EXPECT_EQ(written[7].at("step"), 6);
  const auto events = read_events(second);
  EXPECT_TRUE(events.at(1).session_start);
  EXPECT_EQ(events.at(1).step, 5);
  // From the beginning again: nothing of before stays.
  { MetricsWriter writer(options()); }
  EXPECT_EQ(lines().size(), 1u);
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(folder_ / "train")) files += entry.is_regular_file() ? 1 : 0;
  EXPECT_EQ(files, 4u) << "three event files, and the lines";
}

TEST_F(MetricsTest, FlushesInTime) {
  MetricsOptions lazy = options();
  lazy.flush_seconds = 1000;
  MetricsWriter writer(lazy);
  writer.scalars(0, {{"loss", 1}});
  EXPECT_EQ(read_events(writer.event_file()).size(), 0u);
  writer.flush();
  EXPECT_EQ(read_events(writer.event_file()).size(), 3u);
  EXPECT_EQ(lines().size(), 1u);
  MetricsOptions eager = options();
  eager.flush_seconds = 0;
  MetricsWriter other(eager);
  other.scalars(1, {{"loss", 1}});
  EXPECT_EQ(read_events(other.event_file()).size(), 3u);
}

TEST_F(MetricsTest, FailedWritesDontEndTheRun) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    bool fine = true;
    {
      MetricsOptions eager = options();
      eager.flush_seconds = 0;
      MetricsWriter writer(eager);
      writer.scalars(0, {{"loss", 1}});
      const rlimit limit{400, RLIM_INFINITY};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      for (int64_t step = 1; step < 100; ++step) writer.scalars(step, {{"loss", 1}});
      writer.image(3, "picture", Image(40, 40, 3));
      writer.image(3, "no picture", Image());
      fine = writer.failed();
    }
    ::_exit(fine ? 0 : 1);
  }
  int status = 1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  // What a full disk has cut is no obstacle to the run that goes on from there.
  {
    MetricsWriter writer(options(2));
    writer.scalars(2, {{"loss", 2}});
  }
  EXPECT_EQ(steps(), (std::vector<int64_t>{0, 1, 2}));
  std::ofstream(folder_ / "file") << "";
  MetricsOptions impossible = options();
  impossible.folder = folder_ / "file/below";
  EXPECT_THROW(MetricsWriter writer(impossible), Error);
}

// The first of these that has the package: MDM_TENSORBOARD_PYTHON, what scripts/setup.sh --dev makes, python3.
std::string tensorboard_python() {
  std::vector<std::string> candidates;
  if (const char* set = std::getenv("MDM_TENSORBOARD_PYTHON")) candidates.emplace_back(set);
  candidates.push_back((fs::path(MDM_TEST_DATA) / "../.cache/tensorboard/bin/python").string());
  candidates.emplace_back("python3");
  for (const std::string& python : candidates) {
    const std::string command = "\"" + python + "\" -c 'import tensorboard' >/dev/null 2>&1";
    if (std::system(command.c_str()) == 0) return python;
  }
  return "";
}

TEST_F(MetricsTest, ReadsBackByTensorBoard) {
  const std::string python = tensorboard_python();
  if (python.empty()) GTEST_SKIP() << "no Python with the package tensorboard (scripts/setup.sh --dev makes one)";
  Image picture(5, 4, 3, 77);
  {
    MetricsWriter writer(options());
    writer.hparams({{"lr", 1e-4}, {"amp", true}, {"model", std::string("unet \xFF")}}, {"loss"});
    writer.text(0, "config", "a: 1");
    for (int64_t step = 0; step < 8; ++step) writer.scalars(step, {{"loss", static_cast<double>(step)}, {"t/\xFF", 1}});
    writer.image(4, "samples", picture);
    writer.image(6, "samples", picture);
  }
  {
    MetricsWriter writer(options(5));
    for (int64_t step = 5; step < 7; ++step) writer.scalars(step, {{"loss", 100.0 + static_cast<double>(step)}});
    writer.image(6, "samples", picture);
  }
  const fs::path out = folder_ / "out.json";
  const std::string command = "\"" + python + "\" \"" + MDM_TEST_DATA + "/training/read_events.py\" \"" +
                              (folder_ / "train").string() + "\" > \"" + out.string() + "\" 2> \"" + out.string() +
                              ".log\"";
  ASSERT_EQ(std::system(command.c_str()), 0) << file_text(out.string() + ".log");
  const json found = json::parse(file_text(out));
  const json expected = {{0, "0.0"}, {1, "1.0"}, {2, "2.0"}, {3, "3.0"}, {4, "4.0"}, {5, "105.0"}, {6, "106.0"}};
  EXPECT_EQ(found.at("scalars").at("loss"), expected) << "steps of before the crash are purged";
  EXPECT_EQ(found.at("scalars").at("t/\xEF\xBF\xBD").size(), 5u);
  const json& images = found.at("images").at("samples");
  ASSERT_EQ(images.size(), 2u);
  EXPECT_EQ(images[0][0], 4);
  EXPECT_EQ(images[1][1], 5);
  EXPECT_EQ(images[1][2], 4);
  EXPECT_EQ(images[0][3].get<std::string>().substr(0, 16), "89504e470d0a1a0a");
  EXPECT_EQ(found.at("texts").at("config"), json::parse(R"([[0, "a: 1"]])"));
  const json& hparams = found.at("hparams");
  EXPECT_EQ(hparams.at("metrics"), json::parse(R"(["loss"])"));
  EXPECT_EQ(hparams.at("names"), json::parse(R"(["amp", "lr", "model"])"));
  EXPECT_EQ(hparams.at("values").at("lr"), 1e-4);
  EXPECT_EQ(hparams.at("values").at("amp"), true);
  EXPECT_EQ(hparams.at("values").at("model"), "unet \xEF\xBF\xBD");
  EXPECT_EQ(hparams.at("status"), 3) << "running";
}

}  // namespace
}  // namespace mdm
