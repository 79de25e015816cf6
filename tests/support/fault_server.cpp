#include "support/fault_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <unordered_map>

#include "mdm/media/jpeg.h"
#include "mdm/media/png.h"

namespace mdm::test_support {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kEndlessChunk = size_t{1} << 16;
constexpr double kSlowSeconds = 1.5;
constexpr int kSlowPieces = 20;

// A picture of soft waves: it costs about as many bytes as a photograph.
std::string make_template(int number, int side, int quality) {
  Image image(side * 4 / 3, side, 3);
  uint32_t noise = static_cast<uint32_t>(number) * 2654435761u + 1;
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      noise = noise * 1664525u + 1013904223u;
      const double grain = (noise >> 24) / 16.0;
      uint8_t* pixel = image.row(y) + 3 * x;
      for (int c = 0; c < 3; ++c) {
        const double wave = std::sin(x * 0.05 * (c + 1) + number) + std::cos(y * 0.07 + c * number);
        pixel[c] = static_cast<uint8_t>(120 + 45 * wave + grain);
      }
    }
  }
  return encode_jpeg(image, quality);
}

std::string with_comment(const std::string& jpeg, const std::string& text) {
  std::string comment("\xFF\xFE\0", 3);
  comment += static_cast<char>(text.size() + 2);
  std::string bytes;
  bytes.reserve(jpeg.size() + 64);
  bytes.append(jpeg, 0, 2).append(comment).append(text).append(jpeg, 2, std::string::npos);
  return bytes;
}

// So many zeros, compressed.
std::string gzip_bomb() {
  constexpr size_t kBytes = size_t{64} << 20;
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, 31, 9, Z_DEFAULT_STRATEGY);
  std::string zeros(size_t{1} << 20, '\0'), out(size_t{1} << 18, '\0');
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  for (size_t done = 0; done < kBytes; done += zeros.size()) {
    stream.next_in = reinterpret_cast<Bytef*>(zeros.data());
    stream.avail_in = static_cast<uInt>(zeros.size());
    deflate(&stream, done + zeros.size() == kBytes ? Z_FINISH : Z_NO_FLUSH);
  }
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string png_that_claims(uint32_t side) {
  std::string file = encode_png(Image(4, 4, 3, 7));
  for (const size_t at : {size_t{16}, size_t{20}}) {
    for (int i = 0; i < 4; ++i) file[at + static_cast<size_t>(i)] = static_cast<char>(side >> (24 - 8 * i));
  }
  const uLong sum = crc32(0, reinterpret_cast<const Bytef*>(file.data()) + 12, 17);
  for (int i = 0; i < 4; ++i) file[29 + static_cast<size_t>(i)] = static_cast<char>(sum >> (24 - 8 * i));
  return file;
}

std::string head(const std::string& status, const std::string& headers) {
  return "HTTP/1.1 " + status + "\r\n" + headers + "\r\n";
}

std::string answer(const std::string& body, const std::string& type = "image/jpeg", const std::string& more = "",
                   const std::string& status = "200 OK") {
  return head(status, "Content-Type: " + type + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + more) +
         body;
}

std::string chunked(const std::string& body) {
  std::string text = head("200 OK", "Transfer-Encoding: chunked\r\n");
  for (size_t at = 0; at < body.size(); at += 1000) {
    const std::string part = body.substr(at, 1000);
    char size[16];
    std::snprintf(size, sizeof size, "%zx\r\n", part.size());
    text += size + part + "\r\n";
  }
  return text + "0\r\n\r\n";
}

}  // namespace

const std::vector<FaultKind>& fault_kinds() {
  static const std::vector<FaultKind> kinds = {
      {"good", true, ""},
      {"same", false, "duplicate_content"},  // all but one
      {"png", true, ""},
      {"notfound", false, "status_404"},
      {"gone", false, "status_410"},
      {"forbidden", false, "status_403"},
      {"busy", true, ""},   // 429 with Retry-After: 1 at first
      {"flaky", true, ""},  // 500 at first
      {"dead", false, "status_500"},
      {"redirect", true, ""},
      {"relative", true, ""},
      {"loop", false, "redirect"},
      {"far", false, "redirect"},
      {"scheme", false, "redirect"},
      {"slow", true, ""},
      {"stall", false, "timeout"},   // headers and ten bytes, then nothing
      {"silent", false, "timeout"},  // never answers
      {"reset", false, "connection"},
      {"cut", false, "connection"},
      {"chunked", true, ""},
      {"badchunk", false, "connection"},
      {"wrongtype", true, ""},
      {"html", false, "not_an_image"},
      {"gzip", false, "not_an_image"},
      {"empty", false, "empty"},
      {"endless", false, "too_large"},
      {"large", false, "too_large"},
      {"robots", false, "robots"},
      {"otherbot", true, ""},
      {"truncated", false, "broken_image"},
      {"corrupt", false, "broken_image"},
      {"bomb", false, "too_many_pixels"},
      {"gif", false, "not_an_image"},
      {"svg", false, "not_an_image"},
      {"hugeheader", false, "too_large"},
  };
  return kinds;
}

const FaultKind& fault_kind(const std::string& name) {
  for (const FaultKind& kind : fault_kinds()) {
    if (name == kind.name) return kind;
  }
  throw std::runtime_error("no such kind of fault: " + name);
}

FaultList fault_list(const std::string& base_url, uint64_t count, bool faults) {
  FaultList list;
  for (uint64_t i = 0; i < count; ++i) {
    // Kinds that hold a connection for seconds are rarer, as on the web; else a list would be a test of patience.
    const auto& kinds = fault_kinds();
    const FaultKind* kind = faults && i % 4 != 0 ? &kinds[(i * 7 + i / 4) % kinds.size()] : kinds.data();
    const std::string name = kind->name;
    if ((name == "slow" || name == "stall" || name == "silent" || name == "busy") && i % 5 != 1) kind = kinds.data();
    list.rows.push_back(kind);
    list.text += base_url + '/' + kind->name + '/' + std::to_string(i) + ".jpg\tpicture " + std::to_string(i) + '\n';
  }
  return list;
}

struct FaultServer::Reply {
  std::string bytes;
  enum class End { kKeep, kClose, kReset, kHang, kEndless, kPieces } end = End::kKeep;
};

struct FaultServer::Connection {
  int socket = -1;
  std::string in, out;
  size_t sent = 0;
  size_t allowed = 0;  // of `out`, for pieces
  Reply::End end = Reply::End::kKeep;
  bool busy = false;
  Clock::time_point next_piece{};
};

FaultServer::FaultServer(const FaultServerOptions& options) : options_(options) {
  for (int i = 0; i < options.templates; ++i) templates_.push_back(make_template(i, options.side, options.quality));
  port_ = options.port;
  start_again();
}

FaultServer::~FaultServer() { stop(); }

void FaultServer::start_again() {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int yes = 1;
  ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port_));
  socklen_t size = sizeof address;
  if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener_, 4096) != 0) {
    throw std::runtime_error(std::string("the fault server can't listen: ") + std::strerror(errno));
  }
  ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  end_ = false;
  thread_ = std::thread([this] { serve(); });
}

void FaultServer::stop() {
  end_ = true;
  if (thread_.joinable()) thread_.join();
  if (listener_ >= 0) ::close(listener_);
  listener_ = -1;
}

std::string FaultServer::url(const std::string& kind, uint64_t number) const {
  return "http://127.0.0.1:" + std::to_string(port_) + '/' + kind + '/' + std::to_string(number) + ".jpg";
}

std::string FaultServer::good_picture(uint64_t number) const {
  return with_comment(templates_[number % templates_.size()], std::to_string(number));
}

std::map<std::string, int> FaultServer::requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return requests_;
}

FaultServer::Reply FaultServer::reply_to(const std::string& path) {
  using End = Reply::End;
  int times = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    times = ++requests_[path];
  }
  const size_t slash = path.find('/', 1);
  const std::string kind = path.substr(1, slash == std::string::npos ? std::string::npos : slash - 1);
  const uint64_t number = slash == std::string::npos ? 0 : std::strtoull(path.c_str() + slash + 1, nullptr, 10);
  const std::string good = "/good/" + std::to_string(number) + ".jpg";
  const auto picture = [&] { return good_picture(number); };
  const auto redirect = [](const std::string& to) {
    return answer("moved", "text/html", "Location: " + to + "\r\n", "302 Found");
  };
  if (kind == "good") return {answer(picture())};
  if (kind == "same") return {answer(templates_[0])};
  if (kind == "png") {
    Image image(12, 9, 3, static_cast<uint8_t>(number));
    for (int i = 0; i < 3; ++i) image.pixels[static_cast<size_t>(i)] = static_cast<uint8_t>(number >> (8 * i));
    return {answer(encode_png(image, {}, 1), "image/png")};
  }
  if (kind == "notfound") return {answer("<html>not here</html>", "text/html", "", "404 Not Found")};
  if (kind == "gone") return {answer("", "text/html", "", "410 Gone")};
  if (kind == "forbidden") return {answer("", "text/html", "", "403 Forbidden")};
  if (kind == "busy")
    return {times == 1 ? answer("", "text/html", "Retry-After: 1\r\n", "429 Too Many Requests") : answer(picture())};
  if (kind == "flaky") return {times == 1 ? answer("", "text/html", "", "500 Oops") : answer(picture())};
  if (kind == "dead") return {answer("", "text/html", "", "500 Oops")};
  if (kind == "redirect") return {redirect("http://127.0.0.1:" + std::to_string(port_) + good)};
  if (kind == "relative") return {redirect("../good/" + std::to_string(number) + ".jpg")};
  if (kind == "loop") return {redirect(path)};
  if (kind == "far")
    return {redirect("/far/" + std::to_string(number) + "/" + std::to_string(times) + path.substr(path.size() / 2))};
  if (kind == "scheme") return {redirect("file:///etc/passwd")};
  if (kind == "slow") return {answer(picture()), End::kPieces};
  if (kind == "stall") return {answer(picture()).substr(0, 90), End::kHang};
  if (kind == "silent") return {"", End::kHang};
  if (kind == "reset") return {answer(picture()).substr(0, 500), End::kReset};
  if (kind == "cut") return {answer(picture()).substr(0, 500), End::kClose};
  if (kind == "chunked") return {chunked(picture())};
  if (kind == "badchunk") return {head("200 OK", "Transfer-Encoding: chunked\r\n") + "zz\r\nnonsense", End::kClose};
  if (kind == "wrongtype") return {answer(picture(), "text/plain")};
  if (kind == "html") return {answer("<html><body>no picture " + std::to_string(number) + "</body></html>")};
  if (kind == "gzip") {
    static const std::string bomb = gzip_bomb();
    return {answer(bomb, "image/jpeg", "Content-Encoding: gzip\r\n")};
  }
  if (kind == "empty") return {answer("")};
  if (kind == "endless") return {head("200 OK", "Content-Type: image/jpeg\r\n") + picture(), End::kEndless};
  if (kind == "large") return {head("200 OK", "Content-Length: 10737418240\r\n"), End::kEndless};
  if (kind == "robots") return {answer(picture(), "image/jpeg", "X-Robots-Tag: noai\r\n")};
  if (kind == "otherbot") return {answer(picture(), "image/jpeg", "X-Robots-Tag: somebot: noindex\r\n")};
  if (kind == "truncated") return {answer(picture().substr(0, picture().size() / 2))};
  if (kind == "corrupt") {
    std::string bytes = picture();  // zeros in the scan, and its end as it was
    std::fill(bytes.begin() + static_cast<ptrdiff_t>(bytes.size() / 2), bytes.end() - 2, '\0');
    return {answer(bytes)};
  }
  if (kind == "bomb") return {answer(png_that_claims(60000), "image/png")};
  if (kind == "gif")
    return {answer(
        std::string("GIF89a\x01\0\x01\0\x80\0\0\xFF\xFF\xFF\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0;", 35),
        "image/gif")};
  if (kind == "svg") return {answer("<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "image/svg+xml")};
  if (kind == "hugeheader")
    return {head("200 OK", "X-Long: " + std::string(size_t{1} << 20, 'h') + "\r\n") + picture(), End::kClose};
  return {answer("", "text/html", "", "404 Not Found")};
}

// The connections and what happens on them.
struct FaultServer::Loop {
  explicit Loop(FaultServer& owner) : server(owner), poll(::epoll_create1(EPOLL_CLOEXEC)) {
    watch(EPOLL_CTL_ADD, server.listener_, EPOLLIN);
  }
  ~Loop() {
    for (auto& [socket, connection] : connections) ::close(socket);
    ::close(poll);
  }

  void watch(int how, int socket, uint32_t events) const {
    epoll_event event{};
    event.events = events;
    event.data.fd = socket;
    ::epoll_ctl(poll, how, socket, &event);
  }

  void accept_all() {
    for (;;) {
      const int socket = ::accept4(server.listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (socket < 0) return;
      const int yes = 1;
      ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
      connections[socket].socket = socket;
      watch(EPOLL_CTL_ADD, socket, EPOLLIN);
      server.most_connections_ = std::max<uint64_t>(server.most_connections_, connections.size());
    }
  }

  void drop(Connection& connection, bool reset = false) {
    if (reset) {
      const linger now{1, 0};
      ::setsockopt(connection.socket, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    ::close(connection.socket);
    in_pieces.erase(std::remove(in_pieces.begin(), in_pieces.end(), connection.socket), in_pieces.end());
    connections.erase(connection.socket);
  }

  // False when the connection is gone.
  bool read(Connection& connection) {
    char buffer[16384];
    const ssize_t count = ::recv(connection.socket, buffer, sizeof buffer, 0);
    if (count <= 0) {
      if (count < 0 && (errno == EAGAIN || errno == EINTR)) return true;
      drop(connection);
      return false;
    }
    connection.in.append(buffer, static_cast<size_t>(count));
    return begin(connection);
  }

  bool begin(Connection& connection) {
    const size_t end = connection.in.find("\r\n\r\n");
    if (connection.busy || end == std::string::npos) return true;
    const size_t first = connection.in.find(' '), second = connection.in.find(' ', first + 1);
    const std::string path = connection.in.substr(first + 1, second - first - 1);
    connection.in.erase(0, end + 4);
    Reply reply = server.reply_to(path);
    connection.busy = true;
    connection.out = std::move(reply.bytes);
    connection.sent = 0;
    connection.end = reply.end;
    connection.allowed = connection.out.size();
    if (reply.end == Reply::End::kPieces) {
      connection.allowed = connection.out.size() / kSlowPieces;
      connection.next_piece =
          Clock::now() + std::chrono::milliseconds(static_cast<int>(1000 * kSlowSeconds / kSlowPieces));
      in_pieces.push_back(connection.socket);
    }
    return write(connection);
  }

  bool write(Connection& connection) {
    for (;;) {
      while (connection.sent < connection.allowed) {
        const ssize_t count = ::send(connection.socket, connection.out.data() + connection.sent,
                                     connection.allowed - connection.sent, MSG_NOSIGNAL);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
          watch(EPOLL_CTL_MOD, connection.socket, EPOLLIN | EPOLLOUT);
          return true;
        }
        if (count <= 0) {
          drop(connection);
          return false;
        }
        connection.sent += static_cast<size_t>(count);
      }
      if (connection.end != Reply::End::kEndless) break;
      connection.out.assign(kEndlessChunk, 'e');
      connection.sent = 0;
      connection.allowed = connection.out.size();
    }
    if (connection.sent < connection.out.size()) return true;  // more pieces later
    watch(EPOLL_CTL_MOD, connection.socket, EPOLLIN);
    if (connection.end == Reply::End::kHang) return true;
    if (connection.end == Reply::End::kClose || connection.end == Reply::End::kReset) {
      drop(connection, connection.end == Reply::End::kReset);
      return false;
    }
    in_pieces.erase(std::remove(in_pieces.begin(), in_pieces.end(), connection.socket), in_pieces.end());
    connection.busy = false;
    return begin(connection);
  }

  void next_pieces() {
    for (const int socket : std::vector<int>(in_pieces)) {
      Connection& connection = connections.at(socket);
      if (connection.next_piece > Clock::now()) continue;
      connection.next_piece += std::chrono::milliseconds(static_cast<int>(1000 * kSlowSeconds / kSlowPieces));
      connection.allowed =
          std::min(connection.out.size(), connection.allowed + connection.out.size() / kSlowPieces + 1);
      write(connection);
    }
  }

  void run() {
    epoll_event events[256];
    while (!server.end_) {
      const int count = ::epoll_wait(poll, events, 256, in_pieces.empty() ? 50 : 10);
      for (int i = 0; i < count; ++i) {
        if (events[i].data.fd == server.listener_) {
          accept_all();
          continue;
        }
        const auto found = connections.find(events[i].data.fd);
        if (found == connections.end()) continue;
        bool there = true;
        if ((events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) there = read(found->second);
        if (there && (events[i].events & EPOLLOUT) != 0) write(found->second);
      }
      next_pieces();
    }
  }

  FaultServer& server;
  int poll;
  std::unordered_map<int, Connection> connections;
  std::vector<int> in_pieces;
};

void FaultServer::serve() { Loop(*this).run(); }

}  // namespace mdm::test_support
