// Faults of archives, lists and whole data sets, planted one by one; and that what is told does not depend on threads.
#include <atomic>
#include <nlohmann/json.hpp>
#include <random>

#include "ingest/support.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/data/dataset.h"
#include "mdm/data/tar.h"
#include "mdm/ingest/download_job.h"
#include "mdm/ingest/stats.h"
#include "mdm/ingest/verify.h"
#include "mdm/media/decode.h"
#include "mdm/media/png.h"
#include "support/tiny_spiece.h"

namespace mdm::ingest {
namespace {

namespace fs = std::filesystem;
using ingest_test::FolderTest;
using ingest_test::jpeg;
using ingest_test::records;
using Counts = std::map<std::string, uint64_t>;

class VerifyFaultsTest : public FolderTest {
 protected:
  using Members = std::vector<std::pair<std::string, std::string>>;

  std::string archive(const std::string& name, const Members& members) const {
    TarWriter tar(folder_ / name);
    for (const auto& [member, content] : members) tar.add(member, content);
    tar.finish();
    return (folder_ / name).string();
  }
  // Samples with the keys first, first + 1, ...
  static Members samples(int count, int first = 0) {
    Members members;
    for (int i = first; i < first + count; ++i) {
      const std::string key = "k" + std::to_string(i);
      members.emplace_back(key + ".jpg", jpeg(i));
      members.emplace_back(key + ".txt", "caption " + std::to_string(i));
    }
    return members;
  }
  static std::string row(const std::string& tar, int i) {
    return tar + "\tk" + std::to_string(i) + ".jpg\tcaption " + std::to_string(i) + '\n';
  }
  static VerifySettings of(const std::vector<std::string>& lists) {
    VerifySettings settings;
    settings.survey.lists = lists;
    settings.survey.threads = 2;
    return settings;
  }
  static VerifyResult verified(const std::string& list) { return verify_dataset(of({list})); }

  int run(const std::vector<std::string>& arguments) const {
    const AppInfo info = download_dataset_app_info();
    return run_app(arguments, info,
                   [this](const ParsedCommandLine& line) { return run_download_dataset(line, stop_); });
  }
  std::atomic<bool> stop_{false};
};

// One member of a type of its own, with a right checksum, in front of the end mark.
std::string with_special_member(std::string tar, char type) {
  std::string header(512, '\0');
  header.replace(0, 7, "special");
  header.replace(124, 11, "00000000000");
  header.replace(157, 11, "/etc/passwd");
  header.replace(257, 5, "ustar");
  header[156] = type;
  header.replace(148, 8, 8, ' ');
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  char text[8];
  std::snprintf(text, sizeof text, "%06o", sum);
  header.replace(148, 7, std::string(text, 7));
  return tar.insert(0, header);
}

TEST_F(VerifyFaultsTest, LinksAreToldAndFoldersAreNot) {
  const std::string tar = read_text_file(archive("a.tar", samples(2)));
  const auto faults = [&](char type) {
    return verified(write("b.tar", with_special_member(tar, type)).string()).faults;
  };
  EXPECT_EQ(faults('5'), Counts{});
  for (const char type : {'1', '2', '3', '6'}) EXPECT_EQ(faults(type), (Counts{{"skipped", 1}})) << type;
}

TEST_F(VerifyFaultsTest, EndsOfArchives) {
  const std::string tar = read_text_file(archive("a.tar", samples(3)));
  const size_t end = tar.find_last_not_of('\0');
  const size_t mark = (end / 512 + 1) * 512;
  EXPECT_EQ(verified(write("b.tar", tar.substr(0, mark)).string()).faults, (Counts{{"end_mark", 1}}));
  EXPECT_EQ(verified(write("b.tar", tar + std::string(100000, '\0')).string()).faults, Counts{});
  // Two archives joined: samples of the second are lost to every reader.
  const VerifyResult joined = verified(write("b.tar", tar + tar).string());
  EXPECT_EQ(joined.faults, (Counts{{"rest", 1}}));
  EXPECT_EQ(joined.samples, 3u);
  // An error page, an empty file, a compressed archive.
  for (const std::string bytes : {"<html>not found</html>", "", "\x1F\x8B\x08 compressed"}) {
    const VerifyResult none = verified(write("b.tar", bytes).string());
    EXPECT_EQ(none.faults, (Counts{{"archive", 1}}));
    EXPECT_EQ(none.readable_archives, 0u);
    EXPECT_EQ(none.first.at(0).what.find("b.tar"), std::string::npos) << "the archive is named once";
  }
}

// Every place to cut at: never a crash, always a fault, and what lies before is sound.
TEST_F(VerifyFaultsTest, CutAnywhere) {
  const std::string tar = read_text_file(archive("a.tar", samples(3)));
  const size_t content = tar.find_last_not_of('\0') + 1;
  for (size_t count = 0; count < content; count += 97) {
    const VerifyResult result = verified(write("b.tar", tar.substr(0, count)).string());
    EXPECT_GT(result.all_faults(), 0u) << count;
    EXPECT_LE(result.sound, result.samples);
  }
}

TEST_F(VerifyFaultsTest, DamagedArchivesNeverEndTheRun) {
  const std::string tar = read_text_file(archive("a.tar", samples(4)));
  std::mt19937_64 random(11);
  for (int i = 0; i < 300; ++i) {
    std::string mutant = tar;
    for (int k = 0; k < 4; ++k) mutant[random() % mutant.size()] = static_cast<char>(random());
    write("b.tar", mutant);
    const VerifyResult result = verified((folder_ / "b.tar").string());
    EXPECT_EQ(result.archives, 1u);
    uint64_t told = 0;
    for (const auto& [kind, count] : result.faults) told += count;
    EXPECT_EQ(told, result.all_faults());
    SurveySettings settings;
    settings.lists = {(folder_ / "b.tar").string()};
    settings.threads = 1;
    EXPECT_NO_THROW(stats_text(dataset_stats(settings)));
  }
}

TEST_F(VerifyFaultsTest, MembersThatAreThereTwice) {
  Members members = samples(3);
  members.emplace_back("k1.txt", "another caption");
  members.emplace_back("k2.png", encode_png(Image(8, 8, 3, 5)));
  const VerifyResult result = verified(archive("a.tar", members));
  EXPECT_EQ(result.faults, (Counts{{"replaced", 1}, {"duplicate", 1}}));
  EXPECT_EQ(result.sound, 2u);
}

// The scan is whole or not, whatever the header says: the end marker set right again, progressive, at a size that is
// decoded at an eighth.
TEST_F(VerifyFaultsTest, CutScansAreFound) {
  Members members;
  const std::string whole = jpeg(1, 640, 480);
  for (int i = 1; i < 10; ++i) {
    const std::string key = "k" + std::to_string(i);
    members.emplace_back(key + ".jpg", whole.substr(0, whole.size() * static_cast<size_t>(i) / 10) + "\xFF\xD9");
    members.emplace_back(key + ".txt", "x");
  }
  EXPECT_EQ(verified(archive("a.tar", members)).faults, (Counts{{"picture", 9}}));
}

TEST_F(VerifyFaultsTest, DigestsOfTheFileThatCameDoNotCount) {
  const auto sample = [](const std::string& key, const nlohmann::json& about) {
    return Members{{key + ".jpg", jpeg(1)}, {key + ".txt", "x"}, {key + ".json", about.dump()}};
  };
  Members members;
  const auto add = [&](const Members& more) { members.insert(members.end(), more.begin(), more.end()); };
  const std::string right = sha256_hex(jpeg(1)), other = sha256_hex("other");
  add(sample("a", {{"sha256", right}}));
  add(sample("b", {{"sha256", other}, {"file_sha256", right}}));
  add(sample("c", {{"sha256", other}, {"original_width", 100}}));  // as img2dataset writes it: made smaller since
  add(sample("d", {{"sha256", nullptr}}));
  add(sample("e", {{"sha256", 7}}));
  add(sample("f", {{"sha256", right}, {"file_sha256", other}}));
  add(sample("g", "a text"));
  EXPECT_EQ(verified(archive("a.tar", members)).faults, (Counts{{"digest", 2}, {"json", 1}}));
}

TEST_F(VerifyFaultsTest, FaultsOfListsDoNotHideEachOther) {
  archive("a.tar", samples(3));
  archive("w.tar", samples(2, 10));
  write("a.tsv", "tar\tfile\tcaption\n" + row("a.tar", 0) + "one field\n" + row("a.tar", 1) + row("a.tar", 1) +
                     "a.tar\tk2.jpg\t\"\"\n");
  write("empty.tsv", "tar\tfile\tcaption\n");
  write("columns.tsv", "tar\tname\n" + row("a.tar", 2));
  write("index.tsv", "filename\na.tsv\nabsent.tsv\nempty.tsv\nw.tar\ntwo\tfields\ncolumns.tsv\nw.tar\nabsent.tar\n");
  const VerifyResult result = verified((folder_ / "index.tsv").string());
  const Counts expected = {{"line", 2}, {"list", 3}, {"duplicate", 2}, {"caption", 1}, {"archive", 1}};
  EXPECT_EQ(result.faults, expected);
  EXPECT_EQ(result.archives, 3u);
  EXPECT_EQ(result.readable_archives, 2u);
  EXPECT_EQ(result.samples, 6u);
  EXPECT_EQ(result.sound, 4u);
}

// Where nothing is wrong, what is verified is what is trained on.
TEST_F(VerifyFaultsTest, ListsMeanWhatTheyMeanToTheDataset) {
  fs::create_directories(folder_ / "below");
  archive("below/a.tar", samples(3));
  archive("b.tar", samples(2, 10));
  write("below/a.tsv", "tar\tfile\tcaption\n" + row("a.tar", 0) + row("../b.tar", 10));
  write("below/b.tsv", "tar\tfile\tcaption\n" + row("b.tar", 11));  // beside the index
  write("index.tsv", "filename\nbelow/a.tsv\nbelow/b.tsv\n");
  for (const char* name : {"index.tsv", "below/a.tsv", "b.tar", "below"}) {
    const std::string list = (folder_ / name).string();
    const VerifyResult result = verified(list);
    EXPECT_EQ(result.faults, Counts{}) << name;
    if (std::string(name) != "below") {
      EXPECT_EQ(result.samples, Dataset::open(list)->size()) << name;
    }
  }
}

TEST_F(VerifyFaultsTest, NamesOnServersAreResolved) {
  const std::string tar = archive("a.tar", samples(2));
  write("list.tsv", "tar\tfile\tcaption\n" + row("https://host/a.tar", 0) + row("s3://bucket/b.tar", 1));
  VerifySettings settings = of({(folder_ / "list.tsv").string()});
  EXPECT_EQ(verify_dataset(settings).faults, (Counts{{"archive", 2}}));
  settings.survey.resolve_url = [&](const std::string& url) -> fs::path {
    if (url == "https://host/a.tar") return tar;
    throw NetError(NetError::Kind::kStatus, url + ": the server answers 404", 404);
  };
  const VerifyResult result = verify_dataset(settings);
  EXPECT_EQ(result.faults, (Counts{{"archive", 1}}));
  EXPECT_EQ(result.sound, 1u);
  settings.survey.resolve_url = [](const std::string&) -> fs::path {
    throw NetError(NetError::Kind::kCancelled, "cancelled");
  };
  EXPECT_TRUE(verify_dataset(settings).stopped);
}

TEST_F(VerifyFaultsTest, AWholeDataSetNamesAllAndEachKeyOnce) {
  archive("a.tar", samples(3));
  archive("b.tar", samples(3, 2));
  write("list.tsv", "tar\tfile\tcaption\n" + row("a.tar", 0) + row("a.tar", 1) + row("a.tar", 2) + row("b.tar", 2) +
                        row("b.tar", 3));
  VerifySettings settings = of({(folder_ / "list.tsv").string()});
  EXPECT_EQ(verify_dataset(settings).faults, Counts{});
  settings.whole = true;
  const VerifyResult result = verify_dataset(settings);
  EXPECT_EQ(result.faults, (Counts{{"unlisted", 1}, {"duplicate", 1}}));
  EXPECT_EQ(result.sound, 4u);
}

// A folder as `scrape` writes it, and then wrong parts.
TEST_F(VerifyFaultsTest, PartsOfAScrapedFolderDivideIt) {
  archive("00000.tar", samples(4));
  const std::string head = "tar\tfile\tcaption\n";
  write("00000.tsv", head + row("00000.tar", 0) + row("00000.tar", 1) + row("00000.tar", 2) + row("00000.tar", 3));
  write("index.tsv", "filename\n00000.tsv\n");
  write("train.tsv", "filename\n00000_train.tsv\n");
  write("validation.tsv", "filename\n00000_validation.tsv\n");
  write("scrape.json", "{}");
  const auto faults = [&](const std::string& train, const std::string& validation) {
    write("00000_train.tsv", head + train);
    write("00000_validation.tsv", head + validation);
    return verified(folder_.string()).faults;
  };
  const std::string a = row("00000.tar", 0), b = row("00000.tar", 1), c = row("00000.tar", 2), d = row("00000.tar", 3);
  EXPECT_EQ(faults(a + b + c, d), Counts{});
  EXPECT_EQ(faults(a + b + c, d + c), (Counts{{"split", 1}}));
  EXPECT_EQ(faults(a, d), (Counts{{"split", 2}}));
  EXPECT_EQ(faults(a + b + c + c, d), (Counts{{"split", 1}}));
  fs::remove(folder_ / "scrape.json");
  EXPECT_EQ(faults(a, d), Counts{}) << "elsewhere lists may divide as they like";
}

TEST_F(VerifyFaultsTest, CaptionsThatTheVocabularyDoesNotKnow) {
  Members members;
  const auto add = [&](const std::string& key, const std::string& caption) {
    members.emplace_back(key + ".jpg", jpeg(1));
    members.emplace_back(key + ".txt", caption);
  };
  add("a", "a b a");
  add("b", "\xE6\xBC\xA2");
  VerifySettings settings = of({archive("a.tar", members)});
  settings.survey.tokenizer = open_vocabulary(write("spiece.model", test_support::tiny_spiece_model()));
  EXPECT_EQ(settings.survey.tokenizer->kind(), "t5");
  settings.survey.most_tokens = 3;
  const VerifyResult result = verify_dataset(settings);
  EXPECT_EQ(result.faults, (Counts{{"tokens", 1}}));
  EXPECT_EQ(result.cut, 1u);  // three words and the end
  const StatsResult stats = dataset_stats(settings.survey);
  EXPECT_EQ(stats.tokens.most, 4);
  EXPECT_EQ(stats.cut, 1u);
  settings.survey.tokenizer =
      open_vocabulary(write("x.vocab", "<pad>\t0\n</s>\t0\n<unk>\t-2\n\xE2\x96\x81\t-1\na\t-1\nb\t-1\n"));
  EXPECT_EQ(settings.survey.tokenizer->kind(), "mdm");
  EXPECT_EQ(verify_dataset(settings).faults, (Counts{{"tokens", 1}}));
}

TEST_F(VerifyFaultsTest, TheReportIsTheSameWhateverTheThreads) {
  std::vector<std::string> lists;
  for (int a = 0; a < 7; ++a) {
    Members members = samples(a == 3 ? 150 : 20, 1000 * a);
    for (size_t i = 0; i < members.size(); i += 6) members[i].second.resize(members[i].second.size() / 2);
    lists.push_back(archive(std::to_string(a) + ".tar", members));
  }
  const auto report = [&](int threads, const char* name) {
    VerifySettings settings = of(lists);
    settings.survey.threads = threads;
    settings.survey.sheet = {folder_ / (std::string(name) + ".png"), 16, 5};
    settings.report = folder_ / name;
    settings.shown = 3;
    const VerifyResult result = verify_dataset(settings);
    EXPECT_EQ(result.faults, (Counts{{"picture", 6 * 7 + 50}}));
    EXPECT_EQ(result.first.size(), 3u);
    return read_text_file(folder_ / name) + read_text_file(folder_ / (std::string(name) + ".png"));
  };
  const std::string one = report(1, "1.jsonl");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(report(8, "8.jsonl"), one);
  const auto first = nlohmann::json::parse(one.substr(0, one.find('\n')));
  EXPECT_EQ(first.at("kind"), "picture");
  EXPECT_EQ(first.at("file"), "k0.jpg");
  EXPECT_EQ(fs::path(first.at("archive").get<std::string>()).filename(), "0.tar");
}

TEST_F(VerifyFaultsTest, AStopEndsItSoonAndWritesNoReport) {
  VerifySettings settings = of({archive("a.tar", samples(200))});
  std::atomic<bool> stop{false};
  settings.survey.stop = &stop;
  settings.survey.show = [&](const SurveyProgress&) { stop = true; };
  settings.survey.sheet.file = folder_ / "sheet.png";
  const VerifyResult result = verify_dataset(settings);
  EXPECT_TRUE(result.stopped);
  EXPECT_FALSE(fs::exists(folder_ / "sheet.png"));
  EXPECT_TRUE(dataset_stats(settings.survey).stopped);
}

TEST_F(VerifyFaultsTest, BrokenSamplesAreMarkedOnTheSheet) {
  const auto red_pixels = [&](const Members& members) {
    SurveySettings settings;
    settings.lists = {archive("a.tar", members)};
    settings.sheet = {folder_ / "sheet.png", 4, 0};
    dataset_stats(settings);
    const Image image = load_image(folder_ / "sheet.png");
    int red = 0;
    for (size_t i = 0; i + 2 < image.pixels.size(); i += 3) {
      red += image.pixels[i] == 200 && image.pixels[i + 1] == 30 && image.pixels[i + 2] == 30 ? 1 : 0;
    }
    return red;
  };
  EXPECT_EQ(red_pixels({{"a.png", encode_png(Image(30, 30, 3, 90))}, {"a.txt", "fine"}}), 0);
  EXPECT_GT(red_pixels({{"a.png", "no picture"}, {"a.txt", "broken"}}), 4 * 150);
  SurveySettings settings;
  settings.lists = {(folder_ / "a.tar").string()};
  settings.sheet = {folder_ / "sheet.png", 2000, 0};
  EXPECT_THROW(dataset_stats(settings), ConfigError);
}

TEST_F(VerifyFaultsTest, ExitCodes) {
  const std::string good = archive("good.tar", samples(2));
  Members members = samples(2);
  members[0].second = "broken";
  const std::string bad = archive("bad.tar", members);
  testing::internal::CaptureStdout();
  EXPECT_EQ(run({"verify", good}), 0);
  EXPECT_EQ(run({"verify", good, bad}), 4);
  EXPECT_EQ(run({"verify", (folder_ / "absent.tar").string()}), 3);
  EXPECT_EQ(run({"verify", good, (folder_ / "absent.tar").string()}), 4);
  EXPECT_EQ(run({"verify"}), 2);
  EXPECT_EQ(run({"verify", good, "--samples", "0"}), 2);
  EXPECT_EQ(run({"verify", good, "--vocab_file", bad}), 3);
  EXPECT_EQ(run({"verify", good, "--report", (folder_ / "no" / "folder.tsv").string()}), 1);
  EXPECT_EQ(run({"stats", good, "--json", (folder_ / "stats.json").string()}), 0);
  EXPECT_EQ(run({"stats", (folder_ / "absent.tsv").string()}), 3);
  stop_ = true;
  EXPECT_EQ(run({"verify", good}), 75);
  const std::string out = testing::internal::GetCapturedStdout();
  EXPECT_NE(out.find("2 of 2 samples are sound"), std::string::npos);
  EXPECT_NE(out.find("picture: " + bad + ": k0.jpg: "), std::string::npos);
  EXPECT_EQ(nlohmann::json::parse(read_text_file(folder_ / "stats.json")).at("samples"), 2);
}

}  // namespace
}  // namespace mdm::ingest
