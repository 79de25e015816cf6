// How launchers tell their processes who they are.
// Sources: torchrun's documentation (Environment Variables), ompi's orterun(1), Hydra's and PMIx's variables, srun(1).
#include "mdm/distributed/launch.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <vector>

#include "mdm/core/error.h"

namespace mdm {
namespace {

constexpr int64_t kMostProcesses = int64_t{1} << 24;
constexpr int64_t kMostPorts = 65535;
constexpr int64_t kFirstDerivedPort = 20000, kDerivedPorts = 10000;  // below the ports that systems hand out

// What one launcher says. Each variable may be missing.
struct Claim {
  const char* source;
  const char* rank_name;
  const char* size_name;
  std::optional<int64_t> rank, size, local_rank, local_size;

  bool complete() const { return rank.has_value() && size.has_value(); }
};

class Detector {
 public:
  Detector(const DistributedConfig& flags, const Environment& environment) : flags_(flags), environment_(environment) {}

  Launch detect() {
    const std::vector<Claim> claims = all_claims();
    Launch launch;
    const auto chosen = std::find_if(claims.begin(), claims.end(), [](const Claim& c) { return c.complete(); });
    if (chosen == claims.end()) {
      refuse_halves(claims);
    } else {
      launch.rank = *chosen->rank;
      launch.world_size = *chosen->size;
      launch.source = chosen->source;
      refuse_contradictions(*chosen, claims);
      if (launch.rank >= launch.world_size) {
        fail<ConfigError>("rank ", launch.rank, " (", chosen->rank_name, ") is not below the number of processes, ",
                          launch.world_size, " (", chosen->size_name, "), says ", chosen->source);
      }
      set_local(*chosen, claims, launch);
    }
    if (launch.world_size == 1) {
      launch.local_world_size = 1;
      launch.local_rank = 0;
    }
    set_address(launch);
    set_port(launch);
    launch.agent_holds_store = environment_("TORCHELASTIC_USE_AGENT_STORE") == std::optional<std::string>("True");
    launch.attempt = number("TORCHELASTIC_RESTART_COUNT", 0, kMostProcesses).value_or(0);
    return launch;
  }

 private:
  std::optional<int64_t> number(const char* name, int64_t least, int64_t most) const {
    const auto text = environment_(name);
    if (!text || text->empty()) return std::nullopt;
    const bool digits = text->size() <= 18 && text->find_first_not_of("0123456789") == std::string::npos;
    const int64_t value = digits ? std::stoll(*text) : -1;
    if (!digits || value < least || value > most) {
      fail<ConfigError>("the environment's ", name, " is \"", printable(*text, 60), "\", not a whole number in ", least,
                        "..", most);
    }
    return value;
  }

  Claim claim(const char* source, const char* rank, const char* size, const char* local_rank, const char* local_size) {
    Claim c{source, rank, size, {}, {}, {}, {}};
    c.rank = number(rank, 0, kMostProcesses);
    if (size != nullptr) c.size = number(size, 1, kMostProcesses);
    if (local_rank != nullptr) c.local_rank = number(local_rank, 0, kMostProcesses);
    if (local_size != nullptr) c.local_size = number(local_size, 1, kMostProcesses);
    return c;
  }

  // In the order in which they count.
  std::vector<Claim> all_claims() {
    Claim own{"the command line", "--rank", "--world-size", {}, {}, {}, {}};
    if (flags_.rank >= 0) own.rank = flags_.rank;
    if (flags_.world_size >= 1) own.size = flags_.world_size;
    Claim torchrun = claim("torchrun's environment", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE");
    std::vector<Claim> claims = {own, torchrun};
    if (torchrun.complete() && environment_("TORCHELASTIC_RUN_ID")) return claims;  // the others started torchrun
    const Claim open_mpi = claim("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                                 "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE");
    const Claim mpich = claim("MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS");
    Claim pmix = claim("PMIx", "PMIX_RANK", nullptr, "PMIX_LOCAL_RANK", nullptr);
    Claim slurm = claim("Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", nullptr);
    if (!slurm.size) slurm.size = number("SLURM_NPROCS", 1, kMostProcesses);
    pmix.size_name = "SLURM_NTASKS";
    if (pmix.rank && slurm.rank == pmix.rank) pmix.size = slurm.size;  // PMIx's server alone knows it
    if (slurm.size && environment_("SLURM_STEP_NUM_NODES") == std::optional<std::string>("1")) {
      slurm.local_size = slurm.size;
    }
    claims.insert(claims.end(), {open_mpi, mpich, pmix});
    // Slurm's variables are also those of the batch script, or of the daemons that an MPI has started its processes
    // with: they say nothing where another launcher does.
    const bool others = std::any_of(claims.begin(), claims.end(), [](const Claim& c) { return c.complete(); });
    const bool batch_script = !environment_("SLURM_STEP_ID");
    if (!others && !batch_script) claims.push_back(slurm);
    return claims;
  }

  void refuse_contradictions(const Claim& chosen, const std::vector<Claim>& claims) const {
    for (const Claim& other : claims) {
      const bool rank = other.rank && other.rank != chosen.rank;
      const bool size = other.size && other.size != chosen.size;
      if (!rank && !size) continue;
      const char* own_name = rank ? chosen.rank_name : chosen.size_name;
      const char* other_name = rank ? other.rank_name : other.size_name;
      fail<ConfigError>(own_name, " is ", rank ? *chosen.rank : *chosen.size, " (", chosen.source, "), but ",
                        other_name, " is ", rank ? *other.rank : *other.size, " (", other.source,
                        "): unset the variables of the launcher that isn't in use");
    }
  }

  // Nobody says both numbers; what there is must not look like a part of something.
  void refuse_halves(const std::vector<Claim>& claims) const {
    for (const Claim& c : claims) {
      const bool alone = c.size.value_or(1) == 1 && c.rank.value_or(0) == 0 && (c.size || c.rank == 0);
      if ((!c.rank && !c.size) || (alone && c.size)) continue;
      if (c.rank) {
        fail<ConfigError>(c.rank_name, " is ", *c.rank, " (", c.source,
                          "), but nothing says how many processes there are",
                          c.size_name != nullptr ? concat(": set ", c.size_name) : std::string());
      }
      fail<ConfigError>(c.size_name, " is ", *c.size, " (", c.source, "), but ", c.rank_name, " is not set");
    }
  }

  // The number on this machine may be another launcher's to tell, when flags or RANK stand before it.
  void set_local(const Claim& chosen, const std::vector<Claim>& claims, Launch& launch) const {
    const auto take = [&](const Claim& c) {
      if (!c.local_rank) return false;
      launch.local_rank = *c.local_rank;
      launch.local_world_size = c.local_size;
      return true;
    };
    if (take(chosen)) return check_local(launch);
    for (const Claim& c : claims) {
      if (take(c)) return check_local(launch);
    }
    launch.local_rank = launch.rank;  // the best guess: one machine
  }

  static void check_local(const Launch& launch) {
    if (launch.local_rank >= launch.local_world_size.value_or(launch.world_size)) {
      fail<ConfigError>("local rank ", launch.local_rank, " is not below the number of processes on this machine, ",
                        launch.local_world_size.value_or(launch.world_size));
    }
  }

  void set_address(Launch& launch) const {
    const auto named = environment_("MASTER_ADDR");
    if (!flags_.master_addr.empty()) {
      launch.master_addr = flags_.master_addr;
    } else if (named && !named->empty()) {
      launch.master_addr = *named;
    } else if (launch.all_local() || !flags_.rendezvous_file.empty()) {
      launch.master_addr = "127.0.0.1";
    } else {
      for (const char* name : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"}) {
        const auto list = environment_(name);
        if (list && !first_slurm_host(*list).empty()) {
          launch.master_addr = first_slurm_host(*list);
          return;
        }
      }
      fail<ConfigError>("there are ", launch.world_size, " processes (", launch.source,
                        "), and nothing says on which machine rank 0 is: give --master-addr HOST or set MASTER_ADDR "
                        "(127.0.0.1 when all are on this one)");
    }
  }

  void set_port(Launch& launch) const {
    if (flags_.master_port > 0) {
      launch.master_port = flags_.master_port;
      return;
    }
    if (const auto port = number("MASTER_PORT", 1, kMostPorts)) {
      launch.master_port = *port;
      return;
    }
    if (launch.world_size == 1) return;
    for (const char* name : {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "SLURM_JOB_ID"}) {
      const auto job = environment_(name);
      if (!job || job->empty()) continue;
      std::string key = *job;
      if (const auto step = environment_("SLURM_STEP_ID"); step && std::string(name) == "SLURM_JOB_ID")
        key += "." + *step;
      uint32_t hash = 0x811c9dc5;  // FNV-1a
      for (const char c : key) hash = (hash ^ static_cast<unsigned char>(c)) * 0x01000193;
      launch.master_port = kFirstDerivedPort + static_cast<int64_t>(hash % kDerivedPorts);
      return;
    }
  }

  const DistributedConfig& flags_;
  const Environment& environment_;
};

}  // namespace

Environment process_environment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value != nullptr ? std::optional<std::string>(value) : std::nullopt;
  };
}

std::string first_slurm_host(const std::string& node_list) {
  const size_t open = node_list.find('[');
  const size_t comma = node_list.find(',');
  if (open == std::string::npos || comma < open) return node_list.substr(0, comma);
  const size_t close = node_list.find(']', open);
  if (close == std::string::npos) return "";
  const std::string inside = node_list.substr(open + 1, close - open - 1);
  const std::string first = inside.substr(0, inside.find_first_of(",-"));
  return node_list.substr(0, open) + first + first_slurm_host(node_list.substr(close + 1));
}

Launch detect_launch(const DistributedConfig& flags, const Environment& environment) {
  return Detector(flags, environment).detect();
}

}  // namespace mdm
