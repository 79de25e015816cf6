#!/usr/bin/env bash
# Configures and builds one preset: scripts/build.sh PRESET [TARGET...]. No target: everything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preset="${1:?usage: scripts/build.sh PRESET [TARGET...]}"
shift

# A compiler job takes up to 1.5 GB.
jobs="$(nproc)"
by_memory="$(awk '/^MemAvailable:/ {print int($2 / 1500000)}' /proc/meminfo 2>/dev/null || echo 2)"
if [[ "$by_memory" -lt "$jobs" ]]; then jobs=$((by_memory > 0 ? by_memory : 1)); fi

# Paths inside the checkout do not count for the compiler cache: another clone finds the same results.
export CCACHE_BASEDIR="$PWD" CCACHE_NOHASHDIR=1
if [[ ! -w "${CCACHE_DIR:-${HOME:-/nonexistent}}" ]]; then export CCACHE_DIR="$PWD/.cache/ccache"; fi
if ! command -v nvcc >/dev/null && [[ -z "${CUDACXX:-}" && -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]]; then
  export CUDACXX="${CUDA_HOME:-/usr/local/cuda}/bin/nvcc"
fi

targets=()
if [[ $# -gt 0 ]]; then targets=(--target "$@"); fi
cmake --preset "$preset"
nice cmake --build --preset "$preset" --parallel "$jobs" "${targets[@]}"
