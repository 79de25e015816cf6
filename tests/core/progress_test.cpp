// The progress bar on a string, with a clock that the test turns.
#include "mdm/core/progress.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

namespace mdm {
namespace {

struct Screen {
  std::string text;
  double now = 100;
  int columns = 80;

  ProgressOptions options(uint64_t total, ProgressOptions::Kind kind) {
    ProgressOptions options;
    options.label = "work";
    options.total = total;
    options.kind = kind;
    options.sink = [this](std::string_view part) { text += part; };
    options.clock = [this] { return now; };
    options.width = [this] { return columns; };
    return options;
  }
  size_t count(char wanted) const { return static_cast<size_t>(std::count(text.begin(), text.end(), wanted)); }
  /// What the last redraw shows.
  std::string last() const {
    const size_t start = text.rfind('\r') + 1;
    return text.substr(start, text.find("\x1b[K", start) - start);
  }
};

constexpr auto kTerminal = ProgressOptions::Kind::kTerminal;
constexpr auto kPlain = ProgressOptions::Kind::kPlain;

TEST(Progress, DrawsABarWithRateAndTimeLeft) {
  Screen screen;
  Progress progress(screen.options(100, kTerminal));
  for (int i = 0; i < 25; ++i) {
    screen.now += 0.5;
    progress.advance();
  }
  EXPECT_EQ(screen.last(), "work  25% [=======                     ] 25/100 2.00 it/s 0:13 passed 0:38 left");
  screen.now += 37.5;
  progress.set(100);
  EXPECT_NE(screen.last().find("work 100% [==="), std::string::npos);
  EXPECT_EQ(screen.last().find("left"), std::string::npos);
  EXPECT_EQ(screen.count('\n'), 0u);
  progress.finish();
  EXPECT_EQ(screen.count('\n'), 1u);
}

TEST(Progress, RedrawsAtMostTenTimesASecond) {
  Screen screen;
  Progress progress(screen.options(100000, kTerminal));
  for (int i = 0; i < 10000; ++i) {
    screen.now += 1e-4;  // one second in all
    progress.advance();
  }
  EXPECT_LE(screen.count('\r'), 11u);
  EXPECT_GE(screen.count('\r'), 9u);
}

TEST(Progress, NeverUsesTheLastColumn) {
  for (int columns = 0; columns < 200; columns += 7) {
    Screen screen;
    screen.columns = columns;
    ProgressOptions options = screen.options(10, kTerminal);
    options.label = "caf\xC3\xA9 \xF0\x9F\x98\x80";
    Progress progress(std::move(options));
    progress.note("loss 0.123");
    screen.now += 1;
    progress.advance();
    const std::string line = screen.last();
    const auto characters = std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; });
    EXPECT_LE(characters, std::max(1, columns - 1)) << line;
  }
}

TEST(Progress, PlainLinesComeEveryFewSecondsAndAtTheEnd) {
  Screen screen;
  {
    Progress progress(screen.options(40, kPlain));
    for (int i = 0; i < 40; ++i) {
      screen.now += 0.4;
      if (i == 30) progress.note("loss 0.5");
      progress.advance();
    }
    EXPECT_EQ(screen.count('\n'), 3u);
  }
  EXPECT_EQ(screen.text,
            "work: 13/40 2.50 it/s 0:05 passed 0:11 left\n"
            "work: 26/40 2.50 it/s 0:10 passed 0:06 left\n"
            "work: 39/40 2.50 it/s 0:16 passed 0:00 left loss 0.5\n"
            "work: 40/40 2.50 it/s 0:16 passed loss 0.5\n");
}

TEST(Progress, UnknownTotal) {
  Screen screen;
  ProgressOptions options = screen.options(0, kTerminal);
  options.unit = "images";
  Progress progress(std::move(options));
  screen.now += 8;
  progress.advance(2);
  EXPECT_EQ(screen.last(), "work 2 4.00 s/images 0:08 passed");
}

TEST(Progress, TheRateFollowsAChangeOfSpeed) {
  Screen screen;
  Progress progress(screen.options(100000, kTerminal));
  for (int i = 0; i < 600; ++i) {
    screen.now += 1;
    progress.advance(1);
  }
  for (int i = 0; i < 120; ++i) {
    screen.now += 1;
    progress.advance(10);
  }
  EXPECT_NE(screen.last().find(" 9.8"), std::string::npos) << screen.last();
}

TEST(Progress, EscapesWhatComesFromOutside) {
  Screen screen;
  ProgressOptions options = screen.options(10, kPlain);
  options.label = "a\x1b[2Jb";
  Progress progress(std::move(options));
  progress.note("x\ny");
  progress.line("evil\x1b]0;title\x07");
  progress.finish();
  EXPECT_EQ(screen.text.find('\x1b'), std::string::npos);
  EXPECT_EQ(screen.text.find('\x07'), std::string::npos);
  EXPECT_EQ(screen.count('\n'), 2u);
}

TEST(Progress, ALineGoesAboveTheBar) {
  Screen screen;
  Progress progress(screen.options(10, kTerminal));
  screen.text.clear();
  progress.line("saved");
  EXPECT_EQ(screen.text.rfind("\r\x1b[Ksaved\n\rwork   0%", 0), 0u) << screen.text;
}

TEST(Progress, NothingFollowsTheEnd) {
  Screen screen;
  Progress progress(screen.options(10, kTerminal));
  progress.finish();
  const std::string before = screen.text;
  screen.now += 10;
  progress.advance(3);
  progress.finish();
  EXPECT_EQ(screen.text, before);
  EXPECT_EQ(progress.done(), 0u);
}

TEST(Progress, StandsAClockThatStandsStillAndGoingBack) {
  Screen screen;
  Progress progress(screen.options(10, kTerminal));
  progress.advance(10);
  EXPECT_NE(screen.last().find("10/10 -- it/s"), std::string::npos) << screen.last();
  screen.now += 1;
  progress.set(2);
  EXPECT_NE(screen.last().find("2/10 2.00 it/s 0:01 passed 0:04 left"), std::string::npos) << screen.last();
  progress.set(0);
  screen.now += 1;
  progress.set(1);
  EXPECT_NE(screen.last().find("1/10 "), std::string::npos) << screen.last();
}

TEST(Progress, WhatWasDoneBeforeDoesNotCountForTheRate) {
  Screen screen;
  ProgressOptions options = screen.options(1000, kTerminal);
  options.initial = 900;
  Progress progress(std::move(options));
  screen.now += 10;
  progress.advance(10);
  EXPECT_NE(screen.last().find("910/1000 1.00 it/s 0:10 passed 1:30 left"), std::string::npos) << screen.last();
}

TEST(Progress, TheDestructorSwallowsAFailingSink) {
  Screen screen;
  bool broken = false;
  ProgressOptions options = screen.options(10, kTerminal);
  options.sink = [&](std::string_view) {
    if (broken) throw std::runtime_error("gone");
  };
  auto progress = std::make_unique<Progress>(std::move(options));
  broken = true;
  screen.now += 1;
  EXPECT_THROW(progress->advance(), std::runtime_error);
  EXPECT_NO_THROW(progress.reset());
}

TEST(Progress, CountsFromSeveralThreads) {
  Screen screen;
  Progress progress(screen.options(4000, kPlain));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) progress.advance();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(progress.done(), 4000u);
}

TEST(Duration, IsReadable) {
  EXPECT_EQ(format_duration(0), "0:00");
  EXPECT_EQ(format_duration(7.4), "0:07");
  EXPECT_EQ(format_duration(754), "12:34");
  EXPECT_EQ(format_duration(3723), "1:02:03");
  EXPECT_EQ(format_duration(2 * 86400 + 3 * 3600 + 245), "2d 03:04:05");
  EXPECT_EQ(format_duration(-1), "--:--");
  EXPECT_EQ(format_duration(1e300), "--:--");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::quiet_NaN()), "--:--");
}

}  // namespace
}  // namespace mdm
