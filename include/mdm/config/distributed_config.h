// What a user can set about processes that work together.
#pragma once

#include <cstdint>
#include <string>

namespace mdm {

enum class CollectiveBackend { kAuto, kGloo, kNccl };
/// The name in files and flags: "auto", "gloo", "nccl".
std::string choice_name(CollectiveBackend backend);

struct DistributedConfig {
  // -1 and empty: what the launcher's environment says (distributed/launch.h).
  int64_t rank = -1;            ///< of this process, [0, world_size)
  int64_t world_size = -1;      ///< processes in all
  std::string master_addr;      ///< host of rank 0
  int64_t master_port = -1;     ///< where rank 0 listens, [1, 65535]
  std::string rendezvous_file;  ///< a file that all processes see, instead of host and port

  CollectiveBackend backend = CollectiveBackend::kAuto;  ///< kAuto: NCCL on GPUs, Gloo on CPUs
  double connect_timeout = 60;                           ///< seconds until rank 0 must answer, > 0
  double init_timeout = 1800;                            ///< seconds until all processes must be there, > 0
  double collective_timeout = 600;                       ///< seconds until a collective must be done, > 0
};

}  // namespace mdm
