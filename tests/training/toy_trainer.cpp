// A training run as a program of its own, for tests that kill and stop it: toy_trainer FOLDER STEPS SAVE_FREQ
// [--slow MILLISECONDS] [--nested]. Goes on from the folder's last checkpoint. Prints "digest HEX" at the end;
// exit codes are those of train_parallel.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "mdm/core/error.h"
#include "mdm/training/train_job.h"
#include "training/support.h"

namespace {

std::atomic<bool> stop{false};

extern "C" void on_signal(int signal) {
  if (stop.exchange(true)) ::_exit(128 + signal);
}

int train(int argc, char** argv) {
  using mdm::training_test::digest;
  using mdm::training_test::kHalfMixed;
  using mdm::training_test::tiny_config;
  using mdm::training_test::ToyRun;
  int slow = 0;
  bool nested = false;
  for (int i = 4; i < argc; ++i) {
    if (std::strcmp(argv[i], "--slow") == 0 && i + 1 < argc) slow = std::atoi(argv[++i]);
    if (std::strcmp(argv[i], "--nested") == 0) nested = true;
  }
  mdm::Config config = tiny_config(nested, nested ? kHalfMixed : mdm::Overrides());
  config.trainer.num_training_steps = std::atoll(argv[2]);
  config.trainer.save_freq = std::atoll(argv[3]);
  config.trainer.keep_last = 2;
  mdm::RunDirectory run(argv[1], {config.trainer.keep_last, 0});
  ToyRun toy(config, /*learned_text=*/true);
  toy.parts.run = &run;
  toy.parts.stop = &stop;
  toy.parts.on_step = [slow](const mdm::StepReport& report) {
    std::printf("step %llu\n", static_cast<unsigned long long>(report.step));
    std::fflush(stdout);
    if (slow > 0) std::this_thread::sleep_for(std::chrono::milliseconds(slow));
  };
  const auto trainer = toy.make_trainer();
  if (const auto saved = run.latest()) trainer->resume(*saved);
  const mdm::TrainingEnd end = trainer->run();
  if (end == mdm::TrainingEnd::kStopped) return mdm::kStoppedExitCode;
  std::printf("digest %s\n", digest(trainer->arena()).c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) ::signal(signal, on_signal);
  if (argc < 4) return 2;
  try {
    return train(argc, argv);
  } catch (const mdm::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
