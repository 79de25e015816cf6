#include "mdm/core/secret.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "mdm/core/digest.h"
#include "mdm/core/error.h"

namespace mdm {

std::string random_hex(size_t bytes) {
  std::string raw(bytes, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(raw.data()), static_cast<int>(bytes)) != 1) {
    fail("the system gives no random numbers");
  }
  return to_hex(raw);
}

bool equal_in_constant_time(std::string_view secret, std::string_view given) {
  // Digests have one length, whatever was digested.
  const std::string a = sha256_hex(secret), b = sha256_hex(given);
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace mdm
