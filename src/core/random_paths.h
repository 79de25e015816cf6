// Which vector unit fills a buffer with random numbers. Every path gives the same bits; the choice exists
// for the tests, which compare them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/philox_math.h"
#include "mdm/core/random.h"

namespace mdm::detail {

enum class RandomPath { kPortable, kAvx2, kAvx512 };

/// Whether this machine (and this build) can run the path.
bool random_path_available(RandomPath path);

void random_bits_on(RandomPath path, const RandomAddress& address, uint64_t first, uint32_t* out, size_t count);
void random_uniform_on(RandomPath path, const RandomAddress& address, uint64_t first, float* out, size_t count);
void random_normal_on(RandomPath path, const RandomAddress& address, uint64_t first, float* out, size_t count);

/// The key and the counter's upper half that belong to an address (see random_bits in mdm/core/random.h).
philox::Sequence random_sequence(const RandomAddress& address);

}  // namespace mdm::detail
