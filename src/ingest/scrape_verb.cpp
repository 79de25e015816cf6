// The verb `scrape`: its flags and what it prints.
#include <cstdio>

#include "ingest/size_text.h"
#include "ingest/verbs.h"
#include "mdm/config/download_config.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/core/progress.h"
#include "mdm/ingest/scrape.h"

namespace mdm::ingest {
namespace {

constexpr int64_t kMost = int64_t{1} << 40;
constexpr int64_t kMostSeed = (int64_t{1} << 62) - 1;

UrlListFormat format_of(const ParsedCommandLine& line) {
  UrlListFormat format;
  const std::string kind = line.option("format", "name");
  if (kind == "tsv") {
    format.kind = UrlListFormat::Kind::kTsv;
  } else if (kind == "csv") {
    format.kind = UrlListFormat::Kind::kCsv;
  } else if (kind == "jsonl") {
    format.kind = UrlListFormat::Kind::kJsonLines;
  } else if (kind != "name") {
    fail<ConfigError>("--format: '", printable(kind), "' is not one of tsv, csv, jsonl");
  }
  const std::string quotes = line.option("quotes", "header");
  if (quotes == "yes") {
    format.quotes = UrlListFormat::Quotes::kYes;
  } else if (quotes == "no") {
    format.quotes = UrlListFormat::Quotes::kNo;
  } else if (quotes != "header") {
    fail<ConfigError>("--quotes: '", printable(quotes), "' is not one of yes, no");
  }
  format.url_column = line.option("url-column", format.url_column);
  format.caption_column = line.option("caption-column", format.caption_column);
  return format;
}

HttpOptions http_of(const ParsedCommandLine& line) {
  HttpOptions http;
  http.connect_seconds = line.number("connect-timeout", 10, 0.1, 3600);
  http.total_seconds = line.number("timeout", 60, 0.1, 86400);
  http.stall_seconds = std::min(http.total_seconds, line.number("stall-timeout", 15, 1, 3600));
  http.tries = line.whole_number("tries", 3, 1, 100);
  http.max_redirects = line.whole_number("max-redirects", 5, 0, 50);
  http.max_bytes = line.whole_number("max-image-bytes", int64_t{16} << 20, 1, int64_t{1} << 30);
  http.user_agent = line.option("user-agent");
  http.allow_private = line.has("allow-private");
  http.use_proxy = line.has("use-proxy");
  http.ca_file = line.option("ca-file");
  http.resolve = line.values("resolve");
  return http;
}

ScrapeSettings settings_of(const VerbCall& call) {
  const ParsedCommandLine& line = call.command_line;
  ScrapeSettings settings;
  ScrapeConfig config;
  for (const auto& file : line.config_files) config = read_scrape_config(file);
  settings.urls = config.urls.empty() || line.has("urls") ? line.required("urls") : config.urls;
  settings.output_dir =
      config.output_dir.empty() || line.has("output-dir") ? line.required("output-dir") : config.output_dir;
  settings.format = format_of(line);
  settings.http = http_of(line);
  settings.samples_per_shard = line.whole_number("samples-per-shard", settings.samples_per_shard, 1, 1000000);
  settings.transfers = line.whole_number("transfers", settings.transfers, 1, 10000);
  settings.transfers_per_host = line.whole_number("transfers-per-host", settings.transfers_per_host, 1, 10000);
  settings.heed_robots = !line.has("ignore-robots");
  settings.max_pixels = static_cast<uint64_t>(line.whole_number("max-pixels", int64_t{1} << 25, 1, kMost));
  settings.min_side = static_cast<int>(line.whole_number("min-side", 1, 1, 65536));
  settings.max_caption_bytes =
      static_cast<uint64_t>(line.whole_number("max-caption-bytes", int64_t{1} << 16, 1, int64_t{1} << 20));
  settings.resize_side = static_cast<int>(line.whole_number("resize", 0, 0, 65536));
  settings.jpeg_quality = static_cast<int>(line.whole_number("quality", settings.jpeg_quality, 1, 100));
  settings.drop_duplicates = !line.has("keep-duplicates");
  settings.validation_share =
      line.number("validation-share", config.validation_share.value_or(settings.validation_share), 0, 0.999);
  settings.split_seed = static_cast<uint64_t>(
      line.whole_number("seed", static_cast<int64_t>(config.seed.value_or(0) & kMostSeed), 0, kMostSeed));
  settings.retry_failed = line.has("retry-failed");
  settings.workers = line.whole_number("num-workers", 1, 1, 1000000);
  settings.worker = line.whole_number("worker-id", 0, 0, settings.workers - 1);
  settings.threads = static_cast<int>(line.whole_number("threads", 0, 0, 1024));
  settings.lost_after = line.whole_number("lost-after", settings.lost_after, 0, kMost);
  settings.patience_seconds = line.number("patience", settings.patience_seconds, 0, 1e9);
  settings.ignore_space = line.has("ignore-space");
  if (!(settings.validation_share >= 0 && settings.validation_share < 1)) {
    fail<ConfigError>("validation_percentage: ", settings.validation_share,
                      " is not a share of the pictures, 0 to 0.999");
  }
  settings.stop = &call.stop;
  return settings;
}

std::string share_text(const ScrapeCounts& counts) {
  const uint64_t done = counts.pictures + counts.all_failures();
  char text[48];
  std::snprintf(text, sizeof text, "%.1f %% are pictures",
                done == 0 ? 0.0 : 100.0 * static_cast<double>(counts.pictures) / static_cast<double>(done));
  return text;
}

// The bar; made when it is known how much there is to do.
class Display {
 public:
  void show(const ScrapeProgress& progress) {
    const uint64_t done = progress.counts.pictures + progress.counts.all_failures();
    if (!bar_) {
      ProgressOptions options;
      options.label = "scraping";
      options.total = progress.rows_to_do;
      options.initial = done;
      options.unit = "URLs";
      bar_ = std::make_unique<Progress>(options);
    }
    bar_->note(concat(progress.counts.pictures, " pictures (", share_text(progress.counts), "), ",
                      size_text(progress.bytes_received), " loaded"));
    bar_->set(done);
  }

 private:
  std::unique_ptr<Progress> bar_;
};

void print(const ScrapeSettings& settings, const ScrapeResult& result) {
  std::printf("%llu shards with %llu pictures (%s) of %llu URLs in %s\n",
              static_cast<unsigned long long>(result.shards), static_cast<unsigned long long>(result.counts.pictures),
              size_text(result.counts.picture_bytes).c_str(), static_cast<unsigned long long>(result.counts.rows),
              printable(settings.output_dir.string(), 1000).c_str());
  for (const auto& [cause, count] : result.counts.failures) {
    std::printf("  left out: %s %llu\n", printable(cause).c_str(), static_cast<unsigned long long>(count));
  }
  if (!result.train_list.empty()) std::printf("train: %s\n", printable(result.train_list.string(), 1000).c_str());
  if (!result.validation_list.empty()) {
    std::printf("validation: %s\n", printable(result.validation_list.string(), 1000).c_str());
  }
}

}  // namespace

std::vector<AppOption> scrape_options() {
  return {
      {"urls", "FILE",
       "scrape: the list: URL and caption a line (Conceptual 12M), or TSV, CSV, JSON lines with named columns"},
      {"output-dir", "DIR", "where shards and lists go"},
      {"format", "KIND", "scrape: tsv, csv or jsonl (default: by the file's name, else tsv)"},
      {"url-column", "NAME", "scrape: column of the URLs (default url)"},
      {"caption-column", "NAME", "scrape: column of the captions (default caption)"},
      {"quotes", "yes|no",
       "scrape: whether quotes enclose fields (default: in CSV, and where a line names the columns)"},
      {"samples-per-shard", "N", "scrape: rows of the list that make a shard (default 10000)"},
      {"transfers", "N", "scrape: downloads at a time (default 256)"},
      {"transfers-per-host", "N", "scrape: of these from one host (default 8)"},
      {"connect-timeout", "SECONDS", "scrape: for a connection (default 10)"},
      {"timeout", "SECONDS", "scrape: for a try as a whole (default 60)"},
      {"stall-timeout", "SECONDS",
       "scrape: a transfer slower than 64 bytes a second so long is broken off (default 15)"},
      {"tries", "N", "scrape: for what may pass: 408, 429, 5xx, time-outs, broken connections (default 3)"},
      {"max-redirects", "N", "scrape: redirects that are followed (default 5)"},
      {"max-image-bytes", "N", "scrape: larger files are left out (default 16777216)"},
      {"max-pixels", "N", "scrape: larger pictures are left out (default 33554432)"},
      {"min-side", "N", "scrape: pictures with a smaller side below this are left out (default 1)"},
      {"max-caption-bytes", "N", "scrape: longer captions are left out (default 65536)"},
      {"resize", "SIDE",
       "scrape: make the smaller side this, where it is larger; 0: keep files as they are (default 0)"},
      {"quality", "Q", "scrape: JPEG quality of resized pictures, 1 to 100 (default 95)"},
      {"keep-duplicates", "", "scrape: keep the same file under another URL"},
      {"validation-share", "SHARE", "scrape: share of the pictures in validation.tsv (default 0.01)"},
      {"seed", "SEED", "scrape: of that division (default 0)"},
      {"retry-failed", "", "scrape: ask again for what failed in finished shards"},
      {"user-agent", "TEXT", "scrape: how requests call themselves (default libmdm/VERSION)"},
      {"ignore-robots", "",
       "scrape: load also what X-Robots-Tag refuses (noai, noimageai, noindex, noimageindex, none)"},
      {"allow-private", "", "connect to loopback, private and link-local addresses, too"},
      {"use-proxy", "", "take the proxy that http_proxy and https_proxy name"},
      {"ca-file", "FILE", "certificates in place of the system's"},
      {"resolve", "HOST:PORT:ADDRESS", "in place of what a name resolves to (several: name it again)"},
      {"worker-id", "N", "which of --num-workers this is, from 0 (default 0)"},
      {"num-workers", "N", "processes that share the work (default 1)"},
      {"threads", "N", "that decode (default: all)"},
      {"lost-after", "N",
       "scrape: so many failures in a row with no server answering mean that the network is lost; 0: never (default "
       "400)"},
      {"patience", "SECONDS", "scrape: how long a lost network is waited for (default 300)"},
      {"ignore-space", "", "scrape: begin although the disk seems too small"},
  };
}

int run_scrape(const VerbCall& call) {
  const ScrapeSettings settings = settings_of(call);
  ScrapeResult result;
  {
    Display display;
    result = scrape(settings, [&display](const ScrapeProgress& progress) { display.show(progress); });
  }
  print(settings, result);
  if (result.stopped) {
    log_info("stopped; the same command goes on");
    return kStopped;
  }
  return result.counts.all_failures() > 0 ? kPartial : 0;
}

}  // namespace mdm::ingest
