// The verbs of download_dataset: each has its flags and its function in a file of its own.
#pragma once

#include <atomic>
#include <vector>

#include "mdm/config/command_line.h"

namespace mdm::ingest {

inline constexpr int kPartial = 4;   ///< exit code: something was left out, or is wrong
inline constexpr int kStopped = 75;  ///< exit code: stopped by a signal, a later call goes on

/// How the program was called, and what tells it to stop.
struct VerbCall {
  const ParsedCommandLine& command_line;
  const std::atomic<bool>& stop;
};

std::vector<AppOption> scrape_options();
int run_scrape(const VerbCall& call);

std::vector<AppOption> fetch_options();
int run_fetch(const VerbCall& call);

std::vector<AppOption> pretrained_options();
int run_pretrained(const VerbCall& call);

std::vector<AppOption> verify_options();
int run_verify(const VerbCall& call);

std::vector<AppOption> stats_options();
int run_stats(const VerbCall& call);

}  // namespace mdm::ingest
