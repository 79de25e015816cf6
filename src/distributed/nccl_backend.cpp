// Collectives on GPUs.
#include "distributed/backend.h"
#include "mdm/core/error.h"

#ifdef MDM_HAS_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

namespace mdm {

#ifdef MDM_HAS_NCCL

c10::intrusive_ptr<c10d::Backend> make_nccl_backend(const BackendRequest& request) {
  const auto options = c10d::ProcessGroupNCCL::Options::create(/*is_high_priority_stream=*/true);
  options->timeout = request.timeout;
  options->group_name = "mdm";
  const auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(request.store, static_cast<int>(request.rank),
                                                                   static_cast<int>(request.world_size), options);
  backend->setBoundDeviceId(request.device);
  return backend;
}

void abort_nccl_backend(c10d::Backend& backend) {
  if (auto* nccl = dynamic_cast<c10d::ProcessGroupNCCL*>(&backend)) nccl->abort();
}

#else

c10::intrusive_ptr<c10d::Backend> make_nccl_backend(const BackendRequest& /*request*/) {
  fail<ConfigError>("backend: this build of libmdm has no NCCL, so several processes can't work together on GPUs");
}

void abort_nccl_backend(c10d::Backend& /*backend*/) {}

#endif

}  // namespace mdm
