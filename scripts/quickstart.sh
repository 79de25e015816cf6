#!/usr/bin/env bash
# From a fresh clone to a picture: sets up, builds, and samples with the settings embedded below.
# Arguments go to `sample`, after the default ones.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode="$(scripts/setup.sh --print-mode)"
scripts/setup.sh "--$mode"
scripts/build.sh "$mode" sample

# The one call that makes the pictures.
make_pictures() {
  "build/$mode/bin/sample" --help "$@"
}

make_pictures "$@"
