#!/usr/bin/env bash
# What takes too long for every change: 20,000 damaged files per parser under the sanitizers, 200 kills of trainings,
# a training of 2,000 steps with random stops, 80 losses of one of two processes, 200 random shapes of each fused
# operation, a scrape of 20,000 URLs and one that is killed 100 times, 100,000 damaged requests to the HTTP server under
# the sanitizers, and 32 clients of it for five minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh --cpu
MDM_MUTANTS="${MDM_MUTANTS:-20000}" MDM_MUTATED_REQUESTS="${MDM_MUTATED_REQUESTS:-100000}" MDM_SANITIZE_SECONDS="${MDM_SANITIZE_SECONDS:-7200}" scripts/sanitize.sh

# Training that is killed again and again ends in the same bits.
scripts/build.sh cpu interruption_test processes_test
MDM_KILLS="${MDM_KILLS:-200}" MDM_SOAK_STEPS="${MDM_SOAK_STEPS:-2000}" OMP_WAIT_POLICY=passive build/cpu/bin/interruption_test --gtest_brief=1

# One of two processes is killed or stopped: the other ends, and the job goes on to the bit; each of the four kinds 20 times, half
# of them with a divided optimizer.
MDM_PROCESS_FAULTS="${MDM_PROCESS_FAULTS:-80}" OMP_WAIT_POLICY=passive build/cpu/bin/processes_test --gtest_brief=1 \
  --gtest_filter='Processes.EndWhenOneIsGoneAndGoOnExactly'

# Every fused operation over 200 random shapes, with each set of instructions.
scripts/build.sh cpu ops_test
for instructions in avx512 avx2 scalar; do
  MDM_OP_SHAPES="${MDM_OP_SHAPES:-200}" MDM_INSTRUCTIONS=$instructions build/cpu/bin/ops_test --gtest_brief=1
done

# 20,000 URLs of a faulty world, each accounted for once; and 60,000 good ones over 100 kills.
scripts/build.sh cpu apps_test
MDM_SCRAPE_URLS="${MDM_SCRAPE_URLS:-20000}" MDM_SCRAPE_KILLS="${MDM_SCRAPE_KILLS:-100}" build/cpu/bin/apps_test --gtest_brief=1 \
  --gtest_filter='Download.AccountsForEveryUrlOfAFaultyWorld:Download.SurvivesKillsAtAnyMoment'

# 32 clients of the HTTP server for five minutes.
scripts/build.sh cpu serving_test
MDM_LOAD_SECONDS="${MDM_LOAD_SECONDS:-300}" build/cpu/bin/serving_test --gtest_brief=1 --gtest_filter='Load.*'
