#include "mdm/core/version.h"

#include "mdm_version.h"

namespace mdm {

const char* version() { return MDM_VERSION_STRING; }

}  // namespace mdm
