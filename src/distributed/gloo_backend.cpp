// Collectives on CPUs.
#include <cstdlib>

#include "distributed/backend.h"
#include "mdm/core/error.h"

#ifdef MDM_HAS_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#endif

namespace mdm {

#ifdef MDM_HAS_GLOO

c10::intrusive_ptr<c10d::Backend> make_gloo_backend(const BackendRequest& request) {
  const auto options = c10d::ProcessGroupGloo::Options::create(request.timeout);
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");  // as in PyTorch
  if (interface != nullptr && *interface != '\0') {
    options->devices = {c10d::ProcessGroupGloo::createDeviceForInterface(interface)};
  } else if (request.address.empty()) {
    options->devices = {c10d::ProcessGroupGloo::createDefaultDevice()};
  } else {
    options->devices = {c10d::ProcessGroupGloo::createDeviceForHostname(request.address)};
  }
  return c10::make_intrusive<c10d::ProcessGroupGloo>(request.store, static_cast<int>(request.rank),
                                                     static_cast<int>(request.world_size), options);
}

#else

c10::intrusive_ptr<c10d::Backend> make_gloo_backend(const BackendRequest& /*request*/) {
  fail<ConfigError>(
      "backend: this build of libmdm has no Gloo (its headers were missing: Debian's libgloo-dev), so "
      "several processes can't work together on CPUs");
}

#endif

}  // namespace mdm
