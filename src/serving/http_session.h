// One connection of a client.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "serving/http_server.h"

namespace mdm::serving {

// All functions run on the server's one thread but for those of the Exchange.
class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  using Clock = std::chrono::steady_clock;
  // What a session needs of its server, which outlives it.
  struct Server {
    HttpHooks hooks;
    HttpLimits limits;
    bool stopping = false;
    size_t streams = 0;  // that run
    std::function<void(HttpSession*)> on_end;
  };

  HttpSession(boost::asio::ip::tcp::socket socket, Server& server);
  void start() { read_head(); }
  // Answers without reading a request.
  void refuse(HttpResponse response);
  // Cuts off.
  void close();
  // Cuts off unless an answer is on its way.
  void finish();

  bool is_closed() const { return state_ == State::kClosed; }
  // Since when it is the client who lets us wait, by sending or reading slowly; nothing when it is not.
  std::optional<Clock::time_point> waits_for_client_since() const {
    const bool waits = state_ == State::kReading || writing_;
    return waits ? std::optional(waits_since_) : std::nullopt;
  }

 private:
  friend class SessionExchange;
  enum class State { kReading, kAnswering, kStreaming, kClosed };
  using ErrorCode = boost::beast::error_code;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  void read_head();
  void on_head(ErrorCode error);
  std::optional<HttpResponse> trouble_with_head() const;
  void read_body();
  void on_body(ErrorCode error);
  void on_broken_request(ErrorCode error);
  void handle();
  void watch_client();
  void on_client_moved();
  void client_is_gone();
  void answer(HttpResponse response);
  void write(HttpResponse response);
  void after_answer(bool keep);
  void begin_stream(std::shared_ptr<EventStream> events);
  void end_stream();
  void pump();
  void write_part(std::string text, bool last);
  void begin_writing();
  template <typename Message>
  void prepare(Message& message, bool keep) const;

  boost::beast::tcp_stream stream_;
  boost::asio::steady_timer keep_alive_;
  // Bounds what Beast collects on its own, as the extensions of chunks.
  boost::beast::flat_buffer buffer_{size_t{64} << 10};
  std::optional<Parser> parser_;
  Server& server_;
  State state_ = State::kReading;
  Clock::time_point waits_since_;
  bool first_ = true;     // no request has come yet
  bool in_body_ = false;  // its head has come, its body is being read
  HttpRequest request_;
  uint64_t exchange_ = 0;  // counts requests: who waits for an earlier one is too late
  bool watched_ = false;   // whether someone waits for the client to go
  std::function<void()> on_gone_;
  std::shared_ptr<EventStream> events_;
  bool chunked_ = false;  // whether the stream's client knows chunks; else its end is that of the connection
  bool writing_ = false;  // an answer, or a part of a stream, is on its way
};

}  // namespace mdm::serving
