// Random damage to sound files: something readable or a DataError, nothing else. MDM_MUTANTS sets how many per parser.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "data/test_data.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/core/random.h"
#include "mdm/data/dataset.h"
#include "mdm/data/tar.h"
#include "mdm/data/tsv.h"

namespace mdm {
namespace {

using data_test::TemporaryFolder;

// Choices of mutant `number`, one after the other.
class Dice {
 public:
  explicit Dice(uint64_t number) { address_.seed = number; }
  size_t below(size_t bound) { return random_below(address_, next_++, bound); }

 private:
  RandomAddress address_;
  uint64_t next_ = 0;
};

void set_tar_checksum(std::string& bytes, size_t header) {
  unsigned sum = 0;
  for (size_t i = 0; i < 512; ++i) sum += i >= 148 && i < 156 ? ' ' : static_cast<uint8_t>(bytes[header + i]);
  std::snprintf(&bytes[header + 148], 8, "%06o", sum);
}

std::string damaged(std::string bytes, const std::string& other, Dice& dice) {
  static const std::string kPieces[] = {"\xFF\xFF\xFF\xFF",
                                        "\x80",
                                        "77777777777",
                                        std::string(12, '\0'),
                                        "\"",
                                        "\t",
                                        "\n",
                                        "\r\n",
                                        "999999999",
                                        "(",
                                        "L",
                                        "x"};
  for (size_t changes = 1 + dice.below(4); changes > 0 && !bytes.empty(); --changes) {
    const size_t at = dice.below(bytes.size());
    switch (dice.below(6)) {
      case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << dice.below(8))); break;
      case 1: bytes.resize(at); break;
      case 2: bytes.erase(at, 1 + dice.below(40)); break;
      case 3: bytes.insert(at, other, dice.below(other.size()), 1 + dice.below(64)); break;
      default: {
        const std::string& piece = kPieces[dice.below(std::size(kPieces))];
        bytes.replace(at, std::min(piece.size(), bytes.size() - at), piece);
      }
    }
  }
  return bytes;
}

template <typename Parse>
void survive(const std::vector<std::string>& seeds, bool fix_tar, const Parse& parse) {
  size_t accepted = 0, refused = 0;
  for (size_t number = 0; number < data_test::mutant_count(); ++number) {
    Dice dice(number);
    const std::string& seed = seeds[number % seeds.size()];
    std::string bytes = damaged(seed, seeds[dice.below(seeds.size())], dice);
    // Without this nearly every damage to a header would stop at its checksum.
    for (size_t at = 0; fix_tar && dice.below(4) != 0 && at + 512 <= bytes.size(); at += 512) {
      if (bytes.compare(at + 257, 5, "ustar") == 0) set_tar_checksum(bytes, at);
    }
    // A copy of exactly this size, so that the sanitizer sees a read past the end.
    const std::unique_ptr<char[]> exact(new char[bytes.size()]);
    std::memcpy(exact.get(), bytes.data(), bytes.size());
    try {
      parse(std::string_view(exact.get(), bytes.size()));
      ++accepted;
    } catch (const DataError&) {
      ++refused;
    } catch (const std::exception& error) {
      FAIL() << "mutant " << number << ": " << error.what();
    }
  }
  EXPECT_GT(accepted, data_test::mutant_count() / 50);
  EXPECT_GT(refused, data_test::mutant_count() / 200);
}

std::vector<std::string> tar_seeds() {
  const TemporaryFolder folder;
  const std::string one = data_test::write_tar(
      folder, "a.tar", {{"a.png", "AAAA"}, {"a.txt", "caption"}, {std::string(200, 'n'), std::string(600, 'x')}});
  const std::string two = data_test::write_tar(
      folder, "b.tar",
      {{"k.jpg", "J"}, {"k.json", R"({"caption": "c", "score": 1.5})"}, {"d/" + std::string(120, 'e'), ""}});
  return {data_test::bytes_of(one), data_test::bytes_of(two)};
}

TEST(Mutants, Tar) {
  survive(tar_seeds(), true, [](std::string_view bytes) {
    const TarIndex index = TarIndex::build(bytes, "mutant");
    for (const auto& member : index.members()) {
      ASSERT_LE(member.size, bytes.size());
      ASSERT_LE(member.offset, bytes.size() - member.size);
      ASSERT_EQ(index.find(member.name), &member);
    }
  });
}

TEST(Mutants, WebdatasetFile) {
  set_log_level(LogLevel::kOff);
  const TemporaryFolder folder;
  survive(tar_seeds(), true, [&](std::string_view bytes) {
    DatasetOptions options;
    options.numbers = {"score"};
    const auto set = Dataset::open(folder.write("mutant.tar", std::string(bytes)), options);
    std::vector<uint8_t> content;
    for (size_t i = 0; i < set->size(); ++i) set->read_image(i, content);
  });
  set_log_level(LogLevel::kInfo);
}

TEST(Mutants, Tsv) {
  survive({"tar\tfile\tcaption\none.tar\ta\t\"quoted \"\"text\"\"\"\r\none.tar\tb\tplain\n\"x\ty\"\t\"1\n2\"\t\"\"\n",
           "filename\nshard_0.tsv\nshard_1.tsv\n", "\"a\"b\tc\n\t\t\n"},
          false, [](std::string_view bytes) {
            TsvReader reader(bytes, "mutant");
            std::vector<std::string> fields;
            size_t records = 0;
            for (auto result = reader.next(fields); result != TsvReader::Result::kEnd; result = reader.next(fields)) {
              ASSERT_LE(++records, bytes.size() + 1);
              if (result == TsvReader::Result::kRecord) {
                ASSERT_EQ(fields.size(), reader.columns().size());
              }
            }
          });
}

TEST(Mutants, Npy) {
  std::string npy("\x93NUMPY\x01\0", 8);
  const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n";
  npy += static_cast<char>(header.size());
  npy += '\0' + header + std::string(8, '\1');
  survive({npy}, false, [](std::string_view bytes) {
    const at::Tensor matrix = read_npy_matrix(bytes, "mutant");
    ASSERT_EQ(matrix.nbytes(), 8U);
  });
}

}  // namespace
}  // namespace mdm
