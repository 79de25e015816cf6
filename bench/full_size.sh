#!/usr/bin/env bash
# The main job at full size on this machine's CPU: random weights for the three models and a random T5
# encoder, pictures from prompts with the program `sample`, and one measured step each, fp32 and bf16.
#
#   bench/full_size.sh BUILD_FOLDER VOCABULARY WORK_FOLDER [MODEL...]
#
# BUILD_FOLDER has bin/ with sample, checkpoint, make_random_t5 and bench_denoise_step (cmake --preset cpu
# -DMDM_BUILD_BENCH=ON); VOCABULARY is the reference's t5.vocab; WORK_FOLDER needs about 8 GB. MODEL is 64,
# 256 or 1024 (all). Prints a Markdown table at the end; what the programs said is in WORK_FOLDER/*.log.
set -euo pipefail

if [ $# -lt 3 ]; then
  sed -n '2,10s/^# \{0,1\}//p' "$0"
  exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$(cd "$1/bin" && pwd)
vocabulary=$2
work=$3
shift 3
models=("$@")
[ ${#models[@]} -gt 0 ] || models=(64 256 1024)
mkdir -p "$work"
table="$work/table.md"

now() { date +%s.%N; }

# Runs a command with its output in a log; sets `seconds` and `peak_mib` (largest resident set, mapped files
# included).
measured() {
  local log=$1 start
  shift
  start=$(now)
  python3 - "$log" "$@" <<'PYTHON'
import resource, subprocess, sys
with open(sys.argv[1], "w") as log:
    code = subprocess.call(sys.argv[2:], stdout=log, stderr=subprocess.STDOUT)
    log.write("\npeak_kib %d\n" % resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
if code != 0:
    print(open(sys.argv[1]).read()[-2000:], file=sys.stderr)
sys.exit(code)
PYTHON
  seconds=$(python3 -c "print(f'{$(now) - $start:.1f}')")
  peak_mib=$(($(sed -n 's/^peak_kib //p' "$log") / 1024))
}

# Size of a PNG, and that it is no single colour.
check_picture() {
  python3 - "$1" "$2" <<'PYTHON'
import struct, sys, zlib
data = open(sys.argv[1], "rb").read()
width, height = struct.unpack(">II", data[16:24])
if data[:8] != b"\x89PNG\r\n\x1a\n" or (width, height) != (int(sys.argv[2]),) * 2:
    sys.exit(f"{sys.argv[1]}: {width} x {height} pixels, expected {sys.argv[2]}")
pixels, at = b"", 8
while at < len(data):
    (length,), kind = struct.unpack(">I", data[at:at + 4]), data[at + 4:at + 8]
    pixels += data[at + 8:at + 8 + length] if kind == b"IDAT" else b""
    at += 12 + length
if len(set(zlib.decompress(pixels))) < 64:
    sys.exit(f"{sys.argv[1]}: hardly any detail")
PYTHON
}

t5="$work/t5"
if [ ! -e "$t5/config.json" ]; then
  "$bin/make_random_t5" "$t5" --d-model 2048 --layers 2 --vocab 32128 --dtype BF16 > "$work/t5.log"
fi

{
  echo "| model | precision | steps | whole run, s | s per step, least | peak MiB, \`sample\` | peak MiB, step | std of the output |"
  echo "|---|---|---|---|---|---|---|---|"
} > "$table"
for model in "${models[@]}"; do
  config="$root/configs/models/cc12m_${model}x${model}.yaml"
  weights="$work/$model.pth"
  steps=3
  [ "$model" != 64 ] || steps=50
  if [ ! -e "$weights" ]; then
    "$bin/checkpoint" init "$weights" --config_path "$config" --text-width 2048 --randomize 1 > "$work/init_$model.log"
  fi
  for precision in fp32 bf16; do
    out="$work/pictures_${model}_$precision"
    rm -rf "$out"
    measured "$work/sample_${model}_$precision.log" "$bin/sample" --checkpoint "$weights" --config_path "$config" \
      --text-model "$t5" --vocab-file "$vocabulary" --text-precision "$precision" --precision "$precision" \
      --prompt "a photo of a fox in the snow" --num-inference-steps "$steps" --seed 1 --output-dir "$out"
    run_seconds=$seconds
    run_peak=$peak_mib
    picture=$(find "$out" -name 'sample_*.png' | head -n 1)
    check_picture "$picture" "$model"
    measured "$work/step_${model}_$precision.log" "$bin/bench_denoise_step" --checkpoint "$weights" \
      --config_path "$config" --precision "$precision" --steps 2
    python3 - "$work/step_${model}_$precision.log" "$model" "$precision" "$steps" "$run_seconds" "$run_peak" \
      >> "$table" <<'PYTHON'
import json, sys
text = open(sys.argv[1]).read()
step = json.loads(text[text.index("{"):text.rindex("}") + 1])
model, precision, steps, seconds, peak = sys.argv[2:]
deviation = ", ".join(f"{d:.2f}" for d in step["prediction_std"])
print(f"| {model} | {precision} | {steps} | {seconds} | {step['min_seconds']:.2f} | {peak} | "
      f"{step['step_peak_rss_mib']:.0f} | {deviation} |")
PYTHON
    tail -n 1 "$table" >&2
  done
done
cat "$table"
