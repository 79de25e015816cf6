#include "mdm/ingest/download_job.h"

#include <algorithm>
#include <string>
#include <utility>

#include "ingest/verbs.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using ingest::VerbCall;

// Each verb with its flags and its function. A flag that several verbs have is described by the first.
struct Verb {
  const char* name;
  std::vector<AppOption> (*options)();
  int (*run)(const VerbCall&);
};

constexpr Verb kVerbs[] = {
    {"scrape", ingest::scrape_options, ingest::run_scrape},
    {"fetch", ingest::fetch_options, ingest::run_fetch},
    {"verify", ingest::verify_options, ingest::run_verify},
    {"stats", ingest::stats_options, ingest::run_stats},
    {"pretrained", ingest::pretrained_options, ingest::run_pretrained},
};

std::string listed_verbs() {
  std::string text;
  for (const Verb& verb : kVerbs) text += concat(text.empty() ? "" : " | ", verb.name);
  return text;
}

}  // namespace

AppInfo download_dataset_app_info() {
  AppInfo info;
  info.name = "download_dataset";
  info.summary = "Brings pictures with captions to this machine, as shards that train_parallel reads.";
  info.positionals = listed_verbs();
  for (const Verb& verb : kVerbs) {
    for (AppOption& option : verb.options()) {
      const auto same = [&](const AppOption& other) { return other.name == option.name; };
      if (std::none_of(info.options.begin(), info.options.end(), same)) info.options.push_back(std::move(option));
    }
  }
  return info;
}

int run_download_dataset(const ParsedCommandLine& command_line, const std::atomic<bool>& stop) {
  const auto& words = command_line.positionals;
  for (const Verb& verb : kVerbs) {
    if (!words.empty() && words[0] == verb.name) return verb.run({command_line, stop});
  }
  fail<ConfigError>("usage: download_dataset ", listed_verbs(),
                    words.empty() ? "" : concat("; found '", printable(words[0]), "'"));
}

}  // namespace mdm
