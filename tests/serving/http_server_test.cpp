// The HTTP server against clients that are slow, gone, wrong or too many.
#include "serving/http_server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "mdm/core/error.h"
#include "serving/raw_client.h"

namespace mdm::serving {
namespace {

using serving_test::Answer;
using serving_test::RawClient;
using std::chrono::milliseconds;

// Counts up to `count` texts, each when told.
class Counter final : public EventStream {
 public:
  explicit Counter(int count, bool ends = true) : count_(count), ends_(ends) {}
  Part next() override {
    if (at_ == count_) return {};
    ++at_;
    return {"data: " + std::to_string(at_) + "\n\n", ends_ && at_ == count_};
  }
  void on_ready(std::function<void()>) override {}

 private:
  int count_, at_ = 0;
  bool ends_;
};

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServer& start(HttpLimits limits = {}) {
    HttpHooks hooks;
    hooks.check = [](const HttpRequest& head) -> std::optional<HttpResponse> {
      if (head.path != "/refused") return std::nullopt;
      HttpResponse response;
      response.status = 403;
      return response;
    };
    hooks.handle = [this](const std::shared_ptr<Exchange>& exchange) { handle(exchange); };
    hooks.answered = [this](const HttpRequest*, int status) { last_status_ = status; };
    hooks.headers = {{"X-Every", "answer"}};
    server_ = std::make_unique<HttpServer>("127.0.0.1", 0, std::move(hooks), limits);
    server_->start();
    return *server_;
  }

  void handle(const std::shared_ptr<Exchange>& exchange) {
    const std::string& path = exchange->request().path;
    if (path == "/late") {
      exchange->on_gone([this] { gone_ = true; });
      std::lock_guard<std::mutex> lock(mutex_);
      waiting_.push_back(exchange);
      return;
    }
    if (path == "/stream") return exchange->stream(std::make_shared<Counter>(3));
    if (path == "/quiet") return exchange->stream(std::make_shared<Counter>(0, /*ends=*/false));
    if (path == "/endless") return exchange->stream(std::make_shared<Counter>(1 << 30));
    if (path == "/throws") fail("an error within");
    const std::string host = exchange->request().header("host");
    HttpResponse response;
    response.type = "text/plain";
    response.body =
        exchange->request().method + " " + path + " " + exchange->request().body + (path == "/host" ? host : "");
    exchange->answer(response);
  }

  Answer get(const std::string& path) { return serving_test::request(server_->port(), "GET", path); }
  std::string raw(const std::string& bytes, double seconds = 5) {
    RawClient client(server_->port());
    client.send(bytes);
    return client.receive(seconds);
  }
  int status_of(const std::string& bytes) { return serving_test::parse_answer(raw(bytes)).status; }

  size_t asked_late() {
    std::lock_guard<std::mutex> lock(mutex_);
    return waiting_.size();
  }
  static void wait_for(const std::function<bool()>& condition) {
    for (int i = 0; i < 1000 && !condition(); ++i) std::this_thread::sleep_for(milliseconds(10));
  }

  std::unique_ptr<HttpServer> server_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Exchange>> waiting_;
  std::atomic<bool> gone_{false};
  std::atomic<int> last_status_{0};
};

TEST_F(HttpServerTest, AnswersAndKeepsTheConnection) {
  start();
  RawClient client(server_->port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"));
    const std::string answer = client.receive_until("POST /echo abc", 5);
    EXPECT_NE(answer.find("HTTP/1.1 200"), std::string::npos);
    EXPECT_NE(answer.find("X-Every: answer"), std::string::npos);
  }
}

TEST_F(HttpServerTest, AnswersRequestsThatAreSentTogetherInOrder) {
  start();
  RawClient client(server_->port());
  client.send(
      "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\nGET /3 HTTP/1.1\r\nHost: x\r\nConnection: "
      "close\r\n\r\n");
  const std::string all = client.receive(5);
  EXPECT_LT(all.find("GET /1"), all.find("GET /2"));
  EXPECT_LT(all.find("GET /2"), all.find("GET /3"));
  EXPECT_NE(all.find("GET /3"), std::string::npos);
}

TEST_F(HttpServerTest, TakesAWholeUrlAndItsHost) {
  start();
  const auto body_of = [this](const std::string& target) {
    return serving_test::parse_answer(raw("GET " + target + " HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n"))
        .body;
  };
  EXPECT_EQ(body_of("http://named:80/host?query"), "GET /host named:80");
  EXPECT_EQ(body_of("HTTP://named/host"), "GET /host named");
  EXPECT_EQ(body_of("http://named"), "GET / ");
  EXPECT_EQ(body_of("/host"), "GET /host other");
  EXPECT_EQ(body_of("ftp://named/host"), "GET ftp://named/host ");
}

TEST_F(HttpServerTest, ReadsChunkedBodies) {
  start();
  EXPECT_NE(raw("POST /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
                "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
                .find("POST /c abcde"),
            std::string::npos);
}

TEST_F(HttpServerTest, HeadHasNoBody) {
  start();
  const std::string answer = raw("HEAD /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_NE(answer.find("200 OK"), std::string::npos);
  EXPECT_EQ(answer.substr(answer.size() - 4), "\r\n\r\n");
}

TEST_F(HttpServerTest, WaitsForThoseWhoAskFirst) {
  start();
  RawClient client(server_->port());
  client.send("POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n");
  EXPECT_NE(client.receive_until("100 Continue\r\n\r\n", 5), "");
  client.send("hi");
  EXPECT_NE(client.receive(5).find("POST /e hi"), std::string::npos);
}

TEST_F(HttpServerTest, RefusesWhatIsNoHttp) {
  start();
  const std::string host = "Host: x\r\n";
  EXPECT_EQ(status_of("nonsense\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET / HTTP/3.0\r\n" + host + "\r\n"), 505);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\n" + host + "bad header\r\n\r\n"), 400);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n"), 400);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\n" + host + "Content-Length: 12abc\r\n\r\n"), 400);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999999\r\n\r\n"), 400);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde"), 400);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n"), 400);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\nabc\r\n"),
            400);
  EXPECT_EQ(
      status_of("POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"),
      400);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\n" + host + "\r\n"), 411);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\n" + host + "Host: y\r\n\r\n"), 400);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\n" + host + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx"), 415);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\n" + host + "Expect: miracles\r\n\r\n"), 417);
  EXPECT_EQ(get("/x").status, 200);
}

// A request in the body of another must never be one of its own.
TEST_F(HttpServerTest, NothingHidesInABody) {
  start();
  const std::string hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
  for (const char* encoding : {"chunked, identity", "identity, chunked", "xchunked", "gzip", "identity",
                               "chunked, chunked", "chunked;x=1", "", " "}) {
    const std::string all =
        raw(std::string("POST /outer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: ") + encoding + "\r\n\r\n" + hidden);
    EXPECT_EQ(serving_test::parse_answer(all).status, 501) << encoding;
    EXPECT_EQ(all.find("/hidden"), std::string::npos) << encoding;
  }
  EXPECT_EQ(status_of("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 501);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"),
            200);
}

// Extensions of chunks and trailers count as little as anything else that never ends.
TEST_F(HttpServerTest, NothingIsCollectedWithoutBound) {
  start();
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const std::string& start : {std::string("5;x="), std::string("0\r\nX: ")}) {
    RawClient client(server_->port());
    client.send(head + start);
    const std::string part(65536, 'a');
    size_t sent = 0;
    for (; sent < 256 && client.send(part); ++sent) {
    }
    EXPECT_LT(sent, 200u) << "16 MiB of one line were taken";
  }
  EXPECT_EQ(get("/x").status, 200);
}

TEST_F(HttpServerTest, RefusesWhatIsTooLarge) {
  start();
  const std::string host = "Host: x\r\n";
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\n" + host + "Content-Length: 1073741824\r\n\r\n"), 413);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\n" + host + "Content-Length: 65537\r\n\r\n" + std::string(65537, 'x')), 413);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\n" + host + "Connection: close\r\nContent-Length: 65536\r\n\r\n" +
                      std::string(65536, 'x')),
            200);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n20000\r\n" +
                      std::string(0x20000, 'x') + "\r\n0\r\n\r\n"),
            413);
  EXPECT_EQ(status_of("GET /" + std::string(20000, 'a') + " HTTP/1.1\r\n" + host + "\r\n"), 431);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\n" + host + "X: " + std::string(20000, 'a') + "\r\n\r\n"), 431);
  std::string lines;
  for (int i = 0; i < 200; ++i) lines += "X-" + std::to_string(i) + ": 1\r\n";
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\n" + host + lines + "\r\n"), 431);
}

// The refused never read the body: a client that sends a long one sees the answer all the same.
TEST_F(HttpServerTest, RefusesByTheHeadAlone) {
  start();
  EXPECT_EQ(status_of("POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + std::string(60000, 'x')),
            403);
  EXPECT_EQ(status_of("POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"), 403);
}

TEST_F(HttpServerTest, AnErrorWithinIsAnAnswer) {
  start();
  const Answer answer = get("/throws");
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(answer.body.find("an error within"), std::string::npos);
  EXPECT_EQ(get("/x").status, 200);
}

TEST_F(HttpServerTest, StreamsEventsInChunks) {
  start();
  const Answer answer = get("/stream");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.at("content-type"), "text/event-stream");
  EXPECT_NE(answer.body.find("data: 1\n\n"), std::string::npos);
  EXPECT_NE(answer.body.find("data: 3\n\n"), std::string::npos);
  EXPECT_EQ(answer.body.substr(answer.body.size() - 5), "0\r\n\r\n");
  // Who knows no chunks, as nginx on its way to a server, gets the text as it is.
  const std::string old = raw("GET /stream HTTP/1.0\r\nHost: x\r\n\r\n");
  EXPECT_EQ(old.find("chunked"), std::string::npos);
  EXPECT_EQ(old.substr(old.find("\r\n\r\n") + 4), "data: 1\n\ndata: 2\n\ndata: 3\n\n");
}

// Two hundred sockets that never finish a request don't keep others out (S1).
TEST_F(HttpServerTest, SlowClientsKeepNobodyOut) {
  HttpLimits limits;
  limits.header_time = milliseconds(3000);
  start(limits);
  std::vector<RawClient> slow;
  for (int i = 0; i < 200; ++i) {
    slow.emplace_back(server_->port());
    slow.back().send("GET / HTTP/1.1\r\nX: ");
    if (i % 20 == 0) {
      EXPECT_EQ(get("/health").status, 200) << "with " << i << " slow clients";
    }
  }
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_LE(server_->connections(), limits.connections + 1);
  for (auto& client : slow) EXPECT_TRUE(client.closed_within(6));
}

TEST_F(HttpServerTest, EachPartOfARequestHasItsTime) {
  HttpLimits limits;
  limits.header_time = limits.body_time = limits.idle_time = milliseconds(200);
  start(limits);
  RawClient silent(server_->port());
  EXPECT_TRUE(silent.closed_within(3));
  RawClient drips(server_->port());
  const auto began = std::chrono::steady_clock::now();
  for (const char c : std::string("GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")) {
    if (!drips.send(std::string(1, c))) break;
    std::this_thread::sleep_for(milliseconds(30));
  }
  EXPECT_TRUE(drips.closed_within(3));
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
  RawClient bodiless(server_->port());
  bodiless.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_TRUE(bodiless.closed_within(3));
  RawClient idle(server_->port());
  idle.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(idle.closed_within(3));
}

// Who reads nothing is cut off, and holds up nobody.
TEST_F(HttpServerTest, ReadersThatStopAreCutOff) {
  HttpLimits limits;
  limits.write_time = milliseconds(300);
  start(limits);
  RawClient reader(server_->port());
  reader.send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
  wait_for([&] { return server_->connections() == 1; });
  for (int i = 0; i < 3; ++i) ASSERT_EQ(get("/x").status, 200);
  wait_for([&] { return server_->connections() == 0; });
  EXPECT_EQ(server_->connections(), 0u);
}

TEST_F(HttpServerTest, NoticesAClientThatGoesWhileItWaits) {
  start();
  {
    RawClient client(server_->port());
    client.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for([&] { return asked_late() == 1; });
    EXPECT_FALSE(gone_);
  }
  wait_for([&] { return gone_.load(); });
  EXPECT_TRUE(gone_);
  waiting_.front()->answer({});  // too late: counts for nothing
  EXPECT_EQ(get("/x").status, 200);
}

// Bytes of a next request, or a stray line end, don't hide that a client has gone.
TEST_F(HttpServerTest, NoticesAClientThatSentMoreBeforeItWent) {
  start();
  {
    RawClient client(server_->port());
    client.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n\r\nGET /x HT");
    wait_for([&] { return asked_late() == 1; });
  }
  wait_for([&] { return gone_.load(); });
  EXPECT_TRUE(gone_);
}

TEST_F(HttpServerTest, AnswersLaterFromAnotherThread) {
  start();
  RawClient client(server_->port());
  client.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
  wait_for([&] { return asked_late() == 1; });
  ASSERT_EQ(asked_late(), 1u);
  client.send("GET /next HTTP/1.1\r\nHost: x\r\n\r\n");  // before it has its answer
  const std::shared_ptr<Exchange> exchange = waiting_.front();
  HttpResponse response;
  response.body = "\"late\"";
  exchange->answer(response);
  exchange->answer(response);  // the second one counts for nothing
  EXPECT_NE(client.receive_until("\"late\"", 5), "");
  EXPECT_NE(client.receive_until("GET /next ", 5), "");
  EXPECT_FALSE(gone_);
}

// Clients that read nothing are those that let us wait, and go first.
TEST_F(HttpServerTest, SlowReadersKeepNobodyOut) {
  HttpLimits limits;
  limits.connections = 8;
  start(limits);
  std::vector<RawClient> slow;
  for (int i = 0; i < 24; ++i) {
    slow.emplace_back(server_->port());
    slow.back().send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
    ASSERT_EQ(get("/x").status, 200) << "with " << i << " slow readers";
  }
}

// Streams may last, and leave room for others; those that are refused don't let others in.
TEST_F(HttpServerTest, StreamsLeaveRoom) {
  HttpLimits limits;
  limits.connections = 8;
  start(limits);
  std::vector<RawClient> streams;
  int taken = 0;
  for (int i = 0; i < 20; ++i) {
    streams.emplace_back(server_->port());
    streams.back().send("GET /quiet HTTP/1.1\r\nHost: x\r\n\r\n");
    taken += streams.back().receive_until("\r\n\r\n", 5).find("200 OK") != std::string::npos ? 1 : 0;
    ASSERT_EQ(get("/x").status, 200);
  }
  EXPECT_EQ(taken, 6);
}

TEST_F(HttpServerTest, RefusesNewcomersOnlyWhenAllAreBeingAnswered) {
  HttpLimits limits;
  limits.connections = 4;
  start(limits);
  std::vector<RawClient> waiting;
  for (int i = 0; i < 4; ++i) {
    waiting.emplace_back(server_->port());
    waiting.back().send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  wait_for([&] { return asked_late() == 4; });
  const Answer answer = get("/x");
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.headers.count("retry-after"), 1u);
  waiting.pop_back();
  wait_for([&] { return gone_.load(); });
  EXPECT_EQ(get("/x").status, 200);
}

TEST_F(HttpServerTest, ManyClientsAtOnceAreAllAnswered) {
  start();
  std::atomic<int> fine{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 16; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 40; ++i) fine += get("/x").status == 200 ? 1 : 0;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(fine, 640);
}

TEST_F(HttpServerTest, StopsAndFreesThePort) {
  start();
  const uint16_t port = server_->port();
  RawClient idle(port), late(port), stream(port);
  late.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
  stream.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(stream.receive_until("data: 3", 5), "");
  const auto began = std::chrono::steady_clock::now();
  server_->stop(milliseconds(300));
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(3));
  EXPECT_TRUE(idle.closed_within(1));
  EXPECT_TRUE(late.closed_within(1));
  EXPECT_FALSE(RawClient(port).connected());
  HttpHooks hooks;
  HttpServer next("127.0.0.1", port, hooks);  // the port can be had again
  EXPECT_EQ(next.port(), port);
}

TEST_F(HttpServerTest, APortThatIsTakenIsAnError) {
  start();
  try {
    HttpServer second("127.0.0.1", server_->port(), {});
    FAIL() << "two servers on one port";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(std::to_string(server_->port())), std::string::npos);
  }
  EXPECT_THROW(HttpServer("no address", 0, {}), ConfigError);
}

}  // namespace
}  // namespace mdm::serving
