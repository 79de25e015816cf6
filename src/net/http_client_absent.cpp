// In place of http_client.cpp in a build without libcurl.
#include "mdm/net/http_client.h"
#include "mdm/net/http_pool.h"

namespace mdm {
namespace {

[[noreturn]] void unavailable(const std::string& url) {
  throw NetError(NetError::Kind::kUnavailable,
                 concat(shown_url(url),
                        ": this libmdm was built without libcurl (MDM_WITH_CURL=OFF) and can't load "
                        "URLs; load the file by other means and name its path"));
}

}  // namespace

struct HttpClient::Impl {
  HttpOptions options;
};

HttpClient::HttpClient(HttpOptions options) : impl_(new Impl{std::move(options)}) {}
HttpClient::~HttpClient() = default;
HttpClient::HttpClient(HttpClient&&) noexcept = default;
HttpClient& HttpClient::operator=(HttpClient&&) noexcept = default;
const HttpOptions& HttpClient::options() const { return impl_->options; }
HttpResponse HttpClient::get(const std::string& url, const std::optional<HttpRange>&) { unavailable(url); }
HttpResponse HttpClient::download(const std::string& url, const std::filesystem::path&) { unavailable(url); }
void HttpClient::list(const std::string& url, const std::function<bool(const S3Object&)>&) { unavailable(url); }

struct HttpPool::Impl {};
HttpPool::HttpPool(HttpPoolOptions) { unavailable("many URLs at a time"); }
HttpPool::~HttpPool() = default;
void HttpPool::add(uint64_t, const std::string&) {}
size_t HttpPool::unfinished() const { return 0; }
std::vector<HttpPool::Finished> HttpPool::wait(double) { return {}; }
void HttpPool::wake() {}
void HttpPool::hold(bool) {}
uint64_t HttpPool::bytes_received() const { return 0; }

}  // namespace mdm
