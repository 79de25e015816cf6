// One connection of a client.
#include "serving/http_session.h"

#include <boost/asio/dispatch.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>

#include <algorithm>
#include <atomic>
#include <exception>
#include <sstream>
#include <utility>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "serving/json.h"

namespace mdm::serving {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

namespace {

constexpr std::chrono::seconds kDrainTime{2};
constexpr size_t kDrainBytes = size_t{1} << 20;

std::string text_of(beast::string_view text) { return std::string(text.data(), text.size()); }

HttpResponse plain(int status, const char* code, const char* message, int retry_after = 0) {
  HttpResponse response = error_response({status, code, message, "", retry_after});
  response.close = true;
  return response;
}

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  return text;
}

// A whole URL as the target, as it goes to a proxy: its host counts, and not the header's (RFC 9112, 3.2.2).
void split_absolute_target(HttpRequest& request) {
  constexpr std::string_view kScheme = "http://";
  if (lower(request.path.substr(0, kScheme.size())) != kScheme) return;
  const size_t end = std::min(request.path.find('/', kScheme.size()), request.path.size());
  const std::string host = request.path.substr(kScheme.size(), end - kScheme.size());
  request.path = end < request.path.size() ? request.path.substr(end) : "/";
  const auto is_host = [](const auto& field) { return field.first == "host"; };
  request.headers.erase(std::remove_if(request.headers.begin(), request.headers.end(), is_host), request.headers.end());
  request.headers.emplace_back("host", host);
}

HttpRequest head_of(const http::request_header<>& header, const std::string& address) {
  HttpRequest request;
  request.method = text_of(header.method_string());
  request.path = text_of(header.target());
  request.path.erase(std::min(request.path.find('?'), request.path.size()));
  for (const auto& field : header) {
    request.headers.emplace_back(lower(text_of(field.name_string())), text_of(field.value()));
  }
  split_absolute_target(request);
  request.address = address;
  return request;
}

}  // namespace

std::string HttpRequest::header(std::string_view name) const {
  std::string joined;
  for (const auto& [key, value] : headers) {
    if (key == name) joined += (joined.empty() ? "" : ", ") + value;
  }
  return joined;
}

// The answer to one request of a session, which may have ended by then.
class SessionExchange final : public Exchange, public std::enable_shared_from_this<SessionExchange> {
 public:
  explicit SessionExchange(HttpSession& session)
      : session_(session.weak_from_this()),
        executor_(session.stream_.get_executor()),
        number_(session.exchange_),
        request_(session.request_) {}

  const HttpRequest& request() const override { return request_; }
  bool answered() const { return answered_; }

  void answer(HttpResponse response) override {
    if (answered_.exchange(true)) return;
    on_session([response = std::move(response)](HttpSession& session) mutable { session.answer(std::move(response)); });
  }
  void stream(std::shared_ptr<EventStream> events) override {
    if (answered_.exchange(true)) return;
    on_session([events = std::move(events)](HttpSession& session) mutable { session.begin_stream(std::move(events)); });
  }
  void on_gone(std::function<void()> call) override {
    on_session([call](HttpSession& session) { session.on_gone_ = call; }, /*when_gone=*/call);
  }

 private:
  // Calls `act` on the session's thread, if it still waits for this answer.
  template <typename Act>
  void on_session(Act act, std::function<void()> when_gone = {}) {
    asio::dispatch(executor_, [self = shared_from_this(), act = std::move(act), when_gone]() mutable {
      const auto session = self->session_.lock();
      const bool waits =
          session && session->exchange_ == self->number_ && session->state_ == HttpSession::State::kAnswering;
      if (waits) {
        act(*session);
      } else if (when_gone && (!session || session->is_closed())) {
        when_gone();
      }
    });
  }

  std::weak_ptr<HttpSession> session_;
  beast::tcp_stream::executor_type executor_;
  const uint64_t number_;
  const HttpRequest request_;
  std::atomic<bool> answered_{false};
};

HttpSession::HttpSession(asio::ip::tcp::socket socket, Server& server)
    : stream_(std::move(socket)), keep_alive_(stream_.get_executor()), server_(server), waits_since_(Clock::now()) {
  ErrorCode ignored;
  request_.address = stream_.socket().remote_endpoint(ignored).address().to_string(ignored);
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  stream_.socket().non_blocking(true, ignored);
}

void HttpSession::read_head() {
  if (server_.stopping) return close();
  state_ = State::kReading;
  in_body_ = false;
  waits_since_ = Clock::now();
  ++exchange_;
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(server_.limits.header_bytes));
  parser_->body_limit(server_.limits.body_bytes);
  stream_.expires_after(first_ ? server_.limits.header_time : server_.limits.idle_time);
  http::async_read_header(stream_, buffer_, *parser_,
                          [self = shared_from_this()](ErrorCode error, size_t) { self->on_head(error); });
}

void HttpSession::on_head(ErrorCode error) {
  if (state_ == State::kClosed) return;
  if (error) return on_broken_request(error);
  first_ = false;
  request_ = head_of(parser_->get().base(), request_.address);
  if (auto refused = trouble_with_head()) {
    refused->close = true;
    return refuse(std::move(*refused));
  }
  if (request_.header("expect").empty()) return read_body();
  // The client waits to be told that its body is welcome.
  auto go_on = std::make_shared<std::string>("HTTP/1.1 100 Continue\r\n\r\n");
  stream_.expires_after(server_.limits.write_time);
  asio::async_write(stream_, asio::buffer(*go_on), [self = shared_from_this(), go_on](ErrorCode failed, size_t) {
    if (failed) return self->close();
    self->read_body();
  });
}

std::optional<HttpResponse> HttpSession::trouble_with_head() const {
  if (request_.headers.size() > server_.limits.header_lines) {
    return plain(431, "too_many_headers", "the request has too many header lines");
  }
  const auto lines = [this](std::string_view name) {
    return std::count_if(request_.headers.begin(), request_.headers.end(),
                         [&](const auto& header) { return header.first == name; });
  };
  // What two readers, as a proxy and we, could take for two hosts or two lengths lets a request hide in another's body.
  if (lines("host") > 1) return plain(400, "bad_request", "the request names two hosts");
  const bool encoded = lines("transfer-encoding") > 0;
  if (lines("content-length") > 1 || (encoded && lines("content-length") > 0)) {
    return plain(400, "bad_request", "the body has two lengths");
  }
  const bool is_1_1 = parser_->get().version() == 11;
  if (encoded && (lower(request_.header("transfer-encoding")) != "chunked" || !parser_->chunked() || !is_1_1)) {
    return plain(501, "unsupported_encoding", "bodies may be chunked, and nothing else");
  }
  if (!encoded && lines("content-length") == 0 && request_.method == "POST") {
    return plain(411, "length_required", "the body's length is not said");
  }
  if (!request_.header("content-encoding").empty()) {
    return plain(415, "unsupported_encoding", "bodies must not be compressed");
  }
  const std::string expect = lower(request_.header("expect"));
  if (!expect.empty() && expect != "100-continue") return plain(417, "bad_request", "unknown expectation");
  return server_.hooks.check(request_);
}

void HttpSession::read_body() {
  in_body_ = true;
  stream_.expires_after(server_.limits.body_time);
  http::async_read(stream_, buffer_, *parser_,
                   [self = shared_from_this()](ErrorCode error, size_t) { self->on_body(error); });
}

void HttpSession::on_body(ErrorCode error) {
  if (state_ == State::kClosed) return;
  if (error) return on_broken_request(error);
  request_.body = std::move(parser_->get().body());
  handle();
}

void HttpSession::on_broken_request(ErrorCode error) {
  const bool is_http = error.category() == make_error_code(http::error::bad_method).category();
  if (!is_http || error == http::error::end_of_stream || error == http::error::partial_message) return close();
  const bool overflow = error == http::error::buffer_overflow;
  if (error == http::error::header_limit || (overflow && !in_body_)) {
    return refuse(plain(431, "too_large", "the request's head is too large"));
  }
  if (error == http::error::body_limit || overflow)
    return refuse(plain(413, "too_large", "the request's body is too large"));
  if (error == http::error::bad_version) return refuse(plain(505, "bad_version", "only HTTP/1.0 and 1.1 are spoken"));
  refuse(plain(400, "bad_request", "this is no HTTP request"));
}

void HttpSession::refuse(HttpResponse response) {
  state_ = State::kAnswering;
  answer(std::move(response));
}

void HttpSession::handle() {
  state_ = State::kAnswering;
  stream_.expires_never();
  const auto exchange = std::make_shared<SessionExchange>(*this);
  try {
    server_.hooks.handle(exchange);
  } catch (const std::exception& error) {
    log_error("request ", printable(request_.method), " ", printable(request_.path), ": ",
              printable(error.what(), 1000));
    exchange->answer(plain(500, "internal", "the request could not be answered; the server's log says more"));
  }
  if (!exchange->answered() && state_ == State::kAnswering) watch_client();
}

// Until the answer is there no request is read, and a client that goes would not be noticed.
void HttpSession::watch_client() {
  if (watched_) return;
  watched_ = true;
  stream_.socket().async_wait(asio::ip::tcp::socket::wait_read, [self = shared_from_this()](ErrorCode error) {
    self->watched_ = false;
    const bool waits = self->state_ == State::kAnswering || self->state_ == State::kStreaming;
    if (!error && waits) self->on_client_moved();
  });
}

// The next request has begun to come, which waits in the buffer, or the client has gone.
void HttpSession::on_client_moved() {
  const size_t room = buffer_.max_size() - buffer_.size();
  if (room == 0) return;  // who sends so much without waiting is no longer watched
  constexpr size_t kPart = 4096;
  ErrorCode error;
  const size_t count = stream_.socket().receive(buffer_.prepare(std::min(room, kPart)), 0, error);
  if (!error && count > 0) buffer_.commit(count);
  const bool gone = (error && error != asio::error::would_block) || (!error && count == 0);
  if (gone) return client_is_gone();
  watch_client();
}

void HttpSession::client_is_gone() {
  const auto call = std::move(on_gone_);
  close();
  if (call) call();
}

template <typename Message>
void HttpSession::prepare(Message& message, bool keep) const {
  for (const auto& [name, value] : server_.hooks.headers) message.set(name, value);
  message.keep_alive(keep);
}

void HttpSession::answer(HttpResponse response) {
  on_gone_ = nullptr;
  if (server_.hooks.answered) server_.hooks.answered(request_.method.empty() ? nullptr : &request_, response.status);
  write(std::move(response));
}

void HttpSession::write(HttpResponse response) {
  using Response = http::response<http::string_body>;
  const bool keep = !response.close && !server_.stopping && parser_ && parser_->is_done() && parser_->keep_alive();
  const bool is_head = request_.method == "HEAD";
  auto message = std::make_shared<Response>();
  message->version(parser_ && parser_->is_header_done() ? parser_->get().version() : 11);
  message->result(static_cast<unsigned>(response.status));
  if (!response.type.empty()) message->set(http::field::content_type, response.type);
  for (const auto& [name, value] : response.headers) message->insert(name, value);
  prepare(*message, keep);
  if (response.status != 304) message->content_length(response.body.size());
  if (!is_head) message->body() = std::move(response.body);
  begin_writing();
  const auto written = [self = shared_from_this(), message, keep](ErrorCode error, size_t) {
    self->writing_ = false;
    if (error || self->state_ == State::kClosed) return self->close();
    self->after_answer(keep);
  };
  if (!is_head) {
    http::async_write(stream_, *message, written);
  } else {
    auto serializer = std::make_shared<http::response_serializer<http::string_body>>(*message);
    http::async_write_header(stream_, *serializer,
                             [written, serializer](ErrorCode error, size_t count) { written(error, count); });
  }
}

void HttpSession::after_answer(bool keep) {
  request_ = HttpRequest{{}, {}, {}, {}, request_.address};
  if (keep) return read_head();
  // A connection that is closed while the client still sends is reset, and the client may never see the answer: what
  // it sends is read for a while and dropped.
  ErrorCode ignored;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  stream_.expires_after(kDrainTime);
  state_ = State::kReading;
  waits_since_ = Clock::time_point::min();  // the first to go when connections run out
  auto space = std::make_shared<std::string>(size_t{16} << 10, '\0');
  auto drain = std::make_shared<std::function<void(size_t)>>();
  *drain = [self = shared_from_this(), space,
            weak = std::weak_ptr<std::function<void(size_t)>>(drain)](size_t dropped) {
    const auto next = weak.lock();
    self->stream_.async_read_some(asio::buffer(*space), [self, next, dropped](ErrorCode error, size_t count) {
      if (error || dropped + count > kDrainBytes) return self->close();
      (*next)(dropped + count);
    });
  };
  (*drain)(0);
}

void HttpSession::begin_stream(std::shared_ptr<EventStream> events) {
  // Streams may last, and must leave room for others.
  if (server_.streams >= std::max<size_t>(server_.limits.connections * 3 / 4, 1)) {
    return answer(plain(503, "too_many_streams", "there are too many streams of events", 5));
  }
  ++server_.streams;
  on_gone_ = nullptr;
  if (server_.hooks.answered) server_.hooks.answered(&request_, 200);
  state_ = State::kStreaming;
  events_ = std::move(events);
  chunked_ = parser_->get().version() >= 11;
  http::response<http::empty_body> message{http::status::ok, parser_->get().version()};
  message.set(http::field::content_type, "text/event-stream");
  message.set(http::field::cache_control, "no-store");
  prepare(message, /*keep=*/false);
  if (chunked_) message.chunked(true);
  std::ostringstream head;
  head << message.base();
  auto bytes = std::make_shared<std::string>(head.str());
  begin_writing();
  asio::async_write(stream_, asio::buffer(*bytes), [self = shared_from_this(), bytes](ErrorCode error, size_t) {
    self->writing_ = false;
    if (error || self->state_ == State::kClosed) return self->close();
    self->pump();
  });
  const std::weak_ptr<HttpSession> weak = weak_from_this();
  events_->on_ready([weak, executor = stream_.get_executor()] {
    asio::dispatch(executor, [weak] {
      if (const auto self = weak.lock()) self->pump();
    });
  });
  watch_client();
}

// Sends what there is, one part at a time.
void HttpSession::pump() {
  if (state_ != State::kStreaming || writing_) return;
  EventStream::Part part;
  try {
    part = events_->next();
  } catch (const std::exception& error) {
    log_error("a stream of events ends: ", printable(error.what(), 1000));
    return close();
  }
  if (!part.text.empty() || part.last) return write_part(std::move(part.text), part.last);
  stream_.expires_never();
  keep_alive_.expires_after(server_.limits.keep_alive);
  keep_alive_.async_wait([self = shared_from_this()](ErrorCode error) {
    if (!error && self->state_ == State::kStreaming && !self->writing_) self->write_part(": keep-alive\n\n", false);
  });
}

void HttpSession::begin_writing() {
  writing_ = true;
  waits_since_ = Clock::now();
  stream_.expires_after(server_.limits.write_time);
}

void HttpSession::write_part(std::string text, bool last) {
  keep_alive_.cancel();
  std::ostringstream chunk;
  if (!chunked_) {
    chunk << text;
  } else {
    if (!text.empty()) chunk << std::hex << text.size() << "\r\n" << text << "\r\n";
    if (last) chunk << "0\r\n\r\n";
  }
  auto bytes = std::make_shared<std::string>(chunk.str());
  begin_writing();
  asio::async_write(stream_, asio::buffer(*bytes), [self = shared_from_this(), bytes, last](ErrorCode error, size_t) {
    self->writing_ = false;
    if (error || self->state_ == State::kClosed) return self->close();
    if (!last) return self->pump();
    self->end_stream();
    self->after_answer(/*keep=*/false);
  });
}

void HttpSession::end_stream() {
  if (!events_) return;
  events_->on_ready(nullptr);
  events_.reset();
  --server_.streams;
}

void HttpSession::finish() {
  if (state_ == State::kReading) close();
}

void HttpSession::close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  keep_alive_.cancel();
  end_stream();
  ErrorCode ignored;
  stream_.socket().close(ignored);
  server_.on_end(this);
}

}  // namespace mdm::serving
