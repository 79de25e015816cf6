#include "net/transfer.h"

#include <strings.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <mutex>

#include "mdm/core/version.h"
#include "net/address.h"

namespace mdm::net {

// What the callbacks of one transfer share. Exceptions don't cross libcurl: they wait in `thrown`.
struct TransferState {
  const Request* request = nullptr;
  const HttpOptions* options = nullptr;
  Answer answer;
  size_t header_bytes = 0;
  uint64_t body_bytes = 0;
  bool answered = false;
  bool refused_address = false;
  std::exception_ptr thrown;
  std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers{nullptr, &curl_slist_free_all};
  std::unique_ptr<curl_slist, void (*)(curl_slist*)> resolve{nullptr, &curl_slist_free_all};
  char reason[CURL_ERROR_SIZE] = "";

  bool success() const { return answer.status >= 200 && answer.status < 300; }
};

namespace {

using State = TransferState;

constexpr size_t kMostHeaderBytes = size_t{256} << 10;
constexpr size_t kMostRefusedBody = size_t{256} << 10;  // read of an error page, so that the connection can be kept
constexpr size_t kMostKeptRefusal = size_t{16} << 10;   // of it, kept

void start_curl() {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

bool same_word(std::string_view a, std::string_view b) {
  return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

void take_header(Answer& answer, std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return;
  const auto name = trimmed(line.substr(0, colon));
  const std::string value(trimmed(line.substr(colon + 1)));
  if (same_word(name, "location")) answer.location = value;
  if (same_word(name, "etag")) answer.etag = value;
  if (same_word(name, "last-modified")) answer.last_modified = value;
  if (same_word(name, "content-type")) answer.content_type = value;
  if (same_word(name, "content-range")) answer.content_range = value;
  if (same_word(name, "x-robots-tag")) answer.robots.push_back(value);
  if (same_word(name, "x-amz-bucket-region")) answer.region = value;
  const bool by_service = same_word(name, "x-amz-server-side-encryption") && same_word(value.substr(0, 7), "aws:kms");
  if (by_service || same_word(name, "x-amz-server-side-encryption-customer-algorithm")) answer.own_keys = true;
  if (same_word(name, "content-length") && !value.empty() &&
      value.find_first_not_of("0123456789") == std::string::npos && value.size() < 19) {
    answer.content_length = std::strtoull(value.c_str(), nullptr, 10);
  }
  if (same_word(name, "retry-after") && !value.empty() && value.find_first_not_of("0123456789") == std::string::npos &&
      value.size() < 9) {
    answer.retry_after = std::strtod(value.c_str(), nullptr);
  }
}

size_t on_header(char* bytes, size_t, size_t count, void* user) {
  auto& state = *static_cast<State*>(user);
  const std::string_view line(bytes, count);
  state.header_bytes += count;
  if (state.header_bytes > kMostHeaderBytes) return 0;
  if (line.substr(0, 5) == "HTTP/") {  // also after "100 Continue"
    state.answer = {};
    const size_t space = line.find(' ');
    if (space != std::string_view::npos)
      state.answer.status = std::atoi(std::string(line.substr(space + 1, 3)).c_str());
  } else {
    take_header(state.answer, line);
  }
  return count;
}

void announce(State& state) {
  if (state.answered || !state.success()) return;
  state.answered = true;
  if (state.request->on_answer) state.request->on_answer(state.answer);
}

size_t on_body(char* text, size_t, size_t count, void* user) {
  auto& state = *static_cast<State*>(user);
  try {
    const uint64_t bytes = state.body_bytes + count;
    if (!state.success()) {
      state.body_bytes = bytes;
      std::string& kept = state.answer.refusal;
      if (state.request->keep_refusal) kept.append(text, std::min(count, kMostKeptRefusal - kept.size()));
      return bytes > kMostRefusedBody ? 0 : count;
    }
    announce(state);
    if (bytes > static_cast<uint64_t>(state.options->max_bytes)) {
      throw NetError(NetError::Kind::kSize, concat(shown_url(state.request->url), ": more than the ",
                                                   state.options->max_bytes, " bytes that are allowed"));
    }
    if (!state.request->on_body(text, count)) return CURL_WRITEFUNC_PAUSE;  // the same comes again
    state.body_bytes = bytes;
    return count;
  } catch (...) {
    state.thrown = std::current_exception();
    return 0;
  }
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto& state = *static_cast<const State*>(user);
  return state.options->cancel != nullptr && state.options->cancel->load() ? 1 : 0;
}

// The address that will be connected to is looked at here, after names are resolved, for redirects too.
curl_socket_t on_socket(void* user, curlsocktype, curl_sockaddr* address) {
  auto& state = *static_cast<State*>(user);
  const bool any = state.options->allow_private || state.options->use_proxy || state.request->may_be_private;
  if (!any && !is_public(&address->addr)) {
    state.refused_address = true;
    return CURL_SOCKET_BAD;
  }
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

NetError::Kind kind_of(CURLcode code) {
  switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL: return NetError::Kind::kUrl;
    case CURLE_COULDNT_RESOLVE_HOST: return NetError::Kind::kHost;
    case CURLE_OPERATION_TIMEDOUT: return NetError::Kind::kTimeout;
    case CURLE_ABORTED_BY_CALLBACK: return NetError::Kind::kCancelled;
    case CURLE_OUT_OF_MEMORY:  // also a header line that is too long
    case CURLE_FILESIZE_EXCEEDED: return NetError::Kind::kSize;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_USE_SSL_FAILED: return NetError::Kind::kTls;
    default: return NetError::Kind::kConnection;
  }
}

// Without a proper answer every option is a programming fault, which tests would show.
template <typename T>
void set(CURL* handle, CURLoption option, T value) {
  if (curl_easy_setopt(handle, option, value) != CURLE_OK) fail("libcurl refuses an option (", option, ")");
}

long milliseconds(double seconds) { return std::max(1L, std::lround(seconds * 1000)); }

void apply(CURL* handle, State& state) {
  const HttpOptions& options = *state.options;
  const std::string& url = state.request->url;
  set(handle, CURLOPT_URL, url.c_str());
  set(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  set(handle, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
  set(handle, CURLOPT_FOLLOWLOCATION, 0L);
  set(handle, CURLOPT_PATH_AS_IS, state.request->path_as_is ? 1L : 0L);
  set(handle, CURLOPT_NOSIGNAL, 1L);
  set(handle, CURLOPT_HTTPHEADER, state.headers.get());
  set(handle, CURLOPT_RESOLVE, state.resolve.get());
  set(handle, CURLOPT_ERRORBUFFER, state.reason);
  set(handle, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(options.connect_seconds));
  set(handle, CURLOPT_TIMEOUT_MS, milliseconds(options.total_seconds));
  set(handle, CURLOPT_LOW_SPEED_LIMIT, static_cast<long>(options.least_bytes_per_second));
  set(handle, CURLOPT_LOW_SPEED_TIME, std::max(1L, std::lround(options.stall_seconds)));
  set(handle, CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(options.max_bytes));
  set(handle, CURLOPT_USERAGENT,
      options.user_agent.empty() ? concat("libmdm/", version()).c_str() : options.user_agent.c_str());
  if (!options.use_proxy) set(handle, CURLOPT_PROXY, "");
  if (!options.ca_file.empty()) set(handle, CURLOPT_CAINFO, options.ca_file.c_str());
  set(handle, CURLOPT_HEADERFUNCTION, &on_header);
  set(handle, CURLOPT_HEADERDATA, &state);
  set(handle, CURLOPT_WRITEFUNCTION, &on_body);
  set(handle, CURLOPT_WRITEDATA, &state);
  set(handle, CURLOPT_NOPROGRESS, 0L);
  set(handle, CURLOPT_XFERINFOFUNCTION, &on_progress);
  set(handle, CURLOPT_XFERINFODATA, &state);
  set(handle, CURLOPT_OPENSOCKETFUNCTION, &on_socket);
  set(handle, CURLOPT_OPENSOCKETDATA, &state);
}

using Url = std::unique_ptr<CURLU, void (*)(CURLU*)>;

[[noreturn]] void bad_url(const std::string& url, const char* why) {
  throw NetError(NetError::Kind::kUrl, concat(shown_url(url), ": ", why));
}

std::string part_of(CURLU* url, CURLUPart part) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, part == CURLUPART_PORT ? CURLU_DEFAULT_PORT : 0) != CURLUE_OK) return {};
  std::string copy(text);
  curl_free(text);
  return copy;
}

Url parsed(const std::string& url) {
  Url handle(curl_url(), &curl_url_cleanup);
  if (!handle) throw std::bad_alloc();
  if (curl_url_set(handle.get(), CURLUPART_URL, url.c_str(), CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK) {
    bad_url(url, "is no URL");
  }
  return handle;
}

std::string checked(const Url& parts, const std::string& url) {
  const std::string scheme = part_of(parts.get(), CURLUPART_SCHEME);
  if (scheme != "http" && scheme != "https") bad_url(url, "is not an http or https URL");
  if (!part_of(parts.get(), CURLUPART_USER).empty() || !part_of(parts.get(), CURLUPART_PASSWORD).empty()) {
    bad_url(url, "URLs with a user name or password are not taken: they end up in logs");
  }
  if (part_of(parts.get(), CURLUPART_HOST).empty()) bad_url(url, "names no host");
  curl_url_set(parts.get(), CURLUPART_FRAGMENT, nullptr, 0);
  return part_of(parts.get(), CURLUPART_URL);
}

}  // namespace

std::string checked_url(const std::string& url) {
  start_curl();
  if (!is_url(url) || url.find('\0') != std::string::npos) bad_url(url, "is not an http or https URL");
  if (url[url.find("://") + 3] == '/') bad_url(url, "names no host");  // libcurl would look for one further on
  return checked(parsed(url), url);
}

std::string redirected(const std::string& url, const std::string& location) {
  const Url parts = parsed(url);
  if (curl_url_set(parts.get(), CURLUPART_URL, location.c_str(), CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK) {
    throw NetError(NetError::Kind::kRedirect, concat(shown_url(url), ": redirects to what is no URL"));
  }
  try {
    return checked(parts, location);
  } catch (const NetError& error) {
    throw NetError(NetError::Kind::kRedirect, concat(shown_url(url), ": redirects to ", error.what()));
  }
}

std::string origin(const std::string& url) {
  const Url parts = parsed(url);
  std::string text = part_of(parts.get(), CURLUPART_SCHEME) + "://" + part_of(parts.get(), CURLUPART_HOST) + ':' +
                     part_of(parts.get(), CURLUPART_PORT);
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

void describe(const Answer& answer, HttpResponse& response) {
  response.status = answer.status;
  response.etag = answer.etag;
  response.last_modified = answer.last_modified;
  response.content_type = answer.content_type;
  response.robots = answer.robots;
}

bool same_origin(const std::string& a, const std::string& b) {
  const Url left = parsed(a), right = parsed(b);
  for (const CURLUPart part : {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT}) {
    if (!same_word(part_of(left.get(), part), part_of(right.get(), part))) return false;
  }
  return true;
}

namespace {

void append(std::unique_ptr<curl_slist, void (*)(curl_slist*)>& list, const std::string& line) {
  curl_slist* longer = curl_slist_append(list.get(), line.c_str());
  if (longer == nullptr) throw std::bad_alloc();
  list.release();
  list.reset(longer);
}

}  // namespace

Transfer::Transfer() : handle_((start_curl(), curl_easy_init()), &curl_easy_cleanup) {
  if (!handle_) fail("libcurl can't be started");
}
Transfer::~Transfer() = default;

Answer Transfer::run(const Request& request, const HttpOptions& options) {
  begin(request, options);
  return end(curl_easy_perform(handle_.get()));
}

void Transfer::begin(const Request& request, const HttpOptions& options) {
  curl_easy_reset(handle_.get());
  state_ = std::make_unique<State>();
  state_->request = &request;
  state_->options = &options;
  for (const std::string& line : request.headers) append(state_->headers, line);
  for (const std::string& line : options.resolve) append(state_->resolve, line);
  apply(handle_.get(), *state_);
}

Answer Transfer::end(CURLcode code) {
  const std::unique_ptr<State> owned = std::move(state_);
  State& state = *owned;
  curl_easy_reset(handle_.get());  // which keeps connections, and forgets where the callbacks' state was
  const std::string where = shown_url(state.request->url);
  if (state.thrown) std::rethrow_exception(state.thrown);
  if (code == CURLE_OK || (code == CURLE_WRITE_ERROR && state.answer.status != 0 && !state.success() &&
                           state.header_bytes <= kMostHeaderBytes)) {
    announce(state);  // for an empty body
    return state.answer;
  }
  if (state.refused_address) {
    throw NetError(NetError::Kind::kRefused, concat(where,
                                                    ": leads to an address that is not public (loopback, private "
                                                    "or reserved), which is not connected to"));
  }
  if (state.header_bytes > kMostHeaderBytes) {
    throw NetError(NetError::Kind::kSize, concat(where, ": its headers have more than ", kMostHeaderBytes, " bytes"));
  }
  const NetError::Kind kind = kind_of(code);
  if (kind == NetError::Kind::kCancelled) throw NetError(kind, concat(where, ": cancelled"));
  const char* reason = state.reason[0] != '\0' ? state.reason : curl_easy_strerror(code);
  throw NetError(kind, concat(where, ": ", printable(reason)));
}

}  // namespace mdm::net
