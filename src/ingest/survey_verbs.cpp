// The verbs `verify` and `stats`: their flags and what they print.
#include <cstdio>
#include <iostream>
#include <memory>

#include "ingest/fault_report.h"
#include "ingest/size_text.h"
#include "ingest/verbs.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"
#include "mdm/core/progress.h"
#include "mdm/ingest/stats.h"
#include "mdm/ingest/verify.h"
#include "mdm/net/url_cache.h"

namespace mdm::ingest {
namespace {

constexpr int64_t kMostSheetSeed = (int64_t{1} << 62) - 1;
constexpr uint64_t kSurveyMegabyte = 1000000;
constexpr int kUnreadable = 3;  // exit code: there is nothing to be read

uint64_t megabytes(uint64_t bytes) { return (bytes + kSurveyMegabyte - 1) / kSurveyMegabyte; }  // begun ones count

// Shows how much has been read; made when it is known how much there is.
class SurveyDisplay {
 public:
  explicit SurveyDisplay(std::string label) : label_(std::move(label)) {}

  void show(const SurveyProgress& progress) {
    if (!bar_) {
      ProgressOptions options;
      options.label = label_;
      options.total = megabytes(progress.total_bytes);
      options.unit = "MB";
      bar_ = std::make_unique<Progress>(options);
    }
    bar_->note(concat(progress.samples, " samples, ", progress.faults, " faults"));
    bar_->set(std::max<uint64_t>(megabytes(progress.bytes), bar_->done()));
  }

 private:
  std::string label_;
  std::unique_ptr<Progress> bar_;
};

std::vector<std::string> lists_of(const VerbCall& call) {
  const ParsedCommandLine& line = call.command_line;
  std::vector<std::string> lists(line.positionals.begin() + 1, line.positionals.end());
  if (line.has("output-dir")) lists.push_back(line.option("output-dir"));
  if (lists.empty()) {
    fail<ConfigError>("usage: download_dataset ", line.positionals[0],
                      " LIST|FOLDER|TAR...: no data set is named (--output-dir names the folder of a scrape)");
  }
  return lists;
}

SurveySettings survey_of(const VerbCall& call) {
  const ParsedCommandLine& line = call.command_line;
  SurveySettings settings;
  settings.lists = lists_of(call);
  settings.threads = static_cast<int>(line.whole_number("threads", 0, 0, 1024));
  settings.most_tokens = line.whole_number("most-tokens", settings.most_tokens, 1, int64_t{1} << 30);
  if (line.has("vocab_file")) settings.tokenizer = open_vocabulary(line.option("vocab_file"));
  if (line.has("contact-sheet")) settings.sheet.file = line.option("contact-sheet");
  settings.sheet.samples = static_cast<int>(line.whole_number("samples", settings.sheet.samples, 1, 1024));
  settings.sheet.seed = static_cast<uint64_t>(line.whole_number("seed", 0, 0, kMostSheetSeed));
  settings.stop = &call.stop;
  HttpOptions http;
  http.allow_private = line.has("allow-private");
  http.use_proxy = line.has("use-proxy");
  http.ca_file = line.option("ca-file");
  http.cancel = &call.stop;
  const auto cache = std::make_shared<UrlCache>(std::filesystem::path(), http);
  settings.resolve_url = [cache](const std::string& url) { return cache->fetch(url); };
  return settings;
}

void print_faults(const VerifyResult& result, bool has_report) {
  for (const Fault& fault : result.first) std::printf("%s: %s\n", fault.kind.c_str(), shown_fault(fault).c_str());
  if (const uint64_t more = result.all_faults() - result.first.size(); more > 0) {
    std::printf("... and %llu more%s\n", static_cast<unsigned long long>(more),
                has_report ? ", all in the report" : " (--report FILE has all)");
  }
  for (const auto& [kind, count] : result.faults) {
    std::printf("wrong: %s %llu\n", kind.c_str(), static_cast<unsigned long long>(count));
  }
}

void print_result(const VerifyResult& result, const VerifySettings& settings) {
  print_faults(result, !settings.report.empty());
  std::printf("%llu of %llu samples are sound, in %llu archives (%s)%s\n",
              static_cast<unsigned long long>(result.sound), static_cast<unsigned long long>(result.samples),
              static_cast<unsigned long long>(result.archives), size_text(result.archive_bytes).c_str(),
              result.stopped ? " of those that were looked at" : "");
  if (settings.survey.tokenizer) {
    std::printf("captions with more than %lld tokens: %llu\n", static_cast<long long>(settings.survey.most_tokens),
                static_cast<unsigned long long>(result.cut));
  }
}

}  // namespace

std::vector<AppOption> verify_options() {
  return {
      {"report", "FILE", "verify: all that is wrong, a line each; JSON for .jsonl or .json, else TSV"},
      {"whole", "", "verify: the lists must name every picture of their archives, and each key once"},
      {"vocab_file", "FILE", "verify, stats: counts the tokens of captions by this .vocab or spiece.model"},
      {"most-tokens", "N", "verify, stats: captions with more are counted (default 128)"},
      {"contact-sheet", "FILE", "verify, stats: a PNG of random samples with their captions"},
      {"samples", "N", "verify, stats: of the contact sheet, 1 to 1024 (default 64)"},
      {"seed", "SEED", "verify, stats: of the contact sheet (default 0)"},
      {"output-dir", "DIR", "verify, stats: the folder of a scrape, as a list"},
      {"threads", "N", "that decode (default: all)"},
      {"allow-private", "", "connect to loopback, private and link-local addresses, too"},
      {"use-proxy", "", "take the proxy that http_proxy and https_proxy name"},
      {"ca-file", "FILE", "certificates in place of the system's"},
  };
}

int run_verify(const VerbCall& call) {
  VerifySettings settings;
  settings.survey = survey_of(call);
  if (call.command_line.has("report")) settings.report = call.command_line.option("report");
  settings.whole = call.command_line.has("whole");
  VerifyResult result;
  {
    SurveyDisplay display("verifying");
    settings.survey.show = [&display](const SurveyProgress& progress) { display.show(progress); };
    result = verify_dataset(settings);
  }
  print_result(result, settings);
  if (result.stopped) {
    log_info("stopped; what lies behind was not looked at");
    return kStopped;
  }
  if (result.readable_archives == 0) {
    log_error("nothing can be read");
    return kUnreadable;
  }
  return result.faults.empty() ? 0 : kPartial;
}

std::vector<AppOption> stats_options() { return {{"json", "FILE", "stats: all numbers, as JSON"}}; }

int run_stats(const VerbCall& call) {
  SurveySettings settings = survey_of(call);
  StatsResult result;
  {
    SurveyDisplay display("counting");
    settings.show = [&display](const SurveyProgress& progress) { display.show(progress); };
    result = dataset_stats(settings);
  }
  std::cout << stats_text(result) << std::flush;
  if (call.command_line.has("json") && !result.stopped) {
    write_file(call.command_line.option("json"), stats_json(result));
  }
  if (result.stopped) return kStopped;
  if (result.archives == 0) {
    log_error("nothing can be read");
    return kUnreadable;
  }
  return result.faults.empty() ? 0 : kPartial;
}

}  // namespace mdm::ingest
