// The way of a row: list -> HttpPool (this thread) -> decoders (threads) -> ShardDesk (a thread).
#include "mdm/ingest/scrape.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <new>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "ingest/hash_set.h"
#include "ingest/lists.h"
#include "ingest/lost_network.h"
#include "ingest/picture.h"
#include "ingest/queue.h"
#include "ingest/robots.h"
#include "ingest/scrape_folder.h"
#include "ingest/shard_desk.h"
#include "ingest/url_list.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"
#include "mdm/core/utf8.h"
#include "mdm/core/version.h"
#include "mdm/data/tsv.h"
#include "mdm/net/http_pool.h"

namespace mdm {

uint64_t ScrapeCounts::all_failures() const {
  uint64_t sum = 0;
  for (const auto& [cause, count] : failures) sum += count;
  return sum;
}

void ScrapeCounts::add(const ScrapeCounts& other) {
  rows += other.rows;
  pictures += other.pictures;
  picture_bytes += other.picture_bytes;
  for (const auto& [cause, count] : other.failures) failures[cause] += count;
}

namespace ingest {
namespace {

constexpr uint64_t kMostWaitingBytes = uint64_t{32} << 20;  // of bodies between the threads
constexpr uint64_t kMostRowBytes = uint64_t{16} << 20;      // of URLs and captions on their way
constexpr size_t kMostOpenShards = 64;
constexpr double kLostPause = 10;  // seconds between tries while the network is lost

/// An answer whose body is not wanted.
class Unwanted : public Error {
 public:
  explicit Unwanted(Failure failure) : Error(failure.detail), failure_(std::move(failure)) {}
  const Failure& failure() const { return failure_; }

 private:
  Failure failure_;
};

std::string cause_of(const NetError& error) {
  switch (error.kind()) {
    case NetError::Kind::kUrl: return "url";
    case NetError::Kind::kRefused: return "private_address";
    case NetError::Kind::kRedirect: return "redirect";
    case NetError::Kind::kHost: return "host";
    case NetError::Kind::kTls: return "tls";
    case NetError::Kind::kTimeout: return "timeout";
    case NetError::Kind::kStatus: return concat("status_", error.status());
    case NetError::Kind::kSize: return "too_large";
    default: return "connection";
  }
}

// What a lost network would give as well.
bool is_of_network(const NetError& error) {
  return error.kind() == NetError::Kind::kHost || error.kind() == NetError::Kind::kConnection ||
         error.kind() == NetError::Kind::kTimeout;
}

// Failures that another try may mend: not those of the list, nor what was decided for good.
bool worth_another_try(const std::string& cause) {
  for (const char* final_cause :
       {"url", "caption", "duplicate_url", "duplicate_content", "robots", "private_address"}) {
    if (cause == final_cause) return false;
  }
  return true;
}

std::string host_of(const std::string& url) {
  const size_t begin = url.find("://");
  if (begin == std::string::npos) return {};
  return url.substr(begin + 3, url.find_first_of("/?#", begin + 3) - begin - 3);
}

struct Download {
  UrlRow row;
  std::string last_url;
  std::string body;
};

class Scraper {
 public:
  Scraper(const ScrapeSettings& settings, const std::function<void(const ScrapeProgress&)>& show)
      : settings_(settings), show_(show), network_(settings.lost_after, settings.transfers) {}

  ScrapeResult run() {
    make_writable_folder(settings_.output_dir);
    const WorkerLock lock(settings_);
    list_identity_ = read_list_once();
    check_manifest(settings_, list_identity_);
    find_shards();
    if (!settings_.ignore_space) check_space(settings_, progress_.rows_to_do - done_before_.rows, done_before_);
    load();
    ScrapeResult result;
    result.stopped = stopped();
    result.counts = desk_->finished_counts();
    result.shards = finished_before_ + desk_->finished_shards();
    const WrittenLists lists = write_lists(settings_.output_dir, {settings_.validation_share, settings_.split_seed});
    result.train_list = lists.train;
    result.validation_list = lists.validation;
    return result;
  }

 private:
  // ---- before ----

  bool stopped() const { return settings_.stop != nullptr && settings_.stop->load(); }

  ListIdentity read_list_once() const {
    UrlList list(settings_.urls, settings_.format);
    const FileDigest digest = digest_file(settings_.urls);
    ListIdentity identity;
    identity.bytes = digest.bytes;
    identity.sha256 = digest.hex;
    UrlRow row;
    while (list.next(row)) ++identity.rows;
    if (identity.rows == 0) fail<DataError>(printable(settings_.urls.string(), 1000), ": has no rows");
    return identity;
  }

  ShardRows shard_rows(uint64_t number) const {
    const auto size = static_cast<uint64_t>(settings_.samples_per_shard);
    const uint64_t first = number * size;
    return {number, first, std::min(size, list_identity_.rows - first)};
  }

  bool is_ours(uint64_t shard) const {
    return shard % static_cast<uint64_t>(settings_.workers) == static_cast<uint64_t>(settings_.worker);
  }

  // Which shards are finished, and what is known of their pictures.
  void find_shards() {
    const auto size = static_cast<uint64_t>(settings_.samples_per_shard);
    const uint64_t count = (list_identity_.rows + size - 1) / size;
    finished_.assign(count, false);
    std::vector<uint64_t> known;
    for (uint64_t number = 0; number < count; ++number) {
      if (!is_ours(number)) continue;
      const ShardRows rows = shard_rows(number);
      const ShardFiles files(settings_.output_dir, number);
      progress_.rows_to_do += rows.rows;
      ScrapeCounts counts;
      if (settings_.retry_failed && read_finished(files, rows, counts)) reopen(files, rows, &worth_another_try);
      if (!read_finished(files, rows, counts)) continue;
      drop_leftovers(files);
      finished_[number] = true;
      ++finished_before_;
      done_before_.add(counts);
      known.push_back(number);
    }
    desk_ = std::make_unique<ShardDesk>(size, settings_.drop_duplicates, done_before_);
    for (const uint64_t number : known) know_pictures(ShardFiles(settings_.output_dir, number));
  }

  void know_pictures(const ShardFiles& files) {
    const std::string text = read_text_file(files.list());
    TsvReader reader(text, files.list().string());
    const size_t digest = reader.require("sha256");
    std::vector<std::string> fields;
    while (reader.next(fields) == TsvReader::Result::kRecord) desk_->know(fields[digest]);
  }

  // ---- the loop ----

  void load() {
    HttpPoolOptions options;
    options.http = settings_.http;
    options.transfers = settings_.transfers;
    options.transfers_per_host = settings_.transfers_per_host;
    options.on_answer = [this](const HttpResponse& response) { judge_answer(response); };
    HttpPool pool(options);
    pool_ = &pool;
    std::vector<std::thread> decoders;
    const int threads =
        settings_.threads > 0 ? settings_.threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    for (int i = 0; i < threads; ++i) decoders.emplace_back([this] { decode(); });
    std::exception_ptr thrown;
    try {
      drive();
    } catch (...) {
      thrown = std::current_exception();
    }
    downloads_.close();
    for (auto& thread : decoders) thread.join();
    pool_ = nullptr;
    if (thrown) std::rethrow_exception(thrown);
    desk_->close();
    check_decoders();
    report();
  }

  void drive() {
    UrlList list(settings_.urls, settings_.format);
    bool ended = false;
    while (!stopped()) {
      desk_->check();
      check_decoders();
      while (!ended && has_room()) ended = !take_row(list);
      if (ended && pool_->unfinished() == 0 && !settle_suspects()) break;
      const bool full = downloads_.bytes() + desk_->waiting_bytes() > kMostWaitingBytes;
      held_ = full;
      pool_->hold(full);
      for (HttpPool::Finished& finished : pool_->wait(0.1)) take_answer(finished);
      if (network_.verdict() != LostNetwork::Verdict::kOpen) judge_network();
      report();
    }
  }

  bool has_room() const {
    const auto most = static_cast<size_t>(settings_.transfers) * 16;
    return pool_->unfinished() < most && row_bytes_ < kMostRowBytes && desk_->open_shards() < kMostOpenShards;
  }

  // ---- a row on its way out ----

  bool take_row(UrlList& list) {
    UrlRow row;
    if (!list.next(row)) return false;
    const bool first_time = row.url.empty() || urls_.insert(hash_of(sha256_hex(row.url)));
    const uint64_t shard = row.number / static_cast<uint64_t>(settings_.samples_per_shard);
    if (!is_ours(shard) || finished_[shard]) return true;
    if (!current_ || *current_ != shard) open(shard);
    if (done_[row.number - shard * static_cast<uint64_t>(settings_.samples_per_shard)]) return true;
    if (auto failure = fault_of(row, first_time)) {
      desk_->put({std::move(row), {}, std::move(*failure)});
      return true;
    }
    ask(std::move(row));
    return true;
  }

  void open(uint64_t number) {
    auto shard = std::make_unique<OpenShard>(settings_.output_dir, shard_rows(number));
    done_.assign(shard->rows().rows, false);
    for (uint64_t i = 0; i < shard->rows().rows; ++i) done_[i] = shard->is_done(shard->rows().first + i);
    current_ = number;
    desk_->open(std::move(shard));
  }

  // What is wrong with a row before anybody is asked.
  std::optional<Failure> fault_of(const UrlRow& row, bool first_time) const {
    if (!row.problem.empty()) return Failure{"url", "the row " + row.problem};
    if (row.url.empty()) return Failure{"url", "is empty"};
    if (row.url.size() > 8192) return Failure{"url", "has more than 8192 bytes"};
    if (!first_time) return Failure{"duplicate_url", "the URL stands in an earlier row"};
    if (row.caption.empty()) return Failure{"caption", "is empty"};
    if (row.caption.size() > settings_.max_caption_bytes) {
      return Failure{"caption", concat("has ", row.caption.size(), " bytes, more than ", settings_.max_caption_bytes)};
    }
    if (!is_utf8(row.caption)) return Failure{"caption", "is not UTF-8"};
    if (row.caption.find('\0') != std::string::npos) return Failure{"caption", "holds a NUL character"};
    return std::nullopt;
  }

  static uint64_t bytes_of(const UrlRow& row) { return row.url.size() + row.caption.size() + sizeof row; }

  void ask(UrlRow row) {
    row_bytes_ += bytes_of(row);
    const uint64_t number = row.number;
    const std::string url = row.url;
    rows_.emplace(number, std::move(row));
    pool_->add(number, url);
  }

  // ---- an answer ----

  void judge_answer(const HttpResponse& response) const {
    if (!settings_.heed_robots) return;
    std::string agent = settings_.http.user_agent.empty() ? "libmdm" : settings_.http.user_agent;
    agent.resize(std::min(agent.size(), agent.find_first_of("/ (")));
    const auto rule = refusing_rule(response.robots, agent);
    if (!rule.empty()) throw Unwanted({"robots", concat("X-Robots-Tag: ", rule)});
  }

  void take_answer(HttpPool::Finished& finished) {
    auto entry = rows_.extract(finished.id);
    UrlRow row = std::move(entry.mapped());
    row_bytes_ -= bytes_of(row);
    const std::string host = host_of(row.url);
    try {
      if (finished.error) std::rethrow_exception(finished.error);
      for (auto& [suspect, failure] : network_.alive(host)) desk_->put({std::move(suspect), {}, std::move(failure)});
      const uint64_t bytes = finished.response.body.size();
      downloads_.push({std::move(row), std::move(finished.response.url), std::move(finished.response.body)}, bytes);
    } catch (const NetError& error) {
      if (error.kind() == NetError::Kind::kUnavailable) throw;
      Failure failure{cause_of(error), without_url(error.what(), row.url)};
      if (is_of_network(error)) {
        network_.suspect(std::move(row), std::move(failure), host);
      } else {
        fail_row(std::move(row), std::move(failure), host, error.kind() != NetError::Kind::kUrl);
      }
    } catch (const Unwanted& unwanted) {
      fail_row(std::move(row), unwanted.failure(), host, true);
    }
  }

  // The row has a column of its own for the URL.
  static std::string without_url(const std::string& text, const std::string& url) {
    const std::string begin = shown_url(url) + ": ";
    return text.compare(0, begin.size(), begin) == 0 ? text.substr(begin.size()) : text;
  }

  void fail_row(UrlRow row, Failure failure, const std::string& host, bool answered) {
    if (answered) {
      for (auto& [suspect, why] : network_.alive(host)) desk_->put({std::move(suspect), {}, std::move(why)});
    }
    desk_->put({std::move(row), {}, std::move(failure)});
  }

  // ---- the network ----

  void judge_network() {
    if (network_.verdict() == LostNetwork::Verdict::kHostsAreDead) {
      accept_suspects();
      return;
    }
    const auto now = std::chrono::steady_clock::now();
    if (!lost_since_ || network_.answers() != answers_when_lost_) lost_since_ = now;
    answers_when_lost_ = network_.answers();
    const double lost = std::chrono::duration<double>(now - *lost_since_).count();
    const std::string last = network_.last_detail();
    if (lost >= settings_.patience_seconds) {
      fail("the network is lost: ", network_.suspects(),
           " requests in a row got no answer from any server, the last one: ", last,
           "; nothing of that is recorded, and a later call goes on here");
    }
    log_warning("no server answers any more (", last, "); trying again in ", kLostPause, " s");
    const auto end = now + std::chrono::duration<double>(kLostPause);
    while (!stopped() && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    for (auto& [row, failure] : network_.take()) ask(std::move(row));
  }

  void accept_suspects() {
    for (auto& [row, failure] : network_.take()) desk_->put({std::move(row), {}, std::move(failure)});
  }

  // At the end of the list: true when there is still something to do. Where no server ever answered it may be the
  // network; in a folder that has answers already, these rows are what is left of it.
  bool settle_suspects() {
    if (network_.suspects() == 0) return false;
    const ScrapeCounts counts = desk_->counts();
    const bool known = network_.answers() > 0 || counts.pictures > 0 || settings_.lost_after <= 0;
    if (!known) {
      fail("none of ", network_.suspects(), " URLs could be reached, the last one: ", network_.last_detail(),
           "; is there a network? Nothing is recorded (--lost-after 0 takes it for the servers' fault)");
    }
    accept_suspects();
    return false;
  }

  // ---- the decoders ----

  void decode() {
    try {
      while (auto download = downloads_.pop()) {
        Outcome outcome;
        outcome.row = std::move(download->row);
        outcome.last_url = std::move(download->last_url);
        Picture picture;
        Failure failure;
        if (check_picture(std::move(download->body), settings_, picture, failure)) {
          outcome.result = std::move(picture);
        } else {
          outcome.result = std::move(failure);
        }
        desk_->put(std::move(outcome));
        if (held_ && pool_ != nullptr) pool_->wake();
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      decoder_broken_ = std::current_exception();
    }
  }

  void check_decoders() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (decoder_broken_) std::rethrow_exception(decoder_broken_);
  }

  void report() {
    if (!show_) return;
    progress_.counts = desk_->counts();
    progress_.bytes_received = pool_ == nullptr ? progress_.bytes_received : pool_->bytes_received();
    show_(progress_);
  }

  const ScrapeSettings& settings_;
  const std::function<void(const ScrapeProgress&)>& show_;
  ListIdentity list_identity_;
  std::vector<bool> finished_;  // shards, when the run began
  uint64_t finished_before_ = 0;
  ScrapeCounts done_before_;
  HashSet urls_;
  std::optional<uint64_t> current_;            // the shard that rows come from
  std::vector<bool> done_;                     // its rows
  std::unordered_map<uint64_t, UrlRow> rows_;  // on their way
  uint64_t row_bytes_ = 0;
  LostNetwork network_;
  std::optional<std::chrono::steady_clock::time_point> lost_since_;
  uint64_t answers_when_lost_ = 0;
  ScrapeProgress progress_;
  std::unique_ptr<ShardDesk> desk_;
  Queue<Download> downloads_;
  HttpPool* pool_ = nullptr;
  std::atomic<bool> held_{false};
  std::mutex mutex_;
  std::exception_ptr decoder_broken_;
};

}  // namespace
}  // namespace ingest

ScrapeResult scrape(const ScrapeSettings& settings, const std::function<void(const ScrapeProgress&)>& show) {
  return ingest::Scraper(settings, show).run();
}

}  // namespace mdm
