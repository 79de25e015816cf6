#!/usr/bin/env bash
# What takes too long for every change: 20,000 damaged files per parser under the sanitizers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh --cpu
MDM_MUTANTS="${MDM_MUTANTS:-20000}" MDM_SANITIZE_SECONDS="${MDM_SANITIZE_SECONDS:-7200}" scripts/sanitize.sh
