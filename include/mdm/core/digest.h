// Digests of bytes: what files of checkpoints and downloads are checked against, and what requests are signed with.
// OpenSSL's libcrypto computes them (it uses the CPU's SHA instructions) and stays behind this header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace mdm {

/// A digest of bytes that come part by part. Error when libcrypto can't make one.
class Digest {
 public:
  enum class Kind {
    kSha256,  ///< FIPS 180-4
    kMd5,     ///< RFC 1321; no protection against an adversary, but what S3's ETags are
  };
  explicit Digest(Kind kind);
  ~Digest();
  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;

  void add(const void* bytes, size_t count);
  void add(std::string_view bytes) { add(bytes.data(), bytes.size()); }
  /// The raw bytes: 32 (SHA-256) or 16 (MD5). Nothing can be added afterwards.
  std::string finish();
  /// finish() in lower-case hexadecimal.
  std::string finish_hex();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The SHA-256 of bytes that are all there, in lower-case hexadecimal.
std::string sha256_hex(std::string_view bytes);

/// The digest of a file in lower-case hexadecimal, and its size in bytes. The file is read, not mapped: where the disk
/// gives no bytes there is an Error to go on from instead of a signal.
struct FileDigest {
  std::string hex;
  uint64_t bytes = 0;
};
FileDigest digest_file(const std::filesystem::path& file, Digest::Kind kind = Digest::Kind::kSha256);

/// HMAC-SHA256 (RFC 2104): 32 raw bytes.
std::string hmac_sha256(std::string_view key, std::string_view message);

/// Bytes as lower-case hexadecimal.
std::string to_hex(std::string_view bytes);

/// Bytes in base64 (RFC 4648, section 4), with padding.
std::string to_base64(std::string_view bytes);

}  // namespace mdm
