// The version of libmdm.
#pragma once

namespace mdm {

/// "MAJOR.MINOR.PATCH".
const char* version();

}  // namespace mdm
