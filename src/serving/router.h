// Which handler a request belongs to: methods and paths with places for what varies.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "serving/http.h"

namespace mdm::serving {

class Router {
 public:
  using Handler = std::function<void(const std::shared_ptr<Exchange>&, const std::vector<std::string>& places)>;
  // How a group of routes writes its errors.
  using Errors = std::function<HttpResponse(const HttpError&)>;

  // `pattern`: "/mdm/v1/jobs/{id}/pictures/{index}.png"; a place is a part between slashes, or what is left of one
  // beside fixed text. Places hold letters, digits, '_', '-' and '.' only, so no handler ever sees anything else.
  void add(const std::string& method, const std::string& pattern, Handler handler, Errors errors = {});

  // Calls the handler of the request, or answers 404 or 405. An HttpError that is thrown becomes the answer.
  void handle(const std::shared_ptr<Exchange>& exchange) const;
  // "GET /mdm/v1/jobs", ...
  std::vector<std::string> routes() const;
  // The pattern that a path belongs to, "other" when none does.
  std::string pattern_of(const std::string& path) const;

 private:
  struct Route {
    std::string method, pattern;
    Handler handler;
    Errors errors;
  };
  std::vector<Route> routes_;
};

}  // namespace mdm::serving
