#!/usr/bin/env bash
# From a fresh clone to pictures: sets up, builds, draws with the small model that ships with the project, and trains
# the same model anew for 100 steps to show its loss fall. Arguments go to `sample`, after those below.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode="$(scripts/setup.sh --print-mode)"
scripts/setup.sh "--$mode"
scripts/build.sh "$mode" sample train_parallel demo_dataset

bin="build/$mode/bin"
out="samples/demo"
mkdir -p "$out"

# The one call that makes the pictures.
draw() {
  "$bin/sample" --checkpoint configs/demo/shapes_32.pth --sample-dir "$out" --seed 1 \
    --prompt "a red circle" --prompt "a blue star" \
    --prompt "a green square left of a yellow heart" --prompt "an orange triangle above a black ring" \
    --prompt "a purple cross below a cyan circle" --prompt "a red ring right of a green star" "$@"
  "$bin/demo_dataset" judge --images "$out" | grep -m 2 -E '"(pictures|right)"' || true
}

# A data set of our own, and the first 100 steps of a training on it.
train() {
  rm -rf "$out/data" "$out/run"
  "$bin/demo_dataset" shapes --output-dir "$out/data" --count 2000 --validation-count 16 --side 32 --seed 1 >"$out/data.log"
  "$bin/train_parallel" --config-path configs/demo/shapes_32.yaml --output-dir "$out/run" --seed 1 \
    --file-list "$out/data/train.tsv" --validation-file-list "$out/data/validation.tsv" --trainer.batch-size 16 --num-training-steps 100 \
    --warmup-steps 20 --log-freq 10 --sample-freq 0
  python3 - "$out/run/train/metrics.jsonl" <<'PYTHON'
import json, sys
losses = {line["step"]: line["loss"] for line in map(json.loads, open(sys.argv[1])) if "loss" in line}
print("loss by step:", ", ".join(f"{step}: {loss:.3f}" for step, loss in sorted(losses.items())))
PYTHON
}

draw "$@"
train
echo "Open $out/index.html (all pictures: $out/grid.png). The training is in $out/run; README.md tells how it goes on."
