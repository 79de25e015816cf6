// Which of how many processes this one is, and where rank 0 is: what flags and the launcher's environment say.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "mdm/config/distributed_config.h"

namespace mdm {

struct Launch {
  int64_t rank = 0;        ///< of all processes
  int64_t world_size = 1;  ///< processes in all
  int64_t local_rank = 0;  ///< of those on this machine: the number of its GPU
  /// On this machine; nothing when it isn't known.
  std::optional<int64_t> local_world_size;
  std::string master_addr = "127.0.0.1";  ///< of rank 0
  int64_t master_port = 29500;
  /// torchrun's agent listens there, not rank 0 (TORCHELASTIC_USE_AGENT_STORE).
  bool agent_holds_store = false;
  int64_t attempt = 0;                      ///< torchrun's restarts so far; what they left in the store doesn't count
  std::string source = "a single process";  ///< who said so, for messages

  bool all_local() const { return local_world_size == world_size; }
};

/// The value of an environment variable, nothing when it is not set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
Environment process_environment();

/// The first of these that numbers the processes: flags (rank, world_size); torchrun's RANK, WORLD_SIZE; Open MPI;
/// MPICH and Intel MPI (Hydra's PMI_RANK, PMI_SIZE); PMIx; Slurm. None: a single process.
///
/// Two that disagree are a ConfigError that names both, but for launchers that start each other: torchrun's workers
/// see the variables of the launcher that started torchrun, and those of MPI the ones of Slurm; the inner one counts.
/// Rank 0's address: flag, MASTER_ADDR, this machine when all processes are on it, the first host of Slurm's list.
/// Its port: flag, MASTER_PORT, a number in [20000, 30000) made of the launcher's job identifier (two jobs on one
/// machine then seldom meet), 29500. ConfigError for a rank outside of the world, one variable without its partner,
/// numbers that are none, or when the address of rank 0 can't be known.
Launch detect_launch(const DistributedConfig& flags, const Environment& environment);

/// The first host of a Slurm node list: "gpu[07-09,12],login1" -> "gpu07"; "" for an empty one.
std::string first_slurm_host(const std::string& node_list);

}  // namespace mdm
