// Which handler a request belongs to.
#include "serving/router.h"

#include <utility>

#include "serving/json.h"

namespace mdm::serving {
namespace {

bool may_vary(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

// Whether `path` has the pattern's form; `places` gets what stands in its places.
bool matches(const std::string& pattern, const std::string& path, std::vector<std::string>& places) {
  places.clear();
  size_t at = 0;
  for (size_t p = 0; p < pattern.size();) {
    if (pattern[p] != '{') {
      if (at >= path.size() || path[at] != pattern[p]) return false;
      ++at;
      ++p;
      continue;
    }
    p = pattern.find('}', p) + 1;
    // What follows the place up to the next '/' ends it, from the back: names may hold dots themselves.
    const std::string tail = pattern.substr(p, std::min(pattern.find('/', p), pattern.size()) - p);
    const size_t part_end = std::min(path.find('/', at), path.size());
    if (part_end < at + tail.size() || path.compare(part_end - tail.size(), tail.size(), tail) != 0) return false;
    const std::string place = path.substr(at, part_end - tail.size() - at);
    if (place.empty()) return false;
    for (const char c : place) {
      if (!may_vary(c)) return false;
    }
    places.push_back(place);
    at += place.size();
  }
  return at == path.size();
}

}  // namespace

void Router::add(const std::string& method, const std::string& pattern, Handler handler, Errors errors) {
  routes_.push_back({method, pattern, std::move(handler), errors ? std::move(errors) : Errors(error_response)});
}

void Router::handle(const std::shared_ptr<Exchange>& exchange) const {
  const HttpRequest& request = exchange->request();
  const std::string method = request.method == "HEAD" ? "GET" : request.method;
  std::vector<std::string> places;
  std::string allowed;
  for (const Route& route : routes_) {
    if (!matches(route.pattern, request.path, places)) continue;
    if (route.method != method) {
      allowed += (allowed.empty() ? "" : ", ") + route.method;
      continue;
    }
    try {
      return route.handler(exchange, places);
    } catch (const HttpError& error) {
      return exchange->answer(route.errors(error));
    }
  }
  if (allowed.empty()) return exchange->answer(error_response({404, "not_found", "there is nothing here"}));
  HttpResponse response = error_response({405, "method_not_allowed", "this can't be done here"});
  response.headers.emplace_back("Allow", allowed);
  exchange->answer(std::move(response));
}

std::vector<std::string> Router::routes() const {
  std::vector<std::string> all;
  for (const Route& route : routes_) all.push_back(route.method + " " + route.pattern);
  return all;
}

std::string Router::pattern_of(const std::string& path) const {
  std::vector<std::string> places;
  for (const Route& route : routes_) {
    if (matches(route.pattern, path, places)) return route.pattern;
  }
  return "other";
}

}  // namespace mdm::serving
