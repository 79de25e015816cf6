#include "mdm/ops/memory.h"

#include <cstdlib>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "ops/kept_memory.h"

namespace mdm::ops {

void return_freed_memory() {
  release_kept_memory();
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace mdm::ops
