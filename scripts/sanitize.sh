#!/usr/bin/env bash
# The tests of everything that reads what others wrote or send, and of our own kernels, under AddressSanitizer and UBSan.
# MDM_MUTANTS: damaged copies that each parser is fed (2,000 unless set).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tests=(core_test config_test checkpoint_test ops_test text_test media_test net_test data_test ingest_test serving_test evaluation_test)
scripts/build.sh asan "${tests[@]}"

export MDM_MUTANTS="${MDM_MUTANTS:-2000}" MDM_LOAD_SECONDS="${MDM_LOAD_SECONDS:-5}" OMP_WAIT_POLICY=passive
export ASAN_OPTIONS="detect_stack_use_after_return=1:strict_string_checks=1:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:${UBSAN_OPTIONS:-}"
# shellcheck disable=SC2016  # expanded by the inner shell
printf '%s\n' "${tests[@]}" | xargs -P "$(nproc)" -I{} bash -c '
  if timeout "${MDM_SANITIZE_SECONDS:-1500}" nice build/asan/bin/{} --gtest_brief=1 >build/asan/{}.log 2>&1; then
    echo "sanitize: {}: $(tail -n 1 build/asan/{}.log)"
  else
    echo "sanitize: {} FAILED"; tail -n 100 build/asan/{}.log; exit 1
  fi'
echo "sanitize: all passed with $MDM_MUTANTS mutants per parser"
