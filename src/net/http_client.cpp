// GET with redirects and retries, into memory and into files.
#include "mdm/net/http_client.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>

#include "mdm/core/files.h"
#include "mdm/core/log.h"
#include "net/policy.h"
#include "net/transfer.h"

namespace mdm {
namespace {

using net::Answer;
using net::Request;
using net::Transfer;

constexpr int kPartial = 206, kRangeRefused = 416;

[[noreturn]] void wrong(NetError::Kind kind, const std::string& url, const std::string& text, int status = 0) {
  throw NetError(kind, concat(shown_url(url), ": ", text), status);
}

// Parts of "bytes 10-19/200" (RFC 9110, 14.4); false for anything else.
struct ContentRange {
  uint64_t first = 0, last = 0;
  std::optional<uint64_t> total;
};
bool parse_content_range(const std::string& text, ContentRange& range) {
  unsigned long long first = 0, last = 0, total = 0;
  char end = 0;
  if (text.size() > 80) return false;
  const bool whole = std::sscanf(text.c_str(), "bytes %18llu-%18llu/%18llu%c", &first, &last, &total, &end) == 3;
  const bool open = !whole && std::sscanf(text.c_str(), "bytes %18llu-%18llu/%c%c", &first, &last, &end, &end) == 3 &&
                    text.back() == '*';
  if ((!whole && !open) || last < first || (whole && last >= total)) return false;
  range = {first, last, whole ? std::optional<uint64_t>(total) : std::nullopt};
  return true;
}

// A file that a transfer writes, and what it is a part of, in `<target>.part` and `<target>.part.json`. The lock
// goes with the file: two processes never write the same one.
class PartFile {
 public:
  explicit PartFile(const std::filesystem::path& target)
      : target_(target), path_(target.string() + ".part"), note_(target.string() + ".part.json") {
    while (!open_locked()) {
    }
  }
  ~PartFile() { ::close(descriptor_); }
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  // What is there of `url`: bytes to go on from, and the validator that says it is still the same.
  uint64_t known(const std::string& url, std::string& validator) {
    const off_t end = ::lseek(descriptor_, 0, SEEK_END);
    if (end <= 0) return 0;
    nlohmann::json note;
    try {
      note = nlohmann::json::parse(read_text_file(note_, size_t{64} << 10), nullptr, /*allow_exceptions=*/false);
    } catch (const Error&) {
      return 0;  // absent or unreadable: nothing is known about these bytes
    }
    if (!note.is_object() || note.value("url", "") != url) return 0;
    validator = note.value("validator", "");
    return validator.empty() ? 0 : static_cast<uint64_t>(end);
  }

  // From here on the file holds the answer's resource, from its first byte or (`offset`) going on.
  void begin(const std::string& url, const std::string& validator, uint64_t offset) {
    if (::ftruncate(descriptor_, static_cast<off_t>(offset)) != 0) broken("can't be cut");
    size_ = offset;
    if (offset > 0) return;
    const nlohmann::json note = {{"url", url}, {"validator", validator}};
    write_file(note_, note.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }

  void write(const char* bytes, size_t count) {
    if (!write_at(descriptor_, bytes, count, size_)) broken("can't be written");
    size_ += static_cast<uint64_t>(count);
  }

  uint64_t size() const { return size_; }

  void finish() {
    if (::fsync(descriptor_) != 0) broken("can't be written");
    std::error_code code;
    std::filesystem::rename(path_, target_, code);
    if (code) fail(printable(target_.string(), 1000), ": can't be put in place: ", code.message());
    std::filesystem::remove(note_, code);
    if (const int reason = flush_folder(target_.parent_path())) {
      log_warning(printable(target_.string(), 1000),
                  ": its folder can't be flushed to disk: ", std::generic_category().message(reason));
    }
  }

 private:
  // False when the file has lost its name before the lock was there: its writer has finished it under the target's.
  bool open_locked() {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (descriptor_ < 0) broken("can't be made");
    const int code = lock_file(descriptor_);
    struct stat opened {};
    struct stat named {};
    const bool in_place = ::fstat(descriptor_, &opened) == 0 && ::stat(path_.c_str(), &named) == 0 &&
                          opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
    const bool free = code == 0 || code == ENOTSUP;  // without locks nothing can be known of others
    if (free && in_place) return true;
    ::close(descriptor_);
    if (free) return false;
    if (code == EWOULDBLOCK) fail(shown(), ": another process is writing it");
    errno = code;
    broken("can't be locked");
  }

  std::string shown() const { return printable(path_.string(), 1000); }
  [[noreturn]] void broken(const char* what) const {
    fail(shown(), ": ", what, ": ", std::generic_category().message(errno));
  }

  std::filesystem::path target_, path_, note_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

// What If-Range takes: a strong ETag, else the date.
std::string validator_of(const Answer& answer) {
  const bool strong = answer.etag.size() > 2 && answer.etag[0] == '"';
  const std::string& text = strong ? answer.etag : answer.last_modified;
  const bool plain = std::all_of(text.begin(), text.end(), [](unsigned char c) { return c >= 0x20 && c < 0x7F; });
  return plain && text.size() < 1000 ? text : std::string();
}

}  // namespace

struct HttpClient::Impl {
  explicit Impl(HttpOptions settings) : options(std::move(settings)) {}

  HttpOptions options;
  Transfer transfer;

  bool cancelled() const { return options.cancel != nullptr && options.cancel->load(); }

  // One try through all redirects. `url` becomes the last one.
  Answer follow(Request request, std::string& url, const HttpOptions& limits) {
    const std::string first = url;
    const std::vector<std::string> own = request.headers;
    for (int64_t hop = 0;; ++hop) {
      request.url = url;
      request.headers = own;
      if (net::same_origin(first, url)) {
        for (const auto& [name, value] : options.headers) request.headers.push_back(name + ": " + value);
      }
      const Answer answer = transfer.run(request, limits);
      if (!net::is_redirect(answer)) return answer;
      if (hop == options.max_redirects) {
        wrong(NetError::Kind::kRedirect, first, concat("more than ", options.max_redirects, " redirects"));
      }
      url = net::redirected(url, answer.location);
    }
  }

  void wait(double seconds, const std::string& url) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (std::chrono::steady_clock::now() < end) {
      if (cancelled()) wrong(NetError::Kind::kCancelled, url, "cancelled");
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }

  // Runs `once` until it succeeds or there is no use in trying again. `once` gives how long the server asked to
  // wait, in case it throws.
  template <typename Once>
  void with_retries(const std::string& url, const Once& once) const {
    double pause = options.first_wait_seconds;
    for (int64_t left = std::max<int64_t>(options.tries, 1) - 1;; --left) {
      double asked = 0;
      try {
        if (cancelled()) wrong(NetError::Kind::kCancelled, url, "cancelled");
        return once(asked);
      } catch (const NetError& error) {
        if (left == 0 || !net::may_pass(error)) throw;
        log_info(error.what(), "; trying again");
      }
      wait(net::wait_before_retry(pause, asked), url);
      pause *= 2;
    }
  }

  void check_status(const Answer& answer, const std::string& url, double& asked) const {
    if (answer.status >= 200 && answer.status < 300) return;
    asked = answer.retry_after;
    wrong(NetError::Kind::kStatus, url, concat("the server answers ", answer.status), answer.status);
  }
};

HttpClient::HttpClient(HttpOptions options) : impl_(new Impl(std::move(options))) {}
HttpClient::~HttpClient() = default;
HttpClient::HttpClient(HttpClient&&) noexcept = default;
HttpClient& HttpClient::operator=(HttpClient&&) noexcept = default;
const HttpOptions& HttpClient::options() const { return impl_->options; }

HttpResponse HttpClient::get(const std::string& url, const std::optional<HttpRange>& range) {
  if (range && (range->count == 0 || range->first > UINT64_MAX - range->count)) {
    wrong(NetError::Kind::kSize, url, "an empty range");
  }
  const std::string start = net::checked_url(url);
  HttpResponse response;
  impl_->with_retries(url, [&](double& asked) {
    response = {};
    response.url = start;
    uint64_t expected = 0;
    Request request;
    if (range) request.headers.push_back(concat("Range: bytes=", range->first, "-", range->first + range->count - 1));
    request.on_answer = [&](const Answer& answer) {
      if (!range) return;
      ContentRange got;
      const bool fits = answer.status == kPartial && parse_content_range(answer.content_range, got) &&
                        got.first == range->first && got.last - got.first < range->count;
      if (!fits) {
        wrong(NetError::Kind::kStatus, url,
              answer.status == kPartial ? "the server sends another part than was asked for"
                                        : "the server does not send parts of files",
              answer.status);
      }
      const bool whole = got.last - got.first + 1 == range->count || (got.total && got.last + 1 == *got.total);
      if (!whole) wrong(NetError::Kind::kSize, url, "the server sends less than was asked for");
      expected = got.last - got.first + 1;
      response.total_bytes = got.total;
    };
    request.on_body = [&](const char* bytes, size_t count) {
      response.body.append(bytes, count);
      return true;
    };
    const Answer answer = impl_->follow(request, response.url, impl_->options);
    impl_->check_status(answer, url, asked);
    if (range && response.body.size() != expected) {
      wrong(NetError::Kind::kConnection, url, concat(response.body.size(), " bytes came of ", expected));
    }
    if (!range) response.total_bytes = response.body.size();
    response.status = answer.status;
    response.etag = answer.etag;
    response.last_modified = answer.last_modified;
    response.content_type = answer.content_type;
  });
  return response;
}

HttpResponse HttpClient::download(const std::string& url, const std::filesystem::path& target) {
  const std::string start = net::checked_url(url);
  PartFile part(target);
  HttpResponse response;
  impl_->with_retries(url, [&](double& asked) {
    response = {};
    response.url = start;
    std::string validator;
    const uint64_t offset = part.known(start, validator);
    Request request;
    if (offset > 0) {
      request.headers = {concat("Range: bytes=", offset, "-"), concat("If-Range: ", validator)};
    }
    std::optional<uint64_t> total;
    request.on_answer = [&](const Answer& answer) {
      ContentRange got;
      const bool resumed = answer.status == kPartial;
      if (resumed && (!parse_content_range(answer.content_range, got) || got.first != offset ||
                      (validator_of(answer) != validator && !validator_of(answer).empty()))) {
        part.begin(start, "", 0);  // what comes belongs to something else; the next try begins anew
        wrong(NetError::Kind::kConnection, url, "the server sends another part than was asked for");
      }
      total = resumed ? got.total : answer.content_length;
      if (total && *total > static_cast<uint64_t>(impl_->options.max_bytes)) {
        wrong(NetError::Kind::kSize, url,
              concat(*total, " bytes, more than the ", impl_->options.max_bytes, " that are allowed"));
      }
      part.begin(start, resumed ? validator : validator_of(answer), resumed ? offset : 0);
    };
    request.on_body = [&](const char* bytes, size_t count) {
      part.write(bytes, count);
      if (impl_->options.progress) impl_->options.progress(part.size(), total);
      if (part.size() > static_cast<uint64_t>(impl_->options.max_bytes)) {
        wrong(NetError::Kind::kSize, url,
              concat("more than the ", impl_->options.max_bytes, " bytes that are allowed"));
      }
      return true;
    };
    const Answer answer = impl_->follow(request, response.url, impl_->options);
    if (answer.status == kRangeRefused && offset > 0) {
      part.begin(start, "", 0);
      wrong(NetError::Kind::kConnection, url, "the file is another one than a moment ago");
    }
    impl_->check_status(answer, url, asked);
    if (total && part.size() != *total) {
      wrong(NetError::Kind::kConnection, url, concat(part.size(), " bytes came of ", *total));
    }
    response.status = answer.status;
    response.etag = answer.etag;
    response.last_modified = answer.last_modified;
    response.content_type = answer.content_type;
    response.total_bytes = part.size();
  });
  part.finish();
  return response;
}

}  // namespace mdm
