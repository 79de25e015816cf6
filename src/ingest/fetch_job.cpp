// The work of `fetch`: which files are this process's, several at a time, and at the end the lists of what came.
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>

#include "ingest/fetch_lists.h"
#include "ingest/fetch_sources.h"
#include "ingest/fetch_store.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"
#include "mdm/core/progress.h"
#include "mdm/core/random.h"
#include "mdm/data/tsv.h"
#include "mdm/ingest/fetch.h"

namespace mdm {
namespace ingest {
namespace {

namespace fs = std::filesystem;

constexpr int kMostUnreachable = 32;  // files in a row that no server could be asked for: the network is gone
constexpr uint64_t kMegabyte = 1'000'000;

std::string gigabytes(uint64_t bytes) {
  const uint64_t tenths = (bytes + 99'999'999) / 100'000'000;
  return concat(tenths / 10, '.', tenths % 10, " GB");
}

// Shows bytes; `known` of them are to come in all, 0: unknown.
class FetchProgress {
 public:
  FetchProgress(bool shown, uint64_t known) : known_(known) {
    if (!shown) return;
    ProgressOptions options;
    options.label = "fetching";
    options.unit = "MB";
    options.total = known / kMegabyte;
    progress_ = std::make_unique<Progress>(options);
  }
  void add(uint64_t bytes) {
    if (!progress_) return;
    const uint64_t done = bytes_ += bytes;  // what came twice, after an error, does not pass the end
    progress_->set((known_ >= kMegabyte ? std::min(done, known_) : done) / kMegabyte);
  }
  void note(const std::string& text) {
    if (progress_) progress_->note(text);
  }

 private:
  uint64_t known_;
  std::atomic<uint64_t> bytes_{0};
  std::unique_ptr<Progress> progress_;
};

// Passes the caller's wish to stop on, as long as it lives.
class Watch {
 public:
  Watch(const std::atomic<bool>& stop, std::atomic<bool>& halt)
      : thread_([this, &stop, &halt] {
          while (!done_ && !stop) std::this_thread::sleep_for(std::chrono::milliseconds(10));
          if (stop) halt = true;
        }) {}
  ~Watch() {
    done_ = true;
    thread_.join();
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

// A file to bring. Lists lie in the hidden folder until they are written anew.
struct Item {
  SourceFile source;
  bool is_list = false;
  std::string name;                                   // in the output folder
  bool ok = false;                                    // is there
  ListContent content;                                // of a list
  std::unordered_map<std::string, std::string> urls;  // of a list: what each of its names means
};

class FetchJob {
 public:
  FetchJob(const FetchSettings& settings, const std::atomic<bool>& stop, bool shows)
      : settings_(settings), stop_(stop), shows_(shows), store_(settings.folder, halt_) {}

  FetchResult run();

 private:
  HttpClient client();
  void plan();
  void add_named(const SourceFile& source);
  void check_space() const;
  void transfer();
  void work();
  void bring(Item& item, HttpClient& client);
  void bring_file(const SourceFile& source, const std::string& name, const fs::path& target, HttpClient& client);
  void copy_local(const SourceFile& source, const fs::path& target);
  void add_tars(Item& item);
  void failed(const std::string& url, const std::string& cause);
  void settle(const NetError& error, const std::string& url);
  void write_lists();
  bool write_shard(Item& item, std::vector<std::string>& index);
  std::string own_name(const char* stem) const;
  void write_failures();

  const FetchSettings& settings_;
  const std::atomic<bool>& stop_;
  const bool shows_;
  std::atomic<bool> halt_{false};  // stops all transfers: the caller's wish, or an error that ends the job
  FetchStore store_;
  FetchResult result_;
  std::unique_ptr<FetchProgress> progress_;

  std::vector<std::unique_ptr<Item>> items_;  // this process's, in the order of the index
  std::mutex mutex_;                          // of what follows
  std::condition_variable changed_;
  std::deque<Item*> queue_;
  std::vector<std::unique_ptr<Item>> named_;     // tars that lists name
  std::unordered_map<std::string, Item*> tars_;  // all, by URL
  std::set<std::string> counted_;                // names of files that are in result_
  size_t busy_ = 0;
  size_t done_ = 0, all_ = 0;
  int unreachable_ = 0;  // failures to connect since something worked
  std::exception_ptr error_;
  std::vector<std::pair<std::string, std::string>> failures_;
};

HttpClient FetchJob::client() {
  HttpOptions options = settings_.http;
  options.cancel = &halt_;
  options.on_bytes = [this](uint64_t bytes) {
    if (progress_) progress_->add(bytes);
  };
  return HttpClient(std::move(options));
}

// ---- which files ----

// The sources' files, those of indexes included, and of these every workers-th.
void FetchJob::plan() {
  HttpClient lists = client();
  std::vector<SourceFile> files;
  std::set<std::string> seen;
  for (SourceFile& source : expand_sources(settings_, lists)) {
    std::vector<SourceFile> named;
    if (!source.by_pattern && !is_tar_name(source.url)) {
      const std::string name = store_.claim(source.url, ".tsv");
      bring_file(source, name, store_.list(name), lists);
      const ListContent content = read_list(store_.list(name), shown_url(source.url));
      for (const std::string& text : content.is_index ? content.names : std::vector<std::string>()) {
        const std::string url = named_by(source.url, text);
        named.push_back(is_local(url) ? local_file(url) : SourceFile{url, std::nullopt, "", false});
      }
    }
    if (named.empty()) named.push_back(std::move(source));
    for (SourceFile& file : named) {
      if (seen.insert(file.url).second) files.push_back(std::move(file));
    }
  }
  if (settings_.seed) {
    RandomAddress address;
    address.seed = *settings_.seed;
    address.stream = RandomStream::kShuffle;
    for (size_t i = 0; i + 1 < files.size(); ++i) {
      std::swap(files[i], files[i + random_below(address, i, files.size() - i)]);
    }
  }
  const auto workers = static_cast<size_t>(settings_.workers);
  for (size_t i = static_cast<size_t>(settings_.worker); i < files.size(); i += workers) {
    auto item = std::make_unique<Item>();
    item->is_list = !is_tar_name(files[i].url);
    item->name = store_.claim(files[i].url, item->is_list ? ".tsv" : ".tar");
    item->source = std::move(files[i]);
    items_.push_back(std::move(item));
  }
  if (items_.empty()) {
    log_info("there are ", files.size(), " files for ", settings_.workers, " workers: none for worker ",
             settings_.worker);
  }
}

// Of the files whose size is known, before anything is fetched.
void FetchJob::check_space() const {
  uint64_t needed = 0;
  for (const auto& item : items_) {
    const fs::path file = item->is_list ? store_.list(item->name) : store_.output(item->name);
    if (!item->source.bytes || store_.is_complete(item->name, file, item->source)) continue;
    std::error_code code;
    const auto part = fs::file_size(file.string() + ".part", code);
    needed += *item->source.bytes - std::min(*item->source.bytes, code ? 0 : part);
  }
  std::error_code code;
  const fs::space_info space = fs::space(settings_.folder, code);
  if (!code && needed > space.available) {
    fail(printable(settings_.folder.string(), 1000), ": ", gigabytes(needed), " are to come, and ",
         gigabytes(space.available), " are free");
  }
}

// ---- transfers ----

void FetchJob::transfer() {
  bool known = true;
  uint64_t bytes = 0;
  for (const auto& item : items_) {
    known = known && item->source.bytes && (!item->is_list || !settings_.tars);
    bytes += item->source.bytes.value_or(0);
    queue_.push_back(item.get());
    if (!item->is_list) tars_[item->source.url] = item.get();
  }
  all_ = items_.size();
  progress_ = std::make_unique<FetchProgress>(shows_, known ? bytes : 0);
  const Watch watch(stop_, halt_);
  std::vector<std::thread> threads;
  for (int i = 0; i < settings_.parallel; ++i) threads.emplace_back([this] { work(); });
  for (std::thread& thread : threads) thread.join();
  progress_.reset();
  if (error_) std::rethrow_exception(error_);
}

// A thread: takes files until there is none left, and none can come from the lists that others read.
void FetchJob::work() {
  std::unique_ptr<HttpClient> own;
  std::unique_lock lock(mutex_);
  while (true) {
    while (!halt_ && queue_.empty() && busy_ > 0) changed_.wait_for(lock, std::chrono::milliseconds(100));
    if (halt_ || queue_.empty()) break;
    Item& item = *queue_.front();
    queue_.pop_front();
    ++busy_;
    lock.unlock();
    try {
      if (!own) own = std::make_unique<HttpClient>(client());
      bring(item, *own);
    } catch (...) {
      const std::lock_guard guard(mutex_);
      if (!error_) error_ = std::current_exception();
      halt_ = true;
    }
    lock.lock();
    --busy_;
    ++done_;
    progress_->note(concat("files ", done_, "/", all_, failures_.empty() ? "" : concat(", failed ", failures_.size())));
    changed_.notify_all();
  }
  changed_.notify_all();
}

// Throws what ends the job.
void FetchJob::bring(Item& item, HttpClient& client) {
  const std::string& url = item.source.url;
  try {
    bring_file(item.source, item.name, item.is_list ? store_.list(item.name) : store_.output(item.name), client);
    if (item.is_list) {
      item.content = read_list(store_.list(item.name), shown_url(url));
      if (item.content.is_index) {
        log_warning(shown_url(url), ": is an index, and left out; name it by itself (--index) to fetch what it names");
        return;
      }
      add_tars(item);
    }
    item.ok = true;
    const std::lock_guard guard(mutex_);
    unreachable_ = 0;
  } catch (const NetError& error) {
    settle(error, url);
  } catch (const DataError& error) {
    failed(url, error.what());
  }
}

void FetchJob::bring_file(const SourceFile& source, const std::string& name, const fs::path& target,
                          HttpClient& client) {
  const FetchStore::Lock lock = store_.lock(name);
  if (store_.is_complete(name, target, source)) {
    const std::lock_guard guard(mutex_);
    if (counted_.insert(name).second) ++result_.kept;
    return;
  }
  store_.set_incomplete(name, source);
  uint64_t bytes = 0;
  if (is_local(source.url)) {
    copy_local(source, target);
    bytes = source.bytes.value_or(0);
    store_.set_complete(name, source, bytes, source.etag);
  } else {
    const HttpResponse response = client.download(source.url, target);
    bytes = response.total_bytes.value_or(0);
    store_.set_complete(name, source, bytes, response.etag.empty() ? source.etag : response.etag);
  }
  const std::lock_guard guard(mutex_);
  if (counted_.insert(name).second) ++result_.fetched;
  result_.bytes += bytes;
}

void FetchJob::copy_local(const SourceFile& source, const fs::path& target) {
  constexpr size_t kPart = size_t{4} << 20;
  const auto bytes = FileBytes::open(source.url, FileBytes::Mode::kMap);
  if (bytes->size() != *source.bytes) fail<DataError>(printable(source.url, 1000), ": changes while it is read");
  AtomicFile out(target);
  for (size_t at = 0; at < bytes->size(); at += kPart) {
    if (halt_) throw NetError(NetError::Kind::kCancelled, "cancelled");
    const size_t count = std::min(kPart, bytes->size() - at);
    out.write(bytes->data() + at, count);
    bytes->release(bytes->data() + at, count);
    if (progress_) progress_->add(count);
  }
  out.commit();
}

// The archives that a list names become files to bring, each once however many lists name it.
void FetchJob::add_tars(Item& item) {
  for (const std::string& name : item.content.names) {
    try {
      const std::string url = named_by(item.source.url, name);
      item.urls[name] = url;
      if (!settings_.tars) continue;
      auto tar = std::make_unique<Item>();
      tar->source = is_local(url) ? local_file(url) : SourceFile{url, std::nullopt, "", false};
      tar->name = store_.claim(url, ".tar");
      const std::lock_guard guard(mutex_);
      if (!tars_.try_emplace(url, tar.get()).second) continue;  // is on its way already
      queue_.push_back(tar.get());
      named_.push_back(std::move(tar));
      ++all_;
      changed_.notify_all();
    } catch (const DataError& error) {
      failed(name, error.what());
    }
  }
}

void FetchJob::settle(const NetError& error, const std::string& url) {
  using Kind = NetError::Kind;
  if (error.kind() == Kind::kCancelled) {
    if (!halt_) halt_ = true;
    return;
  }
  failed(url, error.what());
  const bool unreachable =
      error.kind() == Kind::kHost || error.kind() == Kind::kConnection || error.kind() == Kind::kTimeout;
  const std::lock_guard guard(mutex_);
  unreachable_ = unreachable ? unreachable_ + 1 : 0;
  if (unreachable_ < kMostUnreachable) return;
  fail("the servers can't be reached: ", kMostUnreachable, " files failed one after the other, the last with ",
       error.what(), "; what came is kept, and a later call goes on");
}

void FetchJob::failed(const std::string& url, const std::string& cause) {
  log_warning("failed: ", cause);
  const std::lock_guard guard(mutex_);
  failures_.emplace_back(url, cause);
}

// ---- lists ----

std::string FetchJob::own_name(const char* stem) const {
  return settings_.workers == 1 ? concat(stem, ".tsv") : concat(stem, '.', settings_.worker, ".tsv");
}

bool FetchJob::write_shard(Item& item, std::vector<std::string>& index) {
  const auto local_name = [&](const std::string& name) -> std::string {
    const auto url = item.urls.find(name);
    if (url == item.urls.end()) return "";
    if (!settings_.tars) return url->second;
    const auto tar = tars_.find(url->second);
    return tar != tars_.end() && tar->second->ok ? tar->second->name : "";
  };
  const RewrittenList written =
      rewrite_list(store_.list(item.name), store_.output(item.name), shown_url(item.source.url), local_name);
  result_.rows += written.rows;
  result_.bad_rows += written.bad_rows;
  if (written.bad_rows > 0) {
    log_warning(shown_url(item.source.url), ": ", written.bad_rows, " of ", written.rows + written.bad_rows,
                " rows are left out: bad lines, or their tar did not come");
  }
  if (written.rows > 0) index.push_back(item.name);
  return written.rows > 0;
}

void FetchJob::write_lists() {
  std::vector<std::string> index;
  for (const auto& item : items_) {
    if (!item->ok) continue;
    if (!item->is_list) {
      index.push_back(item->name);
    } else if (!write_shard(*item, index)) {
      failed(item->source.url, concat(shown_url(item->source.url), ": no row can be used"));
    }
  }
  if (index.empty()) return;
  std::string text = "filename\n";
  for (const std::string& name : index) text += tsv_field(name) + '\n';
  result_.index = settings_.folder / own_name("index");
  result_.shards = index.size();
  write_file(result_.index, text);
}

void FetchJob::write_failures() {
  const fs::path file = settings_.folder / own_name("failures");
  result_.failed = failures_.size();
  if (failures_.empty()) {
    std::error_code code;
    fs::remove(file, code);
    return;
  }
  std::string text = "url\tcause\n";
  for (const auto& [url, cause] : failures_) text += tsv_field(url) + '\t' + tsv_field(cause) + '\n';
  write_file(file, text);
  result_.failures = file;
}

FetchResult FetchJob::run() {
  try {
    const Watch watch(stop_, halt_);
    plan();
    check_space();
  } catch (const NetError& error) {
    if (error.kind() != NetError::Kind::kCancelled) throw;
    result_.stopped = true;
    return result_;
  }
  transfer();
  result_.stopped = stop_;
  if (result_.stopped) return result_;
  write_lists();
  write_failures();
  return result_;
}

}  // namespace
}  // namespace ingest

FetchResult fetch_dataset(const FetchSettings& settings, const std::atomic<bool>& stop, bool progress) {
  if (settings.sources.empty()) fail<ConfigError>("there is nothing to fetch");
  if (settings.workers < 1 || settings.worker < 0 || settings.worker >= settings.workers) {
    fail<ConfigError>("worker ", settings.worker, " of ", settings.workers, ": they count from 0");
  }
  if (settings.parallel < 1) fail<ConfigError>("at least one transfer at a time is needed");
  return ingest::FetchJob(settings, stop, progress).run();
}

}  // namespace mdm
