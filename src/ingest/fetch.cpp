// The verb fetch: its flags.
#include "mdm/ingest/fetch.h"

#include <cstdio>

#include "ingest/verbs.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/net/s3.h"

namespace mdm::ingest {
namespace {

constexpr int64_t kMostWorkers = 1'000'000, kMostParallel = 256, kMostSeed = (int64_t{1} << 62) - 1;

// One of two names of a flag.
int64_t number_of(const ParsedCommandLine& line, const char* name, const char* other, int64_t otherwise,
                  int64_t least) {
  return line.whole_number(line.has(name) ? name : other, otherwise, least, kMostWorkers);
}

FetchSettings settings_of(const ParsedCommandLine& line) {
  FetchSettings settings;
  settings.sources = line.values("index");
  settings.sources.insert(settings.sources.end(), line.positionals.begin() + 1, line.positionals.end());
  settings.regex = line.has("regex");
  if (!line.config_files.empty()) {
    if (!settings.sources.empty()) fail<ConfigError>("--config and --index don't go together");
    for (const auto& files : line.config_files) {
      for (std::string& name : fetch_config_sources(files.string(), line.option("subset", "train"))) {
        settings.sources.push_back(std::move(name));
      }
    }
    settings.regex = true;
  }
  if (settings.sources.empty()) fail<ConfigError>("fetch needs --index or --config");
  settings.folder = line.required("output-dir");
  settings.tars = !line.has("no-tars");
  settings.workers = static_cast<int>(number_of(line, "num-workers", "num-downloaders", 1, 1));
  settings.worker = static_cast<int>(line.whole_number("worker-id", 0, 0, kMostWorkers));
  if (settings.worker >= settings.workers) {
    fail<ConfigError>("--worker-id ", settings.worker, ": must be less than --num-workers, which is ",
                      settings.workers);
  }
  settings.parallel = static_cast<int>(line.whole_number("parallel", 8, 1, kMostParallel));
  if (line.has("seed")) settings.seed = static_cast<uint64_t>(line.whole_number("seed", 0, 0, kMostSeed));
  settings.http.allow_private = line.has("allow-private");
  settings.http.use_proxy = line.has("use-proxy");
  settings.http.s3_endpoint = line.option("endpoint-url");
  if (line.has("anonymous") || line.has("profile")) {
    settings.http.s3 = std::make_shared<const S3Options>(
        S3Options::from_environment(line.option("endpoint-url"), line.option("profile"), line.has("anonymous")));
  }
  return settings;
}

void report(const FetchResult& result) {
  std::printf("fetched: %llu files, %llu bytes; there already: %llu\n", static_cast<unsigned long long>(result.fetched),
              static_cast<unsigned long long>(result.bytes), static_cast<unsigned long long>(result.kept));
  if (!result.index.empty()) {
    std::printf("index: %s (%llu shards)\n", result.index.string().c_str(),
                static_cast<unsigned long long>(result.shards));
  }
  if (result.bad_rows > 0) std::printf("rows left out: %llu\n", static_cast<unsigned long long>(result.bad_rows));
  if (result.failed > 0) {
    std::printf("failed: %llu, listed in %s\n", static_cast<unsigned long long>(result.failed),
                result.failures.string().c_str());
  }
}

}  // namespace

std::vector<AppOption> fetch_options() {
  return {
      {"output-dir", "DIR", "folder of the output"},
      {"index", "SRC",
       "fetch: an index TSV, a shard TSV or a tar, or a pattern of these like 's3://bucket/prefix/*.tsv'; a path, or a "
       "URL file://, http(s):// or s3:// (several: name it again, or put more behind)"},
      {"regex", "", "fetch: keys of s3:// are regular expressions that a whole key must match, instead of globs"},
      {"subset", "NAME", "fetch: part of the files given by --config: train or eval (default train)"},
      {"no-tars", "", "fetch: only TSVs; their `tar` names the URL, which train_parallel reads"},
      {"parallel", "N", "fetch: transfers at a time (default 8)"},
      {"worker-id", "N", "which of --num-workers processes this is, from 0 (default 0)"},
      {"num-workers", "N", "processes that divide the work (default 1)"},
      {"num-downloaders", "N", "the same as --num-workers"},
      {"seed", "SEED", "of random choices (fetch: the order of the files; default: as they are listed)"},
      {"endpoint-url", "URL", "fetch: S3 server (default: AWS_ENDPOINT_URL, else Amazon's)"},
      {"profile", "NAME", "fetch: profile of ~/.aws/credentials with the keys for S3 (default: AWS_PROFILE)"},
      {"anonymous", "", "fetch: S3 without credentials"},
      {"use-proxy", "", "take the proxy that http_proxy and https_proxy name"},
      {"allow-private", "", "also connect to loopback, private and link-local addresses"},
  };
}

int run_fetch(const VerbCall& call) {
  const FetchResult result = fetch_dataset(settings_of(call.command_line), call.stop, /*progress=*/true);
  if (result.stopped) {
    log_info("stopped; the same command goes on from here");
    return kStopped;
  }
  report(result);
  return result.failed > 0 ? kPartial : 0;
}

}  // namespace mdm::ingest
