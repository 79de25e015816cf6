#!/usr/bin/env bash
# From a fresh clone to a picture: sets up, builds, and samples with a small model of fresh weights.
# Arguments go to `sample`, after those below.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode="$(scripts/setup.sh --print-mode)"
scripts/setup.sh "--$mode"
scripts/build.sh "$mode" sample checkpoint

# The one call that makes the pictures.
make_pictures() {
  local bin="build/$mode/bin" out="samples/demo"
  mkdir -p "$out"
  # Threads that wait asleep: three times as fast where other programs keep the cores busy.
  export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
  "$bin/checkpoint" init "$out/tiny_nested_64.pth" --config-path configs/demo/tiny_nested_64.yaml --randomize 1
  "$bin/sample" --checkpoint "$out/tiny_nested_64.pth" --sample-dir "$out" --seed 1 \
    --num-inference-steps 20 --guidance-scale 3 \
    --prompt "a fox in the snow" --prompt "a boat on a river at night" \
    --prompt "flowers in a field" --prompt "the sun over the mountains" "$@"
  echo "Open $out/index.html (all of them: $out/grid.png)."
  echo "These pictures come from an untrained network of random weights: they show that everything works, and no more."
  echo "For pictures of what a prompt says, use a trained checkpoint: README.md tells how."
}

make_pictures "$@"
