#include "mdm/net/http_pool.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <deque>
#include <queue>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "net/policy.h"
#include "net/transfer.h"

namespace mdm {
namespace {

using Clock = std::chrono::steady_clock;  // what sets the machine's time has no hold on it
using net::Answer;
using net::Transfer;

Clock::time_point after(double seconds) {
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

struct HttpPool::Impl {
  struct Job;

  // Who asks the same server; `line` has those that wait for a place.
  struct Host {
    std::deque<Job*> line;
    int64_t active = 0;
    Clock::time_point not_before{};
    bool listed = false;  // in Impl::ready, or resting until not_before
    std::string origin;
  };

  struct Job {
    uint64_t id = 0;
    std::string first_url, url;
    int64_t tries = 0;  // begun
    int64_t redirects = 0;
    double pause = 0;
    Host* host = nullptr;
    std::unique_ptr<Transfer> transfer;  // while it has a place
    net::Request request;
    HttpResponse response;
  };

  explicit Impl(HttpPoolOptions settings) : options(std::move(settings)) {
    transfers.push_back(std::make_unique<Transfer>());  // starts libcurl
    multi.reset(curl_multi_init());
    poll = ::epoll_create1(EPOLL_CLOEXEC);
    waker = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!multi || poll < 0 || waker < 0) fail("transfers can't be started: ", std::generic_category().message(errno));
    watch(EPOLL_CTL_ADD, waker, EPOLLIN);
    curl_multi_setopt(multi.get(), CURLMOPT_SOCKETFUNCTION, &Impl::on_socket);
    curl_multi_setopt(multi.get(), CURLMOPT_SOCKETDATA, this);
    curl_multi_setopt(multi.get(), CURLMOPT_TIMERFUNCTION, &Impl::on_timer);
    curl_multi_setopt(multi.get(), CURLMOPT_TIMERDATA, this);
    curl_multi_setopt(multi.get(), CURLMOPT_MAXCONNECTS, static_cast<long>(options.transfers + 64));
  }

  ~Impl() {
    for (auto& [id, job] : jobs) {
      if (job->transfer) curl_multi_remove_handle(multi.get(), job->transfer->handle());
    }
    jobs.clear();
    transfers.clear();
    multi.reset();
    if (poll >= 0) ::close(poll);
    if (waker >= 0) ::close(waker);
  }

  // ---- what libcurl asks for ----

  void watch(int how, int socket, uint32_t events) const {
    epoll_event event{};
    event.events = events;
    event.data.fd = socket;
    ::epoll_ctl(poll, how, socket, &event);
  }

  static int on_socket(CURL*, curl_socket_t socket, int what, void* user, void* known) {
    const auto& self = *static_cast<Impl*>(user);
    if (what == CURL_POLL_REMOVE) {
      self.watch(EPOLL_CTL_DEL, socket, 0);
      return 0;
    }
    const uint32_t events = ((what & CURL_POLL_IN) != 0 ? EPOLLIN : 0U) | ((what & CURL_POLL_OUT) != 0 ? EPOLLOUT : 0U);
    self.watch(known == nullptr ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, socket, events);
    if (known == nullptr) curl_multi_assign(self.multi.get(), socket, user);
    return 0;
  }

  static int on_timer(CURLM*, long milliseconds, void* user) {
    auto& self = *static_cast<Impl*>(user);
    self.has_timer = milliseconds >= 0;
    self.timer = Clock::now() + std::chrono::milliseconds(std::max(milliseconds, 0L));
    return 0;
  }

  // ---- from the line to a place ----

  void list(Host& host) {
    if (host.listed || host.line.empty() || host.active >= options.transfers_per_host) return;
    host.listed = true;
    ready.push_back(&host);
  }

  // In line for the server that its URL names now.
  void enqueue(Job& job, bool in_front = false) {
    const std::string origin = net::origin(job.url);
    job.host = &hosts[origin];
    job.host->origin = origin;
    if (in_front) {
      job.host->line.push_front(&job);
    } else {
      job.host->line.push_back(&job);
    }
    list(*job.host);
  }

  void start_ready() {
    while (!held && active < options.transfers && !ready.empty()) {
      Host& host = *ready.front();
      ready.pop_front();
      host.listed = false;
      if (host.not_before > Clock::now()) {
        resting_hosts.push({host.not_before, &host});
        host.listed = true;  // nobody lists it meanwhile
        continue;
      }
      Job& job = *host.line.front();
      host.line.pop_front();
      ++host.active;
      start(job);
      list(host);
    }
  }

  void start(Job& job) {
    ++active;
    if (transfers.empty()) transfers.push_back(std::make_unique<Transfer>());
    job.transfer = std::move(transfers.back());
    transfers.pop_back();
    job.response = {};
    job.response.url = job.url;
    job.request = {};
    job.request.url = job.url;
    if (net::same_origin(job.first_url, job.url)) {
      for (const auto& [name, value] : options.http.headers) job.request.headers.push_back(name + ": " + value);
    }
    job.request.on_answer = [this, &job](const Answer& answer) {
      net::describe(answer, job.response);
      if (options.on_answer) options.on_answer(job.response);
      constexpr uint64_t kMostReserved = uint64_t{4} << 20;
      if (answer.content_length) job.response.body.reserve(std::min(*answer.content_length, kMostReserved));
    };
    job.request.on_body = [this, &job](const char* bytes, size_t count) { return take(job, bytes, count); };
    job.transfer->begin(job.request, options.http);
    CURL* handle = job.transfer->handle();
    curl_easy_setopt(handle, CURLOPT_PRIVATE, &job);
    curl_easy_setopt(handle, CURLOPT_QUICK_EXIT, 1L);  // who gives up doesn't wait for the name's resolution
    curl_multi_add_handle(multi.get(), handle);
  }

  bool take(Job& job, const char* bytes, size_t count) {
    if (body_bytes + count > options.most_body_bytes && favoured != &job) {
      if (favoured != nullptr) {
        resting.push_back(&job);
        return false;
      }
      favoured = &job;  // one always goes on, so that there is an end
    }
    job.response.body.append(bytes, count);
    body_bytes += count;
    received += count;
    return true;
  }

  void wake_resting() {
    if (body_bytes >= options.most_body_bytes && favoured != nullptr) return;
    for (Job* job : std::exchange(resting, {})) {
      curl_easy_pause(job->transfer->handle(), CURLPAUSE_CONT);  // calls take(), which may let it rest again
    }
  }

  // ---- what came of it ----

  void release(Job& job) {
    --active;
    --job.host->active;
    body_bytes -= job.response.body.size();
    if (favoured == &job) favoured = nullptr;
    resting.erase(std::remove(resting.begin(), resting.end(), &job), resting.end());
    curl_multi_remove_handle(multi.get(), job.transfer->handle());
  }

  void done(Job& job, CURLcode code) {
    Host& host = *job.host;
    release(job);
    std::unique_ptr<Transfer> transfer = std::move(job.transfer);
    double asked = 0;
    try {
      const Answer answer = transfer->end(code);
      if (net::is_redirect(answer)) {
        redirect(job, answer);
      } else {
        asked = answer.retry_after;
        net::describe(answer, job.response);
        if (answer.status < 200 || answer.status >= 300) {
          throw NetError(NetError::Kind::kStatus,
                         concat(shown_url(job.first_url), ": the server answers ", answer.status), answer.status);
        }
        hand_out(job, nullptr);
      }
    } catch (const NetError& error) {
      if (asked > 0) host.not_before = std::max(host.not_before, after(std::min(asked, net::kLongestWait)));
      if (net::may_pass(error) && job.tries < std::max<int64_t>(options.http.tries, 1)) {
        again(job, asked);
      } else {
        hand_out(job, std::current_exception());
      }
    } catch (...) {
      hand_out(job, std::current_exception());
    }
    transfers.push_back(std::move(transfer));
    list(host);
    // A list may name a million servers: those that nobody asks are forgotten.
    if (!host.listed && host.active == 0 && host.line.empty() && host.not_before <= Clock::now()) {
      hosts.erase(std::string(host.origin));
    }
  }

  void redirect(Job& job, const Answer& answer) {
    if (job.redirects == options.http.max_redirects) {
      throw NetError(NetError::Kind::kRedirect,
                     concat(shown_url(job.first_url), ": more than ", options.http.max_redirects, " redirects"));
    }
    ++job.redirects;
    job.url = net::redirected(job.url, answer.location);
    enqueue(job, /*in_front=*/true);
  }

  void again(Job& job, double asked) {
    ++job.tries;
    job.redirects = 0;
    job.url = job.first_url;
    resting_jobs.push({after(net::wait_before_retry(job.pause, asked)), job.id});
    job.pause *= 2;
  }

  void hand_out(Job& job, std::exception_ptr error) {
    Finished result;
    result.id = job.id;
    result.tries = job.tries;
    result.error = std::move(error);
    if (!result.error) {
      job.response.total_bytes = job.response.body.size();
      result.response = std::move(job.response);
    }
    finished.push_back(std::move(result));
    jobs.erase(job.id);
  }

  // ---- the loop ----

  void wake_timed() {
    const auto now = Clock::now();
    while (!resting_hosts.empty() && resting_hosts.top().first <= now) {
      Host& host = *resting_hosts.top().second;
      resting_hosts.pop();
      host.listed = false;
      list(host);
    }
    while (!resting_jobs.empty() && resting_jobs.top().first <= now) {
      const auto found = jobs.find(resting_jobs.top().second);
      resting_jobs.pop();
      if (found != jobs.end()) enqueue(*found->second);
    }
  }

  Clock::time_point next_event(Clock::time_point end) const {
    if (has_timer) end = std::min(end, timer);
    if (!resting_hosts.empty()) end = std::min(end, resting_hosts.top().first);
    if (!resting_jobs.empty()) end = std::min(end, resting_jobs.top().first);
    return end;
  }

  void turn(Clock::time_point end) {
    constexpr int kMostEvents = 256;
    epoll_event events[kMostEvents];
    const double left = std::chrono::duration<double>(next_event(end) - Clock::now()).count();
    const int milliseconds = static_cast<int>(std::ceil(std::clamp(left, 0.0, 60.0) * 1000));
    const int count = ::epoll_wait(poll, events, kMostEvents, milliseconds);
    int running = 0;
    for (int i = 0; i < count; ++i) {
      if (events[i].data.fd == waker) {
        uint64_t value = 0;
        woken = ::read(waker, &value, sizeof value) > 0 || woken;
        continue;
      }
      const bool broken = (events[i].events & (EPOLLERR | EPOLLHUP)) != 0;
      const int mask = ((events[i].events & EPOLLIN) != 0 ? CURL_CSELECT_IN : 0) |
                       ((events[i].events & EPOLLOUT) != 0 ? CURL_CSELECT_OUT : 0) | (broken ? CURL_CSELECT_ERR : 0);
      curl_multi_socket_action(multi.get(), events[i].data.fd, mask, &running);
    }
    if (has_timer && timer <= Clock::now()) {
      has_timer = false;
      curl_multi_socket_action(multi.get(), CURL_SOCKET_TIMEOUT, 0, &running);
    }
    int left_over = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi.get(), &left_over)) {
      if (message->msg != CURLMSG_DONE) continue;
      char* job = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &job);
      done(*reinterpret_cast<Job*>(job), message->data.result);
    }
    wake_resting();
  }

  struct Closer {
    void operator()(CURLM* handle) const { curl_multi_cleanup(handle); }
  };
  template <typename What>
  using Timed = std::pair<Clock::time_point, What>;
  template <typename What>
  using Agenda = std::priority_queue<Timed<What>, std::vector<Timed<What>>, std::greater<>>;

  HttpPoolOptions options;
  std::unique_ptr<CURLM, Closer> multi;
  int poll = -1, waker = -1;
  bool has_timer = false, woken = false, held = false;
  Clock::time_point timer{};
  std::unordered_map<uint64_t, std::unique_ptr<Job>> jobs;
  std::unordered_map<std::string, Host> hosts;
  std::deque<Host*> ready;
  Agenda<Host*> resting_hosts;
  Agenda<uint64_t> resting_jobs;                     // by id
  std::vector<std::unique_ptr<Transfer>> transfers;  // without work
  std::vector<Finished> finished;
  int64_t active = 0;
  uint64_t body_bytes = 0, received = 0;
  Job* favoured = nullptr;
  std::vector<Job*> resting;  // until there is room for their bodies
};

HttpPool::HttpPool(HttpPoolOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
HttpPool::~HttpPool() = default;

void HttpPool::add(uint64_t id, const std::string& url) {
  auto job = std::make_unique<Impl::Job>();
  job->id = id;
  try {
    job->first_url = job->url = net::checked_url(url);
  } catch (const NetError&) {
    Finished result;
    result.id = id;
    result.error = std::current_exception();
    impl_->finished.push_back(std::move(result));
    return;
  }
  job->tries = 1;
  job->pause = impl_->options.http.first_wait_seconds;
  Impl::Job& kept = *job;
  if (!impl_->jobs.emplace(id, std::move(job)).second) fail("a request with the number ", id, " is on its way already");
  impl_->enqueue(kept);
}

size_t HttpPool::unfinished() const { return impl_->jobs.size() + impl_->finished.size(); }

std::vector<HttpPool::Finished> HttpPool::wait(double seconds) {
  const auto end = after(std::max(seconds, 0.0));
  impl_->woken = false;
  do {
    impl_->wake_timed();
    impl_->start_ready();
    if (!impl_->finished.empty()) break;
    impl_->turn(end);
  } while (impl_->finished.empty() && !impl_->woken && Clock::now() < end);
  impl_->start_ready();
  return std::exchange(impl_->finished, {});
}

void HttpPool::wake() {
  const uint64_t one = 1;
  // The only failure is a counter that is full, and then the thread wakes anyway.
  if (::write(impl_->waker, &one, sizeof one) < 0) return;
}

void HttpPool::hold(bool held) { impl_->held = held; }
uint64_t HttpPool::bytes_received() const { return impl_->received; }

}  // namespace mdm
