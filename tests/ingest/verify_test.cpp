// `verify` and `stats` on data sets with planted faults, which must all be found, in one run, by kind.
#include "mdm/ingest/verify.h"

#include <nlohmann/json.hpp>

#include "ingest/support.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/data/dataset.h"
#include "mdm/data/tar.h"
#include "mdm/ingest/stats.h"
#include "mdm/media/decode.h"
#include "mdm/media/png.h"

namespace mdm::ingest {
namespace {

namespace fs = std::filesystem;
using ingest_test::FolderTest;
using ingest_test::jpeg;
using ingest_test::records;
using Counts = std::map<std::string, uint64_t>;

class VerifyTest : public FolderTest {
 protected:
  using Members = std::vector<std::pair<std::string, std::string>>;

  std::string archive(const std::string& name, const Members& members) const {
    TarWriter tar(folder_ / name);
    for (const auto& [member, content] : members) tar.add(member, content);
    tar.finish();
    return (folder_ / name).string();
  }
  static Members sample(const std::string& key, int number, const std::string& caption = "a caption") {
    return {{key + ".jpg", jpeg(number)}, {key + ".txt", caption}};
  }
  static void append(Members& members, const Members& more) { members.insert(members.end(), more.begin(), more.end()); }
  static VerifySettings of(const std::string& list) {
    VerifySettings settings;
    settings.survey.lists = {list};
    settings.survey.threads = 2;
    return settings;
  }
};

TEST_F(VerifyTest, ASoundArchiveHasNoFaults) {
  Members members;
  for (int i = 0; i < 5; ++i) append(members, sample("k" + std::to_string(i), i, "caption " + std::to_string(i)));
  const VerifyResult result = verify_dataset(of(archive("good.tar", members)));
  EXPECT_EQ(result.faults, Counts{});
  EXPECT_EQ(result.samples, 5u);
  EXPECT_EQ(result.sound, 5u);
  EXPECT_EQ(result.readable_archives, 1u);
}

TEST_F(VerifyTest, FindsEveryPlantedFault) {
  Members members;
  append(members, sample("good", 1));
  const std::string whole = jpeg(2, 200, 150);
  append(members, {{"cut.jpg", whole.substr(0, whole.size() / 2)}, {"cut.txt", "x"}});
  std::string corrupt = jpeg(3, 200, 150);
  std::fill(corrupt.begin() + static_cast<ptrdiff_t>(corrupt.size() / 2), corrupt.end() - 2, '\0');
  append(members, {{"corrupt.jpg", corrupt}, {"corrupt.txt", "x"}});
  append(members, {{"html.jpg", "<html>"}, {"html.txt", "x"}});
  append(members, {{"silent.jpg", jpeg(4)}});
  append(members, {{"blank.jpg", jpeg(5)}, {"blank.txt", " \n"}});
  append(members, {{"latin.jpg", jpeg(6)}, {"latin.txt", "caf\xE9"}});
  append(members, {{"blind.txt", "no picture"}});
  append(members, {{"other.jpg", jpeg(7)},
                   {"other.txt", "x"},
                   {"other.json", nlohmann::json{{"sha256", sha256_hex("something else")}}.dump()}});
  append(members, {{"right.jpg", jpeg(8)},
                   {"right.txt", "x"},
                   {"right.json", nlohmann::json{{"sha256", sha256_hex(jpeg(8))}}.dump()}});
  append(members, sample("../../out", 9));
  append(members, sample("/etc/abs", 10));
  append(members, sample("line\nend", 11));
  VerifySettings settings = of(archive("bad.tar", members));
  settings.report = folder_ / "faults.tsv";
  const VerifyResult result = verify_dataset(settings);
  const Counts expected = {{"picture", 3}, {"caption", 3}, {"member", 1}, {"digest", 1}, {"name", 6}};
  EXPECT_EQ(result.faults, expected);
  EXPECT_EQ(result.all_faults(), 14u);
  Counts reported;
  for (const auto& row : records(settings.report)) {
    ++reported[row[0]];
    EXPECT_EQ(row[2].find('\n'), std::string::npos) << "names are escaped";
  }
  EXPECT_EQ(reported, expected);
  // Such names do no harm to who trains on them: names are only compared.
  const auto dataset = Dataset::open(settings.survey.lists[0], [] {
    DatasetOptions options;
    options.max_bad_fraction = 1;
    return options;
  }());
  bool seen = false;
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i < dataset->size(); ++i) {
    if (dataset->file(i) != "../../out.jpg") continue;
    seen = true;
    dataset->read_image(i, bytes);
    EXPECT_EQ(std::string(bytes.begin(), bytes.end()), jpeg(9));
    EXPECT_EQ(dataset->where(i).find('\n'), std::string::npos);
  }
  EXPECT_TRUE(seen);
}

TEST_F(VerifyTest, DamagedAndMissingArchivesDoNotHideTheOthers) {
  Members members;
  for (int i = 0; i < 6; ++i) append(members, sample("k" + std::to_string(i), i));
  archive("a.tar", members);
  archive("b.tar", members);
  fs::resize_file(folder_ / "b.tar", fs::file_size(folder_ / "b.tar") / 2);
  std::string list = "tar\tfile\tcaption\n";
  for (const char* tar : {"a.tar", "b.tar", "absent.tar"}) {
    for (int i = 0; i < 6; ++i) list += std::string(tar) + "\tk" + std::to_string(i) + ".jpg\tx\n";
  }
  list += "a.tar\tnobody.jpg\tx\nonly two\tfields\n";
  const VerifyResult result = verify_dataset(of(write("list.tsv", list).string()));
  EXPECT_EQ(result.archives, 3u);
  EXPECT_EQ(result.readable_archives, 2u);
  EXPECT_EQ(result.faults.at("archive"), 1u);
  EXPECT_EQ(result.faults.at("damage"), 1u);
  EXPECT_EQ(result.faults.at("line"), 1u);
  EXPECT_GE(result.faults.at("member"), 3u);
  EXPECT_GE(result.sound, 6u);
  EXPECT_LT(result.sound, 12u);
}

TEST_F(VerifyTest, TheContactSheetIsTheSameForTheSameSeed) {
  Members members;
  for (int i = 0; i < 20; ++i) {
    append(members, sample("k" + std::to_string(i), i,
                           "a caption of many words with an emoji \xF0\x9F\x98\x80 no. " + std::to_string(i)));
  }
  append(members, {{"broken.jpg", "x"}, {"broken.txt", "broken"}});
  const auto sheet = [&](const char* name, uint64_t seed) {
    VerifySettings settings = of((folder_ / "a.tar").string());
    settings.survey.sheet = {folder_ / name, 9, seed};
    verify_dataset(settings);
    return read_text_file(folder_ / name);
  };
  archive("a.tar", members);
  const std::string first = sheet("1.png", 1);
  EXPECT_EQ(sheet("again.png", 1), first);
  EXPECT_NE(sheet("2.png", 2), first);
  const Image image = load_image(folder_ / "1.png");
  EXPECT_GT(image.width, 150);
  std::set<uint32_t> colours;
  for (size_t i = 0; i + 3 <= image.pixels.size(); i += 3) {
    colours.insert(uint32_t{image.pixels[i]} << 16 | uint32_t{image.pixels[i + 1]} << 8 | image.pixels[i + 2]);
  }
  EXPECT_GT(colours.size(), 100u);
}

TEST_F(VerifyTest, StatsCountWhatIsThere) {
  Members members;
  append(members, {{"a.jpg", jpeg(1, 100, 50)}, {"a.txt", "four"}});
  append(members, {{"b.jpg", jpeg(2, 300, 300)}, {"b.txt", "four"}});
  append(members, {{"c.png", encode_png(Image(70, 280, 3, 9))}, {"c.txt", "ab\xC3\xA9"}});
  append(members, {{"d.jpg", "broken"}, {"d.txt", "x"}});
  SurveySettings settings;
  settings.lists = {archive("a.tar", members)};
  const StatsResult stats = dataset_stats(settings);
  EXPECT_EQ(stats.samples, 4u);
  EXPECT_EQ(stats.unreadable, 1u);
  EXPECT_EQ(stats.formats.at("JPEG"), 2u);
  EXPECT_EQ(stats.formats.at("PNG"), 1u);
  EXPECT_EQ(stats.smaller_side.count, 3u);
  EXPECT_EQ(stats.smaller_side.least, 50);
  EXPECT_EQ(stats.smaller_side.most, 300);
  EXPECT_DOUBLE_EQ(stats.smaller_side.mean, 140);
  EXPECT_EQ(stats.larger_side.percentiles.at(50), 280);
  EXPECT_EQ(stats.below.at(64), 1u);
  EXPECT_EQ(stats.below.at(256), 2u);
  EXPECT_EQ(stats.below.at(1024), 3u);
  EXPECT_EQ(stats.tall, 1u);
  EXPECT_EQ(stats.square, 1u);
  EXPECT_EQ(stats.wide, 1u);
  EXPECT_EQ(stats.caption_bytes.most, 4);
  EXPECT_EQ(stats.caption_points.percentiles.at(50), 3);
  EXPECT_EQ(stats.repeated_captions, 1u);
  const auto json = nlohmann::json::parse(stats_json(stats));
  EXPECT_EQ(json.at("samples"), 4);
  EXPECT_NE(stats_text(stats).find("4 samples"), std::string::npos);
}

TEST_F(VerifyTest, NothingReadableIsToldAsAFaultOfTheList) {
  const VerifyResult result = verify_dataset(of((folder_ / "absent.tsv").string()));
  EXPECT_EQ(result.readable_archives, 0u);
  EXPECT_EQ(result.faults.at("list"), 1u);
}

}  // namespace
}  // namespace mdm::ingest
