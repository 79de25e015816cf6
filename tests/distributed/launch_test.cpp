// What launchers tell their processes, replayed: the variables are those that each of them sets.
#include "mdm/distributed/launch.h"

#include <gtest/gtest.h>

#include <map>

#include "mdm/core/error.h"

namespace mdm {
namespace {

using Variables = std::map<std::string, std::string>;

Launch detect(const Variables& variables, const DistributedConfig& flags = {}) {
  return detect_launch(flags, [&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found != variables.end() ? std::optional<std::string>(found->second) : std::nullopt;
  });
}

std::string refusal(const Variables& variables, const DistributedConfig& flags = {}) {
  try {
    detect(variables, flags);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

void expect_in(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "'" << part << "' in: " << text;
}

Variables operator+(Variables a, const Variables& b) {
  for (const auto& item : b) a[item.first] = item.second;
  return a;
}

const Variables kTorchrun = {{"RANK", "3"},
                             {"WORLD_SIZE", "8"},
                             {"LOCAL_RANK", "1"},
                             {"LOCAL_WORLD_SIZE", "2"},
                             {"MASTER_ADDR", "node-a"},
                             {"MASTER_PORT", "29511"},
                             {"TORCHELASTIC_RUN_ID", "none"},
                             {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                             {"TORCHELASTIC_RESTART_COUNT", "2"}};
const Variables kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "1"},
                            {"OMPI_COMM_WORLD_SIZE", "4"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                            {"PMIX_RANK", "1"},
                            {"PMIX_NAMESPACE", "3187343361"}};
const Variables kMpich = {{"PMI_RANK", "2"}, {"PMI_SIZE", "4"}, {"MPI_LOCALRANKID", "0"}, {"MPI_LOCALNRANKS", "2"}};
const Variables kSlurm = {{"SLURM_PROCID", "5"},        {"SLURM_NTASKS", "16"},
                          {"SLURM_LOCALID", "1"},       {"SLURM_STEP_ID", "0"},
                          {"SLURM_JOB_ID", "4242"},     {"SLURM_STEP_NODELIST", "gpu[07-09,12]"},
                          {"SLURM_STEP_NUM_NODES", "4"}};

TEST(Launch, OfASingleProcessNeedsNothing) {
  const Launch launch = detect({});
  EXPECT_EQ(launch.rank, 0);
  EXPECT_EQ(launch.world_size, 1);
  EXPECT_TRUE(launch.all_local());
  EXPECT_EQ(detect({{"WORLD_SIZE", "1"}, {"RANK", "0"}}).world_size, 1);
  EXPECT_EQ(detect({{"WORLD_SIZE", "1"}}).world_size, 1);
}

TEST(Launch, ByTorchrun) {
  const Launch launch = detect(kTorchrun);
  EXPECT_EQ(launch.rank, 3);
  EXPECT_EQ(launch.world_size, 8);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.local_world_size, 2);
  EXPECT_EQ(launch.master_addr, "node-a");
  EXPECT_EQ(launch.master_port, 29511);
  EXPECT_TRUE(launch.agent_holds_store);
  EXPECT_EQ(launch.attempt, 2);
  EXPECT_FALSE(launch.all_local());
}

TEST(Launch, ByOpenMpi) {
  const Launch launch = detect(kOpenMpi);
  EXPECT_EQ(launch.rank, 1);
  EXPECT_EQ(launch.world_size, 4);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_TRUE(launch.all_local());
  EXPECT_EQ(launch.master_addr, "127.0.0.1");
  EXPECT_GE(launch.master_port, 20000);
  EXPECT_LT(launch.master_port, 30000);
  EXPECT_EQ(detect(kOpenMpi +
                   Variables{{"OMPI_COMM_WORLD_RANK", "2"}, {"PMIX_RANK", "2"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "2"}})
                .master_port,
            launch.master_port)
      << "the same for all ranks of a job";
  EXPECT_NE(detect(kOpenMpi + Variables{{"PMIX_NAMESPACE", "3187343362"}}).master_port, launch.master_port);
}

TEST(Launch, ByMpich) {
  const Launch launch = detect(kMpich + Variables{{"MASTER_ADDR", "10.0.0.1"}});
  EXPECT_EQ(launch.rank, 2);
  EXPECT_EQ(launch.world_size, 4);
  EXPECT_EQ(launch.local_rank, 0);
  EXPECT_EQ(launch.local_world_size, 2);
  EXPECT_EQ(launch.master_addr, "10.0.0.1");
  expect_in(refusal(kMpich), "--master-addr");
}

TEST(Launch, BySlurm) {
  const Launch launch = detect(kSlurm);
  EXPECT_EQ(launch.rank, 5);
  EXPECT_EQ(launch.world_size, 16);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.master_addr, "gpu07");
  EXPECT_FALSE(launch.all_local());
  const Launch one_node = detect(kSlurm + Variables{{"SLURM_STEP_NUM_NODES", "1"}});
  EXPECT_TRUE(one_node.all_local());
  EXPECT_EQ(one_node.master_addr, "127.0.0.1");
  const Launch pmix = detect(kSlurm + Variables{{"PMIX_RANK", "5"}});
  EXPECT_EQ(pmix.rank, 5);
  EXPECT_EQ(pmix.world_size, 16);
}

TEST(Launch, FlagsComeFirst) {
  DistributedConfig flags;
  flags.rank = 1;
  flags.world_size = 2;
  flags.master_addr = "localhost";
  flags.master_port = 1234;
  const Launch launch = detect({{"MASTER_ADDR", "elsewhere"}, {"MASTER_PORT", "99"}}, flags);
  EXPECT_EQ(launch.rank, 1);
  EXPECT_EQ(launch.world_size, 2);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.master_addr, "localhost");
  EXPECT_EQ(launch.master_port, 1234);
}

// Launchers that start launchers leave their own variables behind.
TEST(Launch, TheInnerLauncherCounts) {
  EXPECT_EQ(detect(kTorchrun + kOpenMpi + kSlurm).world_size, 8);
  EXPECT_EQ(detect(kOpenMpi + kSlurm).world_size, 4);
  const Variables batch_script = {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "16"}, {"SLURM_JOB_ID", "1"}};
  EXPECT_EQ(detect(batch_script).world_size, 1);
}

TEST(Launch, ContradictionsAreErrors) {
  DistributedConfig flags;
  flags.rank = 0;
  flags.world_size = 4;
  flags.master_addr = "localhost";
  expect_in(refusal(kOpenMpi, flags), "--rank is 0 (the command line), but OMPI_COMM_WORLD_RANK is 1 (Open MPI)");
  expect_in(refusal(kOpenMpi + Variables{{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "1"}}),
            "WORLD_SIZE is 2 (torchrun's environment), but OMPI_COMM_WORLD_SIZE is 4 (Open MPI)");
  expect_in(refusal(kOpenMpi + Variables{{"PMIX_RANK", "3"}}), "PMIX_RANK is 3");
}

TEST(Launch, HalvesAndNonsenseAreErrors) {
  expect_in(refusal({{"RANK", "1"}}), "RANK is 1");
  expect_in(refusal({{"WORLD_SIZE", "4"}}), "RANK is not set");
  expect_in(refusal({{"RANK", "4"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "a"}}), "rank 4 (RANK) is not below");
  expect_in(refusal({{"RANK", "one"}, {"WORLD_SIZE", "4"}}), "RANK is \"one\"");
  expect_in(refusal({{"RANK", "-1"}, {"WORLD_SIZE", "4"}}), "RANK is \"-1\"");
  expect_in(refusal({{"RANK", "0"}, {"WORLD_SIZE", "0"}}), "WORLD_SIZE is \"0\"");
  expect_in(refusal(kTorchrun + Variables{{"MASTER_PORT", "70000"}}), "MASTER_PORT");
  expect_in(refusal(kTorchrun + Variables{{"LOCAL_RANK", "2"}}), "local rank 2");
}

TEST(Launch, FirstHostOfASlurmList) {
  EXPECT_EQ(first_slurm_host("gpu07"), "gpu07");
  EXPECT_EQ(first_slurm_host("gpu07,gpu08"), "gpu07");
  EXPECT_EQ(first_slurm_host("gpu[07-09,12],login1"), "gpu07");
  EXPECT_EQ(first_slurm_host("login1,gpu[07-09,12]"), "login1");
  EXPECT_EQ(first_slurm_host("rack[1-2]n[003,7]-ib,x"), "rack1n003-ib");
  EXPECT_EQ(first_slurm_host(""), "");
  EXPECT_EQ(first_slurm_host("gpu[07"), "");
}

}  // namespace
}  // namespace mdm
