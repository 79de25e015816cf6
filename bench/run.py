"""The judge: libmdm against every way a user could run the reference, on this machine.

For each of the rows that are asked for (a denoising step of the 64, 256 and 1024 model, a training step of the 64 and
of the demo model) and each opponent both programs load the same weights and inputs and make a step in turns
(compare.py does that), and their outputs are compared. Writes what was measured as JSON, and a Markdown table. Ends with exit
code 1 when libmdm's peak memory is more than 10 % above what memory_bounds.json beside this script records.

  bench/run.py --reference ml-mdm/ml-mdm-matryoshka --python PYTHON --work FOLDER

PYTHON has torch, einops, torchinfo, simple-parsing, PyYAML and tqdm. FOLDER takes the random weights (6 GB). Build
the bench programs before (README.md). torch.compile takes minutes a row.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import types

from compare import OPPONENTS, measure

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


class Row:
    def __init__(self, name, what, config, text_width, text_length, images, reference_config=None, apart=False,
                 flags=()):  # fmt: skip
        self.name, self.what, self.text_width, self.text_length = name, what, text_width, text_length
        self.images, self.apart, self.flags = images, apart, list(flags)
        self.config = os.path.join(ROOT, "configs", config)
        self.reference_config = reference_config or os.path.join("configs", config)


MODEL = "models/cc12m_{0}x{0}.yaml"
ROWS = {
    "sample-64": Row("sample 64", "denoising", MODEL.format(64), 2048, 32, 1),
    "sample-256": Row("sample 256", "denoising", MODEL.format(256), 2048, 32, 1),
    "sample-1024": Row("sample 1024", "denoising", MODEL.format(1024), 2048, 32, 1),
    "train-64": Row("train 64, 2 images", "training", MODEL.format(64), 2048, 32, 2, apart=True),
    "train-demo": Row("train shapes_32, 32 images", "training", "demo/shapes_32.yaml", 128, 12, 32,
                      os.path.join(HERE, "opponent", "shapes_32.yaml"), flags=["--rescale-schedule", "1"]),
}  # fmt: skip


def weights(row, options):
    """Random weights, the same for all; made once."""
    name = os.path.splitext(os.path.basename(row.config))[0]
    path = os.path.join(options.work, f"{name}.pth")
    if not os.path.exists(path):
        os.makedirs(options.work, exist_ok=True)
        subprocess.run([os.path.join(options.build, "bin", "checkpoint"), "init", path, "--config_path", row.config,
                        "--text-width", str(row.text_width), "--randomize", "1"],
                       check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    return path


def against(row, opponent, precision, options):
    program = {"denoising": "bench_denoise_step", "training": "bench_training_step"}[row.what]
    return measure(types.SimpleNamespace(
        what=row.what, bench=os.path.join(options.build, "bin", program), reference=options.reference,
        reference_config=os.path.join(options.reference, row.reference_config), python=options.python,
        config_path=row.config, checkpoint=weights(row, options), images=row.images, set=row.flags,
        text_length=row.text_length, guidance_scale=7.5, precision=precision, opponent=opponent,
        threads=options.threads, rounds=options.rounds, apart=row.apart,
    ))  # fmt: skip


def peak(report):
    return max(report["load_peak_rss_mib"], report["step_peak_rss_mib"] or 0)


def markdown(results):
    first = results[0]["result"]
    machine, ours, theirs = first["libmdm"]["machine"], first["libmdm"], first["reference"]
    lines = [
        f"{machine['cpu']} ({', '.join(machine['instructions'])}), {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{ours['threads']} threads; libmdm {ours['versions']['libmdm']} with LibTorch {ours['versions']['torch']}, "
        f"Python {theirs['versions']['python']} with torch {theirs['versions']['torch']}.",
        "",
        "| | libmdm in | opponent | libmdm, s: least (median) | opponent, s: least (median) | ratio: least (median of pairs) "
        "| peak MiB, libmdm | opponent | first step after, s: libmdm | opponent |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for item in results:
        ours, theirs, ratio = (item["result"][key] for key in ("libmdm", "reference", "reference_over_libmdm"))
        start = [r["load_seconds"] + r["warm_up_seconds"] for r in (ours, theirs)]
        lines.append(
            f"| {ROWS[item['row']].name} | {item['precision']} | {item['opponent']} "
            f"| {ours['min_seconds']:.2f} ({ours['median_seconds']:.2f}) "
            f"| {theirs['min_seconds']:.2f} ({theirs['median_seconds']:.2f}) "
            f"| **{ratio['min_seconds']:.2f}** ({ratio['median_of_paired_seconds']:.2f}) "
            f"| {peak(ours):.0f} | {peak(theirs):.0f} | {start[0]:.1f} | {start[1]:.1f} |"
        )
    lines += [""] + [f"{ROWS[i['row']].name}, {i['precision']} against {i['opponent']}: {i['result']['outputs']}" for i in results]
    return "\n".join(lines)


def memory_faults(results):
    """Rows whose peak has grown by more than a tenth over what is on record."""
    with open(os.path.join(HERE, "memory_bounds.json")) as file:
        bounds = json.load(file)
    seen = {}
    for item in results:
        key = f"{item['row']} {item['precision']}"
        seen[key] = max(seen.get(key, 0), peak(item["result"]["libmdm"]))
    return [f"{key}: peak of {mib:.0f} MiB, on record are {bounds[key]}"
            for key, mib in seen.items() if key in bounds and mib > 1.1 * bounds[key]]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="folder of the reference's clone that holds ml_mdm/")
    parser.add_argument("--python", default=sys.executable, help="interpreter for the reference")
    parser.add_argument("--build", default=os.path.join(ROOT, "build", "cpu"), help="build folder")
    parser.add_argument("--work", required=True, help="folder for weights")
    parser.add_argument("--rows", nargs="+", choices=sorted(ROWS), default=list(ROWS))
    parser.add_argument("--opponents", nargs="+", choices=sorted(OPPONENTS), default=list(OPPONENTS))
    parser.add_argument("--precision", choices=("fp32", "bf16", "both"), default="bf16",
                        help="of libmdm; both: float32 too, against the reference in float32")  # fmt: skip
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write everything that was measured to this file, after each row")
    parser.add_argument("--markdown", help="write the table to this file as well")
    options = parser.parse_args()
    in_fp32 = [opponent for opponent in options.opponents if opponent in ("fp32", "compile-fp32")]
    if options.precision == "fp32" and not in_fp32:
        parser.error("--precision fp32 is measured against fp32 and compile-fp32 alone: name one in --opponents")
    results = []
    for name in options.rows:
        pairs = [(opponent, "bf16") for opponent in options.opponents] if options.precision != "fp32" else []
        if options.precision != "bf16":
            pairs += [(opponent, "fp32") for opponent in in_fp32]
        for opponent, precision in pairs:
            began = time.time()
            result = against(ROWS[name], opponent, precision, options)
            results.append({"row": name, "opponent": opponent, "precision": precision, "result": result})
            print(f"{name}, {precision} against {opponent}: {result['reference_over_libmdm']['min_seconds']:.2f}, "
                  f"took {time.time() - began:.0f} s", file=sys.stderr)  # fmt: skip
            if options.json:
                with open(options.json, "w") as file:
                    json.dump(results, file, indent=1)
    table = markdown(results)
    print(table)
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write(table + "\n")
    faults = memory_faults(results)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
