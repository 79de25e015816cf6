"""How much memory a training step takes for each further picture: peaks at two batch sizes, libmdm's and the reference's.

Weights, gradients, moments and averages are the same at both sizes, so the difference is what a picture's activations
take (and what backward needs beside them). Each program runs alone, one step after a warm-up, so that nothing is shared.

  bench/activations.py --reference ml-mdm/ml-mdm-matryoshka --python PYTHON --work FOLDER --rows train-64 --images 2 6

Arguments as run.py's; FOLDER takes the random weights.
"""

import argparse
import json
import os
import subprocess
import types

from compare import commands
from run import ROOT, ROWS, weights


def peak(command):
    """MiB during the steps of a bench program."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{done.stderr}{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout[done.stdout.index("{"):])["step_peak_rss_mib"]


def measured(row, images, precision, options):
    """Peaks of libmdm and of the reference, which takes the inputs that the first has left."""
    dump, ours, theirs = commands(types.SimpleNamespace(
        what="training", bench=os.path.join(options.build, "bin", "bench_training_step"), reference=options.reference,
        reference_config=os.path.join(options.reference, row.reference_config), python=options.python,
        config_path=row.config, checkpoint=weights(row, options), images=images, set=row.flags,
        text_length=row.text_length, precision=precision, opponent=precision, threads=options.threads,
    ), options.work)  # fmt: skip
    steps = ["--steps", "1", "--warm-up", "1"]
    return peak([*ours, *steps, "--dump", dump]), peak([*theirs, *steps])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True)
    parser.add_argument("--python", default="python3")
    parser.add_argument("--work", required=True)
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "cpu"))
    parser.add_argument("--rows", nargs="+", default=["train-64"], choices=[r for r in ROWS if r.startswith("train")])
    parser.add_argument("--images", type=int, nargs=2, default=[2, 6])
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"],
                        help="of both programs; bf16 is slow on a CPU without bfloat16 units")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.makedirs(options.work, exist_ok=True)
    few, many = options.images
    for name in options.rows:
        row, found = ROWS[name], {}
        for precision in options.precision:
            for images in options.images:
                for who, mib in zip(("libmdm", "reference"), measured(row, images, precision, options)):
                    found.setdefault(f"{who}, {precision}", []).append(mib)
                    print(f"{name}, {who}, {precision}, {images} images: {mib:.0f} MiB", flush=True)
        print(f"\n| {row.name.split(',')[0]} | peak MiB, {few} images | {many} images | each further image |\n|---|---|---|---|")
        for what, peaks in found.items():
            print(f"| {what} | {peaks[0]:.0f} | {peaks[1]:.0f} | {(peaks[1] - peaks[0]) / (many - few):.1f} |")


if __name__ == "__main__":
    main()
