// Thousands of damaged files per parser: each must open or be refused with a CheckpointError, nothing else.
// The seeds are fixed; MDM_MUTANTS sets how many (2,000 when unset).
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <sstream>

#include "checkpoint/builders.h"
#include "checkpoint/open_file.h"
#include "checkpoint/pickle.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/shards.h"
#include "checkpoint/value_json.h"
#include "checkpoint/zip_archive.h"
#include "mdm/checkpoint/inspect.h"
#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"

namespace mdm::checkpoint_tests {
namespace {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15U + 1) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  size_t below(size_t bound) { return bound == 0 ? 0 : next() % bound; }

 private:
  uint64_t state_;
};

size_t mutant_count() {
  const char* text = std::getenv("MDM_MUTANTS");
  return text == nullptr ? 2000 : static_cast<size_t>(std::strtoull(text, nullptr, 10));
}

// One to four damages: a flipped bit, a cut, bytes of elsewhere spliced in, or a length-like number written.
std::string mutate(const std::string& sound, const std::string& other, Random& random) {
  static constexpr uint64_t kNumbers[] = {
      0,           1, 0x7f, 0xff, 0xffff, 0x7fffffff, 0xffffffff, 0x80000000, 0x7fffffffffffffff, 0xffffffffffffffff,
      0x100000000, 16};
  std::string bytes = sound;
  for (size_t damages = 1 + random.below(4); damages > 0 && !bytes.empty(); --damages) {
    const size_t at = random.below(bytes.size());
    switch (random.below(6)) {
      case 0:
      case 1: bytes[at] = static_cast<char>(bytes[at] ^ 1 << random.below(8)); break;
      case 2: bytes.resize(at); break;
      case 3: {
        const size_t from = random.below(other.size());
        bytes.insert(at, other.substr(from, random.below(40)));
        break;
      }
      case 4: bytes.erase(at, random.below(40)); break;
      default: {
        const std::string number = little(kNumbers[random.below(std::size(kNumbers))], 1 << random.below(4));
        bytes.replace(at, std::min(number.size(), bytes.size() - at), number);
      }
    }
  }
  return bytes;
}

// Runs `parse` on mutants of the samples; anything but success or CheckpointError fails the test.
template <typename Parse>
void survive(const std::vector<std::string>& samples, uint64_t seed, Parse parse) {
  Random random(seed);
  size_t accepted = 0, refused = 0;
  for (size_t i = 0; i < mutant_count(); ++i) {
    const std::string bytes =
        mutate(samples[random.below(samples.size())], samples[random.below(samples.size())], random);
    // A copy of exactly this size, so that the sanitizer sees a read past the end.
    const std::unique_ptr<char[]> exact(new char[bytes.size()]);
    std::memcpy(exact.get(), bytes.data(), bytes.size());
    try {
      parse(std::string_view(exact.get(), bytes.size()));
      ++accepted;
    } catch (const CheckpointError&) {
      ++refused;
    } catch (const std::exception& error) {
      FAIL() << "mutant " << i << ": " << error.what();
    }
  }
  EXPECT_GT(refused, mutant_count() / 10);
  testing::Test::RecordProperty("accepted", static_cast<int>(accepted));
}

std::string golden_bytes(const std::string& name) {
  return read_text_file(std::filesystem::path(MDM_TEST_DATA) / "golden" / "checkpoint" / name);
}

std::string data_pickle(const std::string& name) {
  const std::string bytes = golden_bytes(name);
  const checkpoint::ZipArchive zip(bytes, name);
  for (const auto& entry : zip.entries()) {
    if (entry.name.size() > 8 && entry.name.substr(entry.name.size() - 8) == "data.pkl") {
      return std::string(zip.stored(entry));
    }
  }
  return {};
}

// The values of a mutant are walked as well, by everything that walks values.
void read_pickle(std::string_view bytes) {
  checkpoint::ValueArena arena((size_t{32} << 20) + 2 * bytes.size(), "mutant");
  size_t offset = 0;
  const checkpoint::Value* root = checkpoint::unpickle(bytes, offset, arena, "mutant");
  ASSERT_LE(offset, bytes.size());
  ASSERT_FALSE(checkpoint::value_to_json(*root, root).empty());
}

TEST(Mutants, Pickle) {
  survive({data_pickle("odd_tensors.pth"), data_pickle("nested_containers.pth"), data_pickle("plain_dict_proto4.pth"),
           data_pickle("unet_ref.pth").substr(12000)},
          1, read_pickle);
}

TEST(Mutants, SmallPickle) {
  const std::string tensor = pickle_tensor(pickle_storage("FloatStorage", "0", 4), 0, {2, 2}, {2, 1});
  survive({pickle(pickle_dict({{"w", tensor}, {"l", "](NNe"}, {"t", "NN\x86"}})),
           std::string("\x80\x04\x95\x05\0\0\0\0\0\0\0}\x94(\x8c\x01k\x94K\x07u.", 22)},
          2, read_pickle);
}

TEST(Mutants, Zip) {
  const std::string tensor = pickle_tensor(pickle_storage("FloatStorage", "0", 4), 0, {4}, {1});
  ZipFile small = pth(pickle(pickle_dict({{"w", tensor}})), {{"0", std::string(16, '\1')}});
  ZipFile large = small;
  large.zip64 = true;
  survive({small.bytes(), large.bytes(), golden_bytes("odd_tensors.pth")}, 3, [](std::string_view bytes) {
    const checkpoint::ZipArchive zip(bytes, "mutant");
    for (const auto& entry : zip.entries()) zip.crc_matches(entry);
  });
}

// Whole files through the public interface: opened, read, inspected, verified.
void read_file(const std::filesystem::path& path) {
  std::ostringstream listing;
  print_verification(verify_checkpoint(path), listing);
  try {
    print_inspection(inspect_checkpoint(path), listing);
  } catch (const CheckpointError&) {  // what can't be opened, open() refuses below
  }
  const TensorFile file = TensorFile::open(path);
  for (const auto& entry : file.entries()) {
    const at::Tensor tensor = file.tensor(entry.name);
    if (tensor.numel() < (1 << 20)) (void)tensor.contiguous();
  }
}

void survive_as_files(const std::vector<std::string>& samples, uint64_t seed, const std::string& name) {
  const TemporaryFolder folder;
  survive(samples, seed, [&](std::string_view bytes) { read_file(folder.write(name, std::string(bytes))); });
}

TEST(Mutants, TorchFile) {
  const std::string tensor = pickle_tensor(pickle_storage("FloatStorage", "0", 4), 0, {2, 2}, {1, 2});
  ZipFile file = pth(pickle(pickle_dict({{"state_dict", pickle_dict({{"w", tensor}})}, {"n", "K\x05"}})),
                     {{"0", std::string(16, '\1')}});
  for (auto& record : file.records) record.no_crc = true;  // damage must reach the parsers behind the checksum
  survive_as_files({file.bytes(), golden_bytes("odd_tensors.pth")}, 4, "mutant.pth");
}

TEST(Mutants, LegacyTorchFile) {
  const std::string tensor = pickle_tensor(pickle_storage("FloatStorage", "0", 4), 0, {2, 2}, {1, 2});
  survive_as_files({legacy_pth(pickle(pickle_dict({{"w", tensor}})), pickle("](" + pickle_text("0") + "e"),
                               little(4, 8) + std::string(16, '\1')),
                    golden_bytes("odd_tensors_legacy.pth")},
                   5, "mutant.pth");
}

TEST(Mutants, Safetensors) {
  survive(
      {golden_bytes("odd_tensors.safetensors"),
       safetensors(R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "12345678")},
      6, [](std::string_view bytes) { checkpoint::parse_safetensors(bytes, "mutant"); });
}

TEST(Mutants, SafetensorsFile) {
  survive_as_files({golden_bytes("odd_tensors.safetensors"),
                    safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "12345678")},
                   7, "mutant.safetensors");
}

TEST(Mutants, ShardIndex) {
  survive(
      {R"({"metadata":{"total_size":8},"weight_map":{"b":"two.safetensors","a":"one.safetensors"}})",
       R"({"weight_map": {"encoder.block.0": "model-00001-of-00002.safetensors", "x": "model-00002-of-00002.safetensors"}})"},
      8, [](std::string_view bytes) {
        const auto index = checkpoint::parse_shard_index(bytes, "mutant");
        for (const auto& file : index.files) {
          if (file.find('/') != std::string::npos || file == "..") throw std::runtime_error("a path got through");
        }
      });
}

}  // namespace
}  // namespace mdm::checkpoint_tests
