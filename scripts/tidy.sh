#!/usr/bin/env bash
# clang-tidy by .clang-tidy on the sources that differ from a commit (default: the last one), or on the
# files named: half a minute a file. Needs a configured build folder (preset dev).
# usage: scripts/tidy.sh [--since COMMIT] [FILE.cpp...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

since=HEAD
if [[ "${1:-}" == --since ]]; then
  since="${2:?--since needs a commit}"
  shift 2
fi
tool="$(command -v clang-tidy-14 || command -v clang-tidy || true)"
if [[ -z "$tool" ]]; then
  echo "tidy: clang-tidy is missing; run scripts/setup.sh --dev" >&2
  exit 1
fi
if [[ $# -gt 0 ]]; then
  files=("$@")
else
  mapfile -t files < <({ git diff --name-only --diff-filter=d "$since" -- 'src/*.cpp' 'apps/*.cpp'
    git ls-files --others --exclude-standard -- 'src/*.cpp' 'apps/*.cpp'; } | sort -u)
fi
if [[ ${#files[@]} -eq 0 ]]; then
  echo "tidy: no source differs from $since"
  exit 0
fi
# Single files are looked up in the database, so it must not hold unity batches.
cmake --preset dev -B build/tidy -DCMAKE_UNITY_BUILD=OFF -DMDM_BUILD_TESTS=OFF >/dev/null
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 1 nice "$tool" -p build/tidy --quiet --warnings-as-errors='*'
echo "tidy: ${#files[@]} files are clean"
