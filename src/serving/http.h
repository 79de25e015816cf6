// One request and its answer, as the routes see them. What speaks HTTP/1.1 (http_server.h) stays behind these types.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mdm::serving {

struct HttpRequest {
  std::string method;  // "GET", "HEAD" (answered as GET, without the body), "POST", "DELETE"
  std::string path;    // as it was sent, without what follows '?'; not decoded: our routes need no escapes
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  std::string address;  // of the client, without the port

  // The header's value, "" when there is none; several of one name are joined by ", ".
  std::string header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string type = "application/json";
  std::string body = {};
  std::vector<std::pair<std::string, std::string>> headers = {};
  bool close = false;  // end the connection afterwards
};

// Where the text of a streamed answer comes from.
class EventStream {
 public:
  virtual ~EventStream() = default;
  struct Part {
    std::string text;   // empty: nothing new
    bool last = false;  // the stream ends after this
  };
  // Called by the server's thread alone.
  virtual Part next() = 0;
  // `call` is called, from any thread, when next() has something new; null: no more. Not called after that.
  virtual void on_ready(std::function<void()> call) = 0;
};

// A request that is being answered; functions may be called from any thread. Exactly one of answer() and stream() is
// to be called, now or later; what comes after the first counts for nothing.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const HttpRequest& request() const = 0;
  virtual void answer(HttpResponse response) = 0;
  // 200 with server-sent events.
  virtual void stream(std::shared_ptr<EventStream> events) = 0;
  // `call` is called at most once, when the client goes before it has an answer.
  virtual void on_gone(std::function<void()> call) = 0;
};

// What a request can't have: an error that becomes an answer.
struct HttpError {
  int status = 400;
  std::string code;     // "invalid_setting"
  std::string message;  // for people; says nothing of the machine
  std::string field = {};
  int retry_after = 0;  // seconds; 0: not said
};

}  // namespace mdm::serving
