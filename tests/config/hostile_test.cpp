// YAML that is broken or malicious: a ConfigError that names the place, never a crash, a hang, or memory
// out of proportion. Mutants are drawn from a seed; MDM_MUTANTS sets how many.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <random>

#include "config/support.h"
#include "mdm/config/config.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using testing::temporary_file;
using testing::yaml_error;

// The error, which must come quickly.
std::string quick_error(const std::string& yaml) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string error = yaml_error(yaml);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(took.count(), 10) << "slow";
  return error;
}

#define EXPECT_ERROR_WITH(yaml, part)                                                 \
  do {                                                                                \
    const std::string error_text = quick_error(yaml);                                 \
    EXPECT_NE(error_text.find(part), std::string::npos) << error_text.substr(0, 300); \
  } while (false)

TEST(HostileYaml, AliasesAndAnchorsAreRefused) {
  std::string bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n";
  for (char c = 'b'; c <= 'i'; ++c) {
    bomb += std::string(1, c) + ": &" + c + " [";
    for (int i = 0; i < 9; ++i) bomb += std::string(i ? "," : "") + "*" + static_cast<char>(c - 1);
    bomb += "]\n";
  }
  EXPECT_LE(bomb.size(), 400u);
  EXPECT_ERROR_WITH(bomb, "test.yaml:1: an anchor");
  EXPECT_ERROR_WITH("x: &x [*x]\n", "test.yaml:1: an anchor");
  EXPECT_ERROR_WITH("x: *nothing\n", "test.yaml:1:");
  EXPECT_ERROR_WITH("lr: &rate 1\nwarmup_steps: 1\n", "test.yaml:1: an anchor");
  EXPECT_ERROR_WITH("&k lr: 1\n", "an anchor");
}

TEST(HostileYaml, MergeKeysAndForeignTagsAreRefused) {
  EXPECT_ERROR_WITH("trainer:\n  <<: {lr: 1}\n", "test.yaml:2: a merge key");
  EXPECT_ERROR_WITH("lr: !!python/object/apply:os.system ['echo gotcha']\n",
                    "test.yaml:1: the tag tag:yaml.org,2002:python");
  EXPECT_ERROR_WITH("lr: !!binary aGVsbG8=\n", "the tag");
  EXPECT_ERROR_WITH("!custom {lr: 1}\n", "the tag !custom");
  EXPECT_EQ(yaml_error("lr: !!float 1\ntext_model: !!str 5\nunet_config: !!map {attention_levels: !!seq [1]}\n"), "");
}

TEST(HostileYaml, DepthIsBounded) {
  for (const size_t depth : {100u, 1000u, 100000u}) {
    EXPECT_NE(quick_error(std::string(depth, '[')), "") << depth;
    EXPECT_NE(quick_error("x: " + std::string(depth, '[') + std::string(depth, ']') + "\n"), "") << depth;
    EXPECT_NE(quick_error(std::string(depth, '{')), "") << depth;
    std::string dashes, questions, maps;
    for (size_t i = 0; i < depth; ++i) {
      dashes += "- ";
      questions += "? ";
      if (i < 1000) maps += std::string(i, ' ') + "a:\n";
    }
    EXPECT_NE(quick_error(dashes + "x\n"), "") << depth;
    EXPECT_NE(quick_error(questions + "x\n"), "") << depth;
    EXPECT_NE(quick_error(maps), "") << depth;
  }
}

TEST(HostileYaml, SizesAreBounded) {
  EXPECT_ERROR_WITH("text_model: " + std::string(10 << 20, 'x') + "\n", "a config file may have at most 262144");
  EXPECT_ERROR_WITH("text_model: \"" + std::string(10 << 20, 'x'), "a config file may have at most");
  const auto large = temporary_file("large.yaml", "text_model: " + std::string(10 << 20, 'x') + "\n");
  EXPECT_THROW(load_config({large}), ConfigError);
  EXPECT_THROW(load_config({"/dev/zero"}), ConfigError);
  // Within the size: one long text is fine, many values are not.
  EXPECT_EQ(quick_error("text_model: " + std::string(1 << 17, 'x') + "\n"), "");
  std::string list = "prompt: [";
  while (list.size() < (1u << 18) - 8) list += "a,";
  EXPECT_ERROR_WITH(list + "a]\n", "more than 100000 values");
  std::string keys;
  for (int i = 0; i < 10000; ++i) keys += "k" + std::to_string(i) + ": 1\n";
  EXPECT_ERROR_WITH(keys, "more than 1000 keys");
  EXPECT_NE(quick_error("unet_config: {resolution_channels: [" + std::string(1000, '1') + "]}\n"), "");
  std::string channels = "unet_config: {resolution_channels: [8";
  for (int i = 0; i < 1000; ++i) channels += ",8";
  EXPECT_ERROR_WITH(channels + "]}\n", "1001 items; at most 64");
}

TEST(HostileYaml, NumbersThatAreNoneAreErrors) {
  for (const char* number : {".inf", "-.inf", ".nan", "1e99999", "99999999999999999999999999", "-9223372036854775809",
                             "0x10", "1__0", "_1", "1e", "--1", "1 2", "12:30:45"}) {
    EXPECT_NE(quick_error(std::string("warmup_steps: ") + number + "\n"), "") << number;
  }
  for (const char* number : {".inf", ".nan", "1e400", "0x1p3", "nan(7)", "infinity", "5e-5e"}) {
    EXPECT_NE(quick_error(std::string("lr: ") + number + "\n"), "") << number;
  }
}

TEST(HostileYaml, WhatIsNoYamlNamesTheLine) {
  EXPECT_ERROR_WITH("lr: 1\nx: [1, 2\n", "test.yaml:");
  EXPECT_ERROR_WITH("lr: 1\n\tx: 2\n", "test.yaml:2");
  EXPECT_ERROR_WITH("lr: \"\\q\"\n", "not readable as YAML");
  EXPECT_ERROR_WITH("lr: [1}\n", "not readable as YAML");
  EXPECT_ERROR_WITH("- a\n- b\n", "must hold `key: value` lines");
  EXPECT_ERROR_WITH("just text\n", "must hold `key: value` lines");
  EXPECT_ERROR_WITH("lr: 1\n---\nlr: 2\n", "more than one YAML document");
  EXPECT_ERROR_WITH("? [a, b]\n: 1\n", "a key is a list or map");
  EXPECT_ERROR_WITH(": 1\n", "a key is empty");
  EXPECT_ERROR_WITH("a.b: 1\n", "has a dot");
  EXPECT_ERROR_WITH(std::string("lr: 1\0\n", 7), "holds a zero byte");
  EXPECT_EQ(yaml_error(""), "");
  EXPECT_EQ(yaml_error("# only a comment\n"), "");
  EXPECT_EQ(yaml_error("lr: 1\r\nseed: 2\r\n"), "");
}

#if !defined(__SANITIZE_ADDRESS__)
// Memory that the loading of a text takes at its peak, in MiB; measured in a process of its own.
double peak_mib(const std::string& yaml) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    rusage before{}, after{};
    getrusage(RUSAGE_SELF, &before);
    yaml_error(yaml);
    getrusage(RUSAGE_SELF, &after);
    const double grown = static_cast<double>(after.ru_maxrss - before.ru_maxrss) / 1024;
    const ssize_t sent = write(ends[1], &grown, sizeof grown);
    _exit(sent == sizeof grown ? 0 : 1);
  }
  double grown = -1;
  EXPECT_EQ(read(ends[0], &grown, sizeof grown), static_cast<ssize_t>(sizeof grown));
  close(ends[0]);
  close(ends[1]);
  waitpid(child, nullptr, 0);
  return grown;
}

TEST(HostileYaml, MemoryIsBounded) {
  constexpr size_t kBytes = (size_t{1} << 18) - 64;
  const auto repeated = [](const std::string& part) {
    std::string all;
    while (all.size() + part.size() < kBytes) all += part;
    return all;
  };
  for (const std::string& yaml :
       {repeated("["), repeated("{"), "[" + repeated("a,") + "]", "{" + repeated("a: [b],") + "}",
        "x: [" + repeated("[],") + "]", repeated("a:\n"), repeated("? "), repeated("- ")}) {
    const double grown = peak_mib(yaml);
    EXPECT_GE(grown, 0);
    EXPECT_LT(grown, 64 + 4 * static_cast<double>(yaml.size()) / (1 << 20)) << yaml.substr(0, 20);
  }
}
#endif

std::string mutated(std::string text, std::mt19937& random) {
  static const std::vector<std::string> kPieces = {"*a",
                                                   "&a ",
                                                   "<<: ",
                                                   "!!python/object ",
                                                   "[",
                                                   "{",
                                                   "}",
                                                   "]",
                                                   ":",
                                                   "? ",
                                                   "- ",
                                                   "\"",
                                                   "'",
                                                   "|\n",
                                                   ">-",
                                                   "%",
                                                   "@",
                                                   "`",
                                                   "#",
                                                   "---\n",
                                                   "...",
                                                   "\t",
                                                   "\n",
                                                   "\r",
                                                   ",",
                                                   "~",
                                                   "null",
                                                   "1e9",
                                                   "-1",
                                                   "\\x",
                                                   std::string(1, '\0'),
                                                   "\xef\xbb\xbf",
                                                   "\xff",
                                                   "99999999999999999999",
                                                   ".inf",
                                                   "inner_config:"};
  const auto pick = [&](size_t bound) { return bound ? random() % bound : 0; };
  for (size_t edits = 1 + pick(6); edits > 0; --edits) {
    const size_t at = pick(text.size());
    switch (pick(6)) {
      case 0: text[at] = static_cast<char>(text[at] ^ (1 << pick(8))); break;
      case 1: text.erase(at, 1 + pick(40)); break;
      case 2: text.insert(at, kPieces[pick(kPieces.size())]); break;
      case 3: text.insert(at, text.substr(pick(text.size()), pick(200))); break;
      case 4: text.resize(at + 1); break;
      default: text[at] = static_cast<char>(pick(256)); break;
    }
    if (text.empty()) text = "x";
  }
  return text;
}

TEST(HostileYaml, MutantsLoadOrThrowConfigErrors) {
  const char* wanted = std::getenv("MDM_MUTANTS");
  const int count = wanted ? std::atoi(wanted) : 2000;
  const std::string valid =
      testing::read_file(std::filesystem::path(MDM_PROJECT_DIR) / "configs/models/cc12m_1024x1024.yaml");
  std::mt19937 random(20240607);
  int loaded = 0;
  for (int i = 0; i < count; ++i) {
    const std::string text = mutated(valid, random);
    if (yaml_error(text).empty()) ++loaded;  // anything but a ConfigError fails the test
  }
  // Some mutants change only comments; if all or none loaded, the mutator would be broken.
  if (count >= 100) {
    EXPECT_GT(loaded, count / 50);
    EXPECT_LT(loaded, count);
  }
}

TEST(HostileJson, MutantsLoadOrThrowConfigErrors) {
  const char* wanted = std::getenv("MDM_MUTANTS");
  const int count = wanted ? std::atoi(wanted) : 2000;
  const std::string valid =
      testing::read_file(std::filesystem::path(MDM_TEST_DATA) / "golden/config/checkpoint_nested.args.json");
  std::mt19937 random(77);
  int loaded = 0;
  for (int i = 0; i < count; ++i) {
    const std::string text = mutated(valid, random);
    std::vector<std::string> warnings;
    try {
      config_from_json(text, &warnings);
      ++loaded;
    } catch (const ConfigError&) {
    }
  }
  EXPECT_LE(loaded, count);
  if (count >= 100) {
    EXPECT_GT(loaded, 0);
  }
}

}  // namespace
}  // namespace mdm
