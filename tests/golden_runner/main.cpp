// mdm_golden FOLDER [--reference FOLDER] [--no-skip]: runs every golden case below FOLDER, prints one line
// a case with its largest error, and exits with 1 when one fails.
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "golden_runner/runner.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"

namespace {

using mdm::golden::Case;
using mdm::golden::Report;

struct Options {
  std::filesystem::path folder;
  mdm::golden::Context context;
  bool no_skip = false;
};

// Returns whether the arguments make sense.
bool parse(int argc, char** argv, Options& options) {
  if (const char* reference = std::getenv("MDM_REFERENCE_DIR")) options.context.reference = reference;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--no-skip") {
      options.no_skip = true;
    } else if (argument == "--reference" && i + 1 < argc) {
      options.context.reference = argv[++i];
    } else if (argument.rfind("--reference=", 0) == 0) {
      options.context.reference = argument.substr(12);
    } else if (!argument.empty() && argument[0] != '-' && options.folder.empty()) {
      options.folder = argument;
    } else {
      return false;
    }
  }
  return !options.folder.empty();
}

std::vector<Case> all_cases(const std::filesystem::path& root) {
  std::vector<std::filesystem::path> folders = {root};
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (entry.is_directory()) folders.push_back(entry.path());
  }
  std::sort(folders.begin(), folders.end());
  std::vector<Case> cases;
  for (const auto& folder : folders) {
    for (Case& found : mdm::golden::cases_in(folder)) {
      const auto relative = std::filesystem::relative(folder, root);
      const std::string prefix = relative == "." ? root.filename().string() : relative.string();
      found.name = found.name.empty() ? prefix : prefix + "/" + found.name;
      cases.push_back(std::move(found));
    }
  }
  return cases;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options) || !std::filesystem::is_directory(options.folder)) {
    std::fprintf(stderr, "usage: mdm_golden FOLDER [--reference FOLDER] [--no-skip]\n");
    return 2;
  }
  mdm::set_log_level(mdm::LogLevel::kError);
  int passed = 0, failed = 0, skipped = 0;
  std::map<std::string, int> unknown;
  std::map<std::string, std::pair<double, double>> worst_of_kind;  // absolute, relative to the largest element
  for (const Case& item : all_cases(options.folder)) {
    if (item.check == nullptr) {
      ++unknown[item.kind];
      continue;
    }
    Report report;
    const auto start = std::chrono::steady_clock::now();
    try {
      item.check(item.path, options.context, report);
    } catch (const std::exception& error) {
      report.fail(std::string("threw: ") + error.what());
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!report.failed() && !report.skipped() && report.comparisons() == 0) report.fail("nothing was compared");
    const char* verdict = report.failed() ? "FAIL" : report.skipped() ? "SKIP" : "ok  ";
    (report.failed() ? failed : report.skipped() ? skipped : passed)++;
    std::printf("%s %-46s %-12s %5d checks  error %9.2e (%.3f of the tolerance, %s)  %.1f s\n", verdict,
                item.name.c_str(), item.kind.c_str(), report.comparisons(), report.worst_absolute(), report.worst(),
                report.worst_what().empty() ? "exact" : report.worst_what().c_str(), seconds);
    if (report.skipped()) std::printf("       skipped: %s\n", report.skip_reason().c_str());
    for (size_t i = 0; i < report.failures().size() && i < 10; ++i) {
      std::printf("       %s\n", report.failures()[i].c_str());
    }
    if (report.failures().size() > 10) std::printf("       ... and %zu more\n", report.failures().size() - 10);
    auto& worst = worst_of_kind[item.kind];
    worst.first = std::max(worst.first, report.worst_absolute());
    worst.second = std::max(worst.second, report.worst_relative_to_max());
    std::fflush(stdout);
  }
  std::printf("\nlargest error of each kind (absolute; relative to the largest element of its tensor):\n");
  for (const auto& [kind, worst] : worst_of_kind) {
    std::printf("  %-20s %9.2e %9.2e\n", kind.c_str(), worst.first, worst.second);
  }
  for (const auto& [kind, count] : unknown) {
    std::printf("%d cases of kind '%s': not a kind that this program checks\n", count, kind.c_str());
  }
  std::printf("golden: %d passed, %d failed, %d skipped\n", passed, failed, skipped);
  const bool nothing = passed + failed + skipped == 0;
  return failed > 0 || nothing || (options.no_skip && skipped > 0) ? 1 : 0;
}
