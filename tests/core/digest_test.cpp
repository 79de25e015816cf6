// Digests against published values.
#include "mdm/core/digest.h"

#include <gtest/gtest.h>

#include "mdm/core/error.h"
#include "mdm/core/files.h"

namespace mdm {
namespace {

TEST(Digest, Sha256KnownAnswers) {  // FIPS 180-2, appendix B
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  Digest parts(Digest::Kind::kSha256);
  const std::string text(1000, 'a');
  for (size_t i = 0; i < 1000; ++i) {
    parts.add(text.data(), i);
    parts.add(text.data(), 1000 - i);
  }
  EXPECT_EQ(parts.finish_hex(), sha256_hex(std::string(1000000, 'a')));
}

TEST(Digest, Md5KnownAnswers) {  // RFC 1321, A.5
  const auto md5 = [](std::string_view text) {
    Digest digest(Digest::Kind::kMd5);
    digest.add(text);
    return digest.finish_hex();
  };
  EXPECT_EQ(md5(""), "d41d8cd98f00b204e9800998ecf8427e");
  EXPECT_EQ(md5("message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
}

TEST(Digest, HmacKnownAnswers) {  // RFC 4231, cases 2 and 6
  EXPECT_EQ(to_hex(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(to_hex(hmac_sha256(std::string(131, '\xAA'), "Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(Digest, OfAFile) {
  const std::filesystem::path file = std::filesystem::path(testing::TempDir()) / "mdm_digest_test";
  write_file(file, "abc");
  const FileDigest digest = digest_file(file);
  EXPECT_EQ(digest.bytes, 3u);
  EXPECT_EQ(digest.hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  std::filesystem::remove(file);
  EXPECT_THROW(digest_file(file), Error);
}

}  // namespace
}  // namespace mdm
