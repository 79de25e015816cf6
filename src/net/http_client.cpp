// GET with redirects and retries, into memory and into files.
#include "mdm/net/http_client.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <thread>

#include "mdm/core/digest.h"
#include "mdm/core/log.h"
#include "net/part_file.h"
#include "net/policy.h"
#include "net/s3_session.h"
#include "net/s3_xml.h"
#include "net/transfer.h"

namespace mdm {
namespace {

using net::Answer;
using net::PartFile;
using net::Request;
using net::S3Target;
using net::Transfer;

constexpr int kPartial = 206, kPreconditionFailed = 412, kRangeRefused = 416;
constexpr int kMostEmptyPages = 1000;  // of a listing, one after the other

constexpr char kOtherBytes[] = "what came has another MD5 than the object's ETag says";

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
  std::unique_ptr<net::S3Session> s3_session;

  net::S3Session& s3() {
    if (!s3_session) {
      if (!options.s3) {
        options.s3 = std::make_shared<const S3Options>(S3Options::from_environment(options.s3_endpoint));
      }
      s3_session = std::make_unique<net::S3Session>(options.s3);
    }
    return *s3_session;
  }

  // The URL in the spelling that requests and notes use.
  static std::string checked(const std::string& url) {
    if (!is_s3_url(url)) return net::checked_url(url);
    if (parse_s3_url(url).key.empty()) wrong(NetError::Kind::kUrl, url, "names no object");
    return url;
  }

  bool cancelled() const { return options.cancel != nullptr && options.cancel->load(); }

  // One try through all redirects. `url` becomes the last one.
  Answer follow(Request request, std::string& url, const HttpOptions& limits) {
    if (is_s3_url(url)) return s3().follow(transfer, request, {parse_s3_url(url), {}}, limits);
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

  void check_status(const Answer& answer, const std::string& url, double& asked) {
    if (answer.status >= 200 && answer.status < 300) return;
    asked = answer.retry_after;
    if (is_s3_url(url)) throw s3().refusal(answer, shown_url(url));
    wrong(NetError::Kind::kStatus, url, concat("the server answers ", answer.status), answer.status);
  }

  void count(size_t bytes) const {
    if (options.on_bytes) options.on_bytes(bytes);
  }

  void describe(HttpResponse& response, const Answer& answer, const std::string& url) const {
    response.status = answer.status;
    response.etag = answer.etag;
    response.last_modified = answer.last_modified;
    response.content_type = answer.content_type;
    if (is_s3_url(url)) response.md5 = net::md5_of(answer);
  }

  // The headers that let a transfer go on at `offset` of the same resource only. S3 promises nothing about If-Range.
  static std::vector<std::string> going_on(const std::string& url, uint64_t offset, const std::string& validator) {
    const bool dated = validator.empty() || validator[0] != '"';
    const char* condition = !is_s3_url(url) ? "If-Range: " : dated ? "If-Unmodified-Since: " : "If-Match: ";
    return {concat("Range: bytes=", offset, "-"), condition + validator};
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
  const std::string start = Impl::checked(url);
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
      impl_->count(count);
      return true;
    };
    const Answer answer = impl_->follow(request, response.url, impl_->options);
    impl_->check_status(answer, url, asked);
    if (range && response.body.size() != expected) {
      wrong(NetError::Kind::kConnection, url, concat(response.body.size(), " bytes came of ", expected));
    }
    impl_->describe(response, answer, url);
    if (range) return;
    response.total_bytes = response.body.size();
    if (response.md5.empty()) return;
    Digest digest(Digest::Kind::kMd5);
    digest.add(response.body);
    if (digest.finish_hex() != response.md5) wrong(NetError::Kind::kChecksum, url, kOtherBytes);
  });
  return response;
}

HttpResponse HttpClient::download(const std::string& url, const std::filesystem::path& target) {
  const std::string start = Impl::checked(url);
  PartFile part(target);
  HttpResponse response;
  impl_->with_retries(url, [&](double& asked) {
    response = {};
    response.url = start;
    std::string validator;
    const uint64_t offset = part.known(start, validator);
    Request request;
    if (offset > 0) request.headers = Impl::going_on(start, offset, validator);
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
      impl_->count(count);
      if (impl_->options.progress) impl_->options.progress(part.size(), total);
      if (part.size() > static_cast<uint64_t>(impl_->options.max_bytes)) {
        wrong(NetError::Kind::kSize, url,
              concat("more than the ", impl_->options.max_bytes, " bytes that are allowed"));
      }
      return true;
    };
    const Answer answer = impl_->follow(request, response.url, impl_->options);
    if ((answer.status == kRangeRefused || answer.status == kPreconditionFailed) && offset > 0) {
      part.begin(start, "", 0);
      wrong(NetError::Kind::kConnection, url, "the file is another one than a moment ago");
    }
    impl_->check_status(answer, url, asked);
    if (total && part.size() != *total) {
      wrong(NetError::Kind::kConnection, url, concat(part.size(), " bytes came of ", *total));
    }
    impl_->describe(response, answer, url);
    response.total_bytes = part.size();
    if (!response.md5.empty() && digest_file(part.path(), Digest::Kind::kMd5).hex != response.md5) {
      part.begin(start, "", 0);
      wrong(NetError::Kind::kChecksum, url, kOtherBytes);
    }
  });
  part.finish();
  return response;
}

void HttpClient::list(const std::string& url, const std::function<bool(const S3Object&)>& visit) {
  const S3Location place = parse_s3_url(url);
  HttpOptions limits = impl_->options;
  limits.max_bytes = net::kMostPageBytes;
  std::string token;
  for (int empty_pages = 0; empty_pages < kMostEmptyPages;) {
    S3Target target{{place.bucket, ""}, {{"list-type", "2"}, {"encoding-type", "url"}, {"prefix", place.key}}};
    if (!token.empty()) target.query.emplace_back("continuation-token", token);
    std::string xml;
    impl_->with_retries(url, [&](double& asked) {
      xml.clear();
      Request request;
      request.on_body = [&](const char* bytes, size_t count) {
        xml.append(bytes, count);
        return true;
      };
      const Answer answer = impl_->s3().follow(impl_->transfer, request, target, limits);
      impl_->check_status(answer, url, asked);
    });
    const net::S3Page page = net::parse_s3_page(xml, shown_url(url));
    for (const S3Object& object : page.objects) {
      if (object.key.compare(0, place.key.size(), place.key) != 0) {
        wrong(NetError::Kind::kProtocol, url, "the server lists objects that were not asked for");
      }
      if (!visit(object)) return;
    }
    if (page.next.empty()) return;
    if (page.next == token) break;
    token = page.next;
    empty_pages = page.objects.empty() ? empty_pages + 1 : 0;
  }
  wrong(NetError::Kind::kProtocol, url, "the server's listing has no end");
}

}  // namespace mdm
