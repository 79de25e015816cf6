#!/usr/bin/env bash
# Sets up, builds for the CPU and runs all tests: the unit tests through ctest, then the golden cases.
# Tests that need a GPU skip by themselves where there is none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh --cpu
scripts/build.sh cpu

# Waiting threads sleep instead of spinning: tests run side by side, on few cores.
export OMP_WAIT_POLICY=passive
failed=()
ctest --preset cpu --parallel "$(nproc)" || failed+=("unit tests")

golden=build/cpu/bin/mdm_golden
"$golden" tests/golden || failed+=("tests/golden")
if [[ -d ../shared/golden ]]; then
  "$golden" ../shared/golden --no-skip --reference ../shared/reference || failed+=("../shared/golden")
fi

if [[ ${#failed[@]} -gt 0 ]]; then
  printf 'test: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "test: all passed"
