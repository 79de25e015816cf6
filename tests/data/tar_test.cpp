#include "mdm/data/tar.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "data/tar_header.h"
#include "data/test_data.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using data_test::TemporaryFolder;

struct RawMember {
  std::string name;
  std::string content;
  char type = '0';
  std::string size_bytes = {};  // instead of the octal size
  std::string magic = std::string(
      "ustar\0"
      "00",
      8);
  std::string prefix = {};
  bool right_checksum = true;
};

std::string padded(std::string content) {
  content.resize((content.size() + 511) / 512 * 512);
  return content;
}

std::string header_of(const RawMember& member) {
  tar::Header header;
  std::memset(&header, 0, sizeof header);
  std::memcpy(header.name, member.name.data(), std::min<size_t>(member.name.size(), 100));
  std::snprintf(header.size, sizeof header.size, "%011o", static_cast<unsigned>(member.content.size()));
  if (!member.size_bytes.empty()) std::memcpy(header.size, member.size_bytes.data(), 12);
  header.type = member.type;
  std::memcpy(header.magic, member.magic.data(), 8);
  std::memcpy(header.prefix, member.prefix.data(), member.prefix.size());
  std::memset(header.checksum, ' ', 8);
  unsigned sum = member.right_checksum ? 0 : 1;
  for (size_t i = 0; i < sizeof header; ++i) sum += reinterpret_cast<const uint8_t*>(&header)[i];
  std::snprintf(header.checksum, 8, "%06o", sum);
  return std::string(reinterpret_cast<const char*>(&header), sizeof header);
}

std::string archive_of(const std::vector<RawMember>& members, bool end = true) {
  std::string bytes;
  for (const auto& member : members) bytes += header_of(member) + padded(member.content);
  return bytes + std::string(end ? 1024 : 0, '\0');
}

std::string pax_record(const std::string& text) {
  for (size_t length = text.size() + 2;; ++length) {
    std::string record = std::to_string(length) + " " + text + "\n";
    if (record.size() == length) return record;
  }
}

std::string content_of(const TarIndex& index, const std::string& bytes, const std::string& name) {
  const TarMember* member = index.find(name);
  return member == nullptr ? "(none)" : bytes.substr(member->offset, member->size);
}

TEST(Tar, WriterRoundTrip) {
  const TemporaryFolder folder;
  data_test::Members members = {{"a.png", "picture"}, {"empty", ""}, {"dir/b.txt", std::string(512, 'x')}};
  members.emplace_back(std::string(120, 'd') + "/" + std::string(90, 'f'), "prefix");  // fits with a prefix
  members.emplace_back(std::string(300, 'n'), "pax");                                  // does not
  members.emplace_back("\xC3\xA9t\xC3\xA9.png", std::string("\0\1\2", 3));
  for (size_t size = 95; size < 105; ++size) members.emplace_back(std::string(size, 'k'), std::to_string(size));
  const std::string file = data_test::write_tar(folder, "x.tar", members);
  const std::string bytes = data_test::bytes_of(file);
  const TarIndex index = TarIndex::open(file);
  EXPECT_EQ(index.members().size(), members.size());
  EXPECT_EQ(index.problem(), "");
  EXPECT_TRUE(index.ended());
  for (const auto& [name, content] : members) EXPECT_EQ(content_of(index, bytes, name), content) << name;
  EXPECT_EQ(data_test::bytes_of(data_test::write_tar(folder, "y.tar", members)),
            bytes);  // the same calls, the same bytes
  TarWriter writer(folder.path("z.tar"));
  EXPECT_THROW(writer.add("", "x"), Error);
  EXPECT_THROW(writer.add(std::string("a\0b", 3), "x"), Error);
}

TEST(Tar, NothingAppearsWithoutFinish) {
  const TemporaryFolder folder;
  {
    TarWriter writer(folder.path("x.tar"));
    writer.add("a", "b");
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.folder()));
}

TEST(Tar, OtherProgramsReadWhatIsWritten) {
  if (std::system("tar --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "needs the program tar";
  const TemporaryFolder folder;
  const std::string long_name = std::string(150, 'p') + "/" + std::string(150, 'q');
  const std::string file = data_test::write_tar(folder, "x.tar", {{"a", "first"}, {long_name, "second"}});
  std::filesystem::create_directory(folder.folder() / "out");
  ASSERT_EQ(std::system(("tar xf " + file + " -C " + folder.path("out")).c_str()), 0);
  EXPECT_EQ(data_test::bytes_of(folder.path("out/a")), "first");
  EXPECT_EQ(data_test::bytes_of(folder.path("out/" + long_name)), "second");
}

TEST(Tar, Formats) {
  const std::string gnu = std::string("ustar  \0", 8);
  const std::string long_name(200, 'g');
  std::string base256(12, '\0');
  base256[0] = '\x80';
  base256[11] = 5;
  const std::string bytes = archive_of({
      {"v7", "one", '\0', "", std::string(8, '\0')},
      {"name", "two", '0', "",
       std::string("ustar\0"
                   "00",
                   8),
       "pre/fix"},
      {"name2", "three", '0', "", gnu, "12345"},  // GNU keeps times where ustar has the prefix
      {"././@LongLink", long_name + '\0', 'L', "", gnu},
      {"ggg", "four", '0', "", gnu},
      {"big", "12345", '0', base256, gnu},
      {"PaxHeaders/x", pax_record("path=pax/\xC3\xA9") + pax_record("mtime=1.5") + pax_record("size=6"), 'x'},
      {"short", "sixsix", '0', "00000000000"},
      {"contiguous", "seven", '7'},
  });
  const TarIndex index = TarIndex::build(bytes, "t");
  EXPECT_EQ(index.problem(), "");
  EXPECT_EQ(content_of(index, bytes, "v7"), "one");
  EXPECT_EQ(content_of(index, bytes, "pre/fix/name"), "two");
  EXPECT_EQ(content_of(index, bytes, "name2"), "three");
  EXPECT_EQ(content_of(index, bytes, long_name), "four");
  EXPECT_EQ(content_of(index, bytes, "big"), "12345");
  EXPECT_EQ(content_of(index, bytes, "pax/\xC3\xA9"), "sixsix");
  EXPECT_EQ(content_of(index, bytes, "contiguous"), "seven");
  EXPECT_EQ(index.find("short"), nullptr);
}

TEST(Tar, OnlyRegularFilesAndTheLastOfAName) {
  std::vector<RawMember> members = {{"same", "old"}, {"other", "x"}, {"../up", "u"}, {"/absolute", "r"}};
  for (const char type : {'1', '2', '3', '4', '5', '6', 'S', 'Z'}) members.push_back({std::string(1, type), "", type});
  members.push_back({"folder/", "", '\0'});
  members.push_back({"PaxHeaders/y", pax_record("GNU.sparse.major=1"), 'x'});
  members.push_back({"sparse", "map"});
  members.push_back({"same", "new"});
  const std::string bytes = archive_of(members);
  const TarIndex index = TarIndex::build(bytes, "t");
  EXPECT_EQ(index.problem(), "");
  std::vector<std::string> names;
  for (const auto& member : index.members()) names.push_back(member.name);
  EXPECT_EQ(names, (std::vector<std::string>{"other", "../up", "/absolute", "same"}));
  EXPECT_EQ(content_of(index, bytes, "same"), "new");
  EXPECT_EQ(index.replaced(), 1U);
  EXPECT_EQ(index.skipped(), 10U);
  EXPECT_EQ(index.find("./other"), nullptr);
}

TEST(Tar, CutArchivesAreUsableUpToTheCut) {
  const std::string bytes = archive_of({{"a", "1"}, {"b", std::string(700, 'b')}, {"c", "3"}});
  for (size_t size = 0; size <= bytes.size(); ++size) {
    const std::string cut = bytes.substr(0, size);
    if (size < 513) {
      EXPECT_THROW(TarIndex::build(cut, "t"), DataError) << size;
      continue;
    }
    const TarIndex index = TarIndex::build(cut, "t");
    for (const auto& member : index.members()) ASSERT_LE(member.offset + member.size, size);
    // Members: a to 1024, b 1536 + 700 (padded 2560), c 3072 + 1 (padded 3584).
    const size_t expected = size >= 3073 ? 3 : size >= 2236 ? 2 : 1;
    EXPECT_EQ(index.members().size(), expected) << size;
    const bool between = size <= 1024 || size >= 3584;  // at the end of a member or behind the end
    if (between || (size >= 2236 && size <= 2560) || size >= 3073) continue;
    EXPECT_NE(index.problem(), "") << size;
  }
  EXPECT_FALSE(TarIndex::build(archive_of({{"a", "1"}}, false), "t").ended());
}

TEST(Tar, HostileLengths) {
  const auto problem_of = [](const RawMember& bad) {
    const TarIndex index = TarIndex::build(archive_of({{"good", "x"}, bad, {"behind", "y"}}), "t");
    EXPECT_EQ(index.members().size(), 1U);
    return index.problem();
  };
  std::string negative(12, '\xFF'), huge(12, '\xFF');
  huge[0] = '\x80';
  std::string near_limit(12, '\0');
  near_limit[0] = '\x80';
  std::fill(near_limit.begin() + 4, near_limit.end(), '\xFF');  // 2^64 - 1
  const std::string name_field = std::string("77777777777\0", 12);
  EXPECT_NE(problem_of({"n", "", '0', negative}).find("no number"), std::string::npos);
  EXPECT_NE(problem_of({"n", "", '0', huge}).find("no number"), std::string::npos);
  EXPECT_NE(problem_of({"n", "", '0', near_limit}).find("beyond the archive"), std::string::npos);
  EXPECT_NE(problem_of({"n", "", '0', name_field}).find("beyond the archive"), std::string::npos);
  EXPECT_NE(problem_of({"n", "", 'L', name_field}).find("beyond the archive"), std::string::npos);
  EXPECT_NE(problem_of({"n", std::string(20000, 'x'), 'L'}).find("more than the"), std::string::npos);
  EXPECT_NE(problem_of({"n", std::string(2 << 20, 'x'), 'x'}).find("more than the"), std::string::npos);
  EXPECT_NE(problem_of({"n", "x", '0', "0000000zz\0"}).find("no number"), std::string::npos);
  for (const std::string record :
       {"x", "5 a=b", "99 path=a\n", "0 \n", "7 path=\n", "11 size=99x\n", "6 noeq\n", "99999999999999999999 a=b\n"}) {
    EXPECT_NE(problem_of({"n", record, 'x'}).find("extended header"), std::string::npos) << record;
  }
  EXPECT_NE(problem_of({"n", pax_record("size=99999999999999999999"), 'x'}).find("not possible"), std::string::npos);
  RawMember broken{"n", "x"};
  broken.right_checksum = false;
  EXPECT_NE(problem_of(broken).find("checksum"), std::string::npos);
}

TEST(Tar, PaxSizeBeyondTheArchive) {
  const TarIndex index =
      TarIndex::build(archive_of({{"good", "x"}, {"p", pax_record("size=4000"), 'x'}, {"n", "y"}}), "t");
  EXPECT_EQ(index.members().size(), 1U);
  EXPECT_NE(index.problem().find("beyond the archive"), std::string::npos);
}

TEST(Tar, WhatIsNoArchive) {
  const auto refusal = [](const std::string& bytes) {
    try {
      TarIndex::build(bytes, "t");
      return std::string();
    } catch (const DataError& error) {
      return std::string(error.what());
    }
  };
  EXPECT_NE(refusal("").find("is empty"), std::string::npos);
  EXPECT_NE(refusal(std::string(600, 'x')).find("not a tar archive"), std::string::npos);
  EXPECT_NE(refusal(std::string("\x1F\x8B") + std::string(600, 'x')).find("gzip"), std::string::npos);
  EXPECT_NE(refusal(std::string("\x28\xB5\x2F\xFD") + std::string(600, 'x')).find("zstd"), std::string::npos);
  EXPECT_TRUE(TarIndex::build(std::string(1024, '\0'), "t").members().empty());
  const TemporaryFolder folder;
  EXPECT_THROW(TarIndex::open(folder.path("none.tar")), DataError);
  EXPECT_THROW(TarIndex::open(folder.folder()), DataError);
}

TEST(Tar, ManyMembers) {
  std::string bytes;
  std::vector<RawMember> members(1, RawMember{"m", ""});
  for (int i = 0; i < 20000; ++i) {
    members[0].name = std::to_string(i % 15000);
    bytes += header_of(members[0]);
  }
  const TarIndex index = TarIndex::build(bytes, "t");
  EXPECT_EQ(index.members().size(), 15000U);
  EXPECT_EQ(index.replaced(), 5000U);
}

// Short names lie inside their strings: an index that moves must not leave them behind.
TEST(Tar, AnIndexMovesWhole) {
  static_assert(!std::is_copy_constructible_v<TarIndex> && !std::is_copy_assignable_v<TarIndex>);
  std::vector<TarIndex> several;
  for (int i = 0; i < 20; ++i) several.push_back(TarIndex::build(archive_of({{"a", "1"}, {"b", "22"}}), "t"));
  TarIndex assigned = TarIndex::build(archive_of({{"c", "3"}}), "t");
  assigned = std::move(several[7]);
  several.clear();
  ASSERT_NE(assigned.find("b"), nullptr);
  EXPECT_EQ(assigned.find("b"), &assigned.members()[1]);
  EXPECT_EQ(assigned.find("c"), nullptr);
}

}  // namespace
}  // namespace mdm
