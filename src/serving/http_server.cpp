// The server: who may connect, and how it ends.
#include "serving/http_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <atomic>
#include <thread>
#include <unordered_map>

#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "serving/http_session.h"
#include "serving/json.h"

namespace mdm::serving {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using ErrorCode = boost::system::error_code;

struct HttpServer::Impl {
  Impl(HttpHooks hooks, const HttpLimits& limits) : acceptor(context), wait(context) {
    server.hooks = std::move(hooks);
    server.limits = limits;
    server.on_end = [this](HttpSession* session) {
      // Not now: who ends may still be at work.
      asio::post(context, [this, session] {
        sessions.erase(session);
        count = sessions.size();
      });
    };
  }

  void listen(const std::string& host, uint16_t wanted) {
    ErrorCode error;
    Tcp::resolver resolver(context);
    const auto found = resolver.resolve(host, std::to_string(wanted), Tcp::resolver::passive, error);
    if (error || found.empty()) fail<ConfigError>("host: '", printable(host), "' is no address of this machine");
    const Tcp::endpoint endpoint = found.begin()->endpoint();
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) fail("can't listen on ", printable(host), ", port ", wanted, ": ", error.message());
  }

  void accept() {
    acceptor.async_accept([this](ErrorCode error, Tcp::socket socket) {
      if (server.stopping || error == asio::error::operation_aborted) return;
      if (error) {  // out of descriptors, or the client has gone already
        wait.expires_after(std::chrono::milliseconds(50));
        wait.async_wait([this](ErrorCode stopped) {
          if (!stopped && !server.stopping) accept();
        });
        return;
      }
      accept();  // first: whatever becomes of this one, others may come
      welcome(std::move(socket));
    });
  }

  void welcome(Tcp::socket socket) {
    auto session = std::make_shared<HttpSession>(std::move(socket), server);
    if (active() >= server.limits.connections) make_room();
    const bool room = active() < server.limits.connections;
    sessions.emplace(session.get(), session);
    count = sessions.size();
    if (room) return session->start();
    HttpResponse busy = error_response({503, "too_many_connections", "there are too many connections", "", 5});
    busy.close = true;
    session->refuse(std::move(busy));
  }

  size_t active() const {
    return static_cast<size_t>(
        std::count_if(sessions.begin(), sessions.end(), [](const auto& item) { return !item.second->is_closed(); }));
  }

  // Cuts off the client that has let us wait for longest, in sending its request or in reading its answer; none when
  // all wait for us.
  void make_room() {
    HttpSession* slowest = nullptr;
    for (const auto& [session, kept] : sessions) {
      const auto since = session->is_closed() ? std::nullopt : session->waits_for_client_since();
      if (since && (slowest == nullptr || *since < *slowest->waits_for_client_since())) slowest = session;
    }
    if (slowest != nullptr) slowest->close();
  }

  void stop(std::chrono::milliseconds grace) {
    if (!thread.joinable()) {
      ErrorCode ignored;
      acceptor.close(ignored);
      return;
    }
    asio::post(context, [this] {
      server.stopping = true;
      ErrorCode ignored;
      acceptor.close(ignored);
      wait.cancel();
      for (const auto& kept : all()) kept->finish();
    });
    const auto until = std::chrono::steady_clock::now() + grace;
    while (count > 0 && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      asio::post(context, [this] {
        for (const auto& kept : all()) kept->finish();
      });
    }
    asio::post(context, [this] {
      for (const auto& kept : all()) kept->close();
    });
    work.reset();
    thread.join();
    sessions.clear();
  }

  std::vector<std::shared_ptr<HttpSession>> all() const {
    std::vector<std::shared_ptr<HttpSession>> list;
    for (const auto& [session, kept] : sessions) list.push_back(kept);
    return list;
  }

  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{context.get_executor()};
  Tcp::acceptor acceptor;
  asio::steady_timer wait;
  HttpSession::Server server;
  std::unordered_map<HttpSession*, std::shared_ptr<HttpSession>> sessions;
  std::atomic<size_t> count{0};
  uint16_t port = 0;
  std::thread thread;
};

HttpServer::HttpServer(const std::string& host, uint16_t port, HttpHooks hooks, const HttpLimits& limits)
    : impl_(std::make_shared<Impl>(std::move(hooks), limits)) {
  impl_->listen(host, port);
  impl_->port = impl_->acceptor.local_endpoint().port();
}

void HttpServer::start() {
  impl_->accept();
  impl_->thread = std::thread([impl = impl_.get()] {
    while (true) {
      try {
        impl->context.run();
        return;
      } catch (const std::exception& error) {  // a fault of one connection is not the others'
        log_error("HTTP server: ", printable(error.what(), 1000));
      }
    }
  });
}

HttpServer::~HttpServer() { stop(); }
uint16_t HttpServer::port() const { return impl_->port; }
size_t HttpServer::connections() const { return impl_->count; }
void HttpServer::stop(std::chrono::milliseconds grace) { impl_->stop(grace); }

}  // namespace mdm::serving
