#include "mdm/core/digest.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <unistd.h>

#include <cerrno>
#include <climits>
#include <system_error>
#include <vector>

#include "mdm/core/error.h"

namespace mdm {
namespace {

void check(bool worked) {
  if (!worked) fail("libcrypto can't compute a digest (does a policy of this machine forbid it?)");
}

}  // namespace

struct Digest::Impl {
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context{EVP_MD_CTX_new(), &EVP_MD_CTX_free};
};

Digest::Digest(Kind kind) : impl_(std::make_unique<Impl>()) {
  check(impl_->context != nullptr &&
        EVP_DigestInit_ex(impl_->context.get(), kind == Kind::kSha256 ? EVP_sha256() : EVP_md5(), nullptr) == 1);
}
Digest::~Digest() = default;
Digest::Digest(Digest&&) noexcept = default;
Digest& Digest::operator=(Digest&&) noexcept = default;

void Digest::add(const void* bytes, size_t count) { check(EVP_DigestUpdate(impl_->context.get(), bytes, count) == 1); }

std::string Digest::finish() {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned count = 0;
  check(EVP_DigestFinal_ex(impl_->context.get(), bytes, &count) == 1);
  return {reinterpret_cast<const char*>(bytes), count};
}

std::string Digest::finish_hex() { return to_hex(finish()); }

std::string sha256_hex(std::string_view bytes) {
  Digest digest(Digest::Kind::kSha256);
  digest.add(bytes);
  return digest.finish_hex();
}

FileDigest digest_file(const std::filesystem::path& file, Digest::Kind kind) {
  constexpr size_t kChunk = size_t{1} << 22;
  std::vector<char> chunk(kChunk);
  Digest digest(kind);
  FileDigest result;
  const auto broken = [&file](int code) {
    fail(printable(file.string(), 1000), ": ", std::generic_category().message(code));
  };
  const int handle = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (handle < 0) broken(errno);
  ssize_t count = 0;
  while ((count = ::read(handle, chunk.data(), kChunk)) > 0 || (count < 0 && errno == EINTR)) {
    if (count < 0) continue;
    digest.add(chunk.data(), static_cast<size_t>(count));
    result.bytes += static_cast<uint64_t>(count);
  }
  const int code = errno;
  ::close(handle);
  if (count < 0) broken(code);
  result.hex = digest.finish_hex();
  return result;
}

std::string hmac_sha256(std::string_view key, std::string_view message) {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned count = 0;
  check(key.size() <= INT_MAX &&
        HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
             reinterpret_cast<const unsigned char*>(message.data()), message.size(), bytes, &count) != nullptr);
  return {reinterpret_cast<const char*>(bytes), count};
}

std::string to_hex(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

std::string to_base64(std::string_view bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');  // with the NUL that OpenSSL writes
  const int length =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(length));
  return text;
}

}  // namespace mdm
