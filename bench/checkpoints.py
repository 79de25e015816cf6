"""FID and the judge's share of right drawings, checkpoint by checkpoint of one training of a demo model: do the two
numbers agree about which weights are better? A table and a plot.

  bench/checkpoints.py --run runs/shapes_32 --data data/shapes_32 --inception FILE --work FOLDER --plot bench/checkpoints.svg

--run holds the vis_model_*.pth (train_parallel --save-freq 100 --keep-every 100), --data what `demo_dataset shapes` wrote.
Needs the programs sample, evaluate and demo_dataset.
"""

import argparse
import csv
import glob
import json
import os
import re
import shutil

from few_steps import HERE, run


def captions(data, count):
    """Of the first validation samples, which FID compares with."""
    out = []
    for part in sorted(glob.glob(os.path.join(data, "*-validation-*.tsv"))):
        with open(part, newline="") as file:
            out += [row["caption"] for row in csv.DictReader(file, delimiter="\t")]
    return out[:count]


def scores(options, checkpoint):
    """(FID, share of right drawings in percent); what is in the work folder is not made again."""
    drawn = f"{options.sampler}_{options.steps}_{options.guidance:g}_{options.pictures}"
    folder = os.path.join(options.work, f"{os.path.splitext(os.path.basename(checkpoint))[0]}_{drawn}")
    report = os.path.join(folder, f"scores_{options.features}.json")
    if not os.path.exists(report):
        shutil.rmtree(folder, ignore_errors=True)
        run([os.path.join(options.bin, "sample"), "--checkpoint", checkpoint, "--prompts-file",
             os.path.join(options.work, "prompts.txt"), "--sample-dir", folder, "--sampler", options.sampler,
             "--num-inference-steps", str(options.steps), "--guidance-scale", str(options.guidance), "--seed", "100",
             "--grid", "false", "--gallery", "false"])  # fmt: skip
        judged = run([os.path.join(options.bin, "demo_dataset"), "judge", "--images", folder])
        run([os.path.join(options.bin, "evaluate"), "--generated", folder, "--reference", options.reference, "--inception",
             options.inception, "--fid-features", str(options.features), "--output", report + ".part"])  # fmt: skip
        with open(report + ".part") as file:
            evaluated = json.load(file)
        evaluated["judge"] = json.loads(judged[judged.index("{"):])
        with open(report + ".part", "w") as file:
            json.dump(evaluated, file)
        os.replace(report + ".part", report)
    with open(report) as file:
        found = json.load(file)
    return found["results"]["fid"], 100 * found["judge"]["rate"]


def ranks(values):
    order = sorted(range(len(values)), key=lambda i: values[i])
    out = [0.0] * len(values)
    for i in range(len(order)):
        same = [j for j in range(len(order)) if values[order[j]] == values[order[i]]]
        out[order[i]] = sum(same) / len(same)
    return out


def rank_correlation(a, b):
    """Spearman's: -1 where FID falls whenever the share rises."""
    a, b = ranks(a), ranks(b)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    product = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b))
    return product / (sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)) ** 0.5


def plot(found):
    """An SVG: steps across, FID on a logarithmic axis at the left, right drawings at the right."""
    import math

    left, top, width, height = 50, 25, 470, 220
    last = max(found)
    lows = math.floor(math.log10(min(fid for fid, _ in found.values())))
    highs = math.ceil(math.log10(max(fid for fid, _ in found.values())))
    x = lambda step: left + width * step / last
    y_fid = lambda fid: top + height * (highs - math.log10(fid)) / (highs - lows)
    y_share = lambda percent: top + height * (1 - percent / 100)
    size = f"{left + width + 60} {top + height + 40}"
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="11">'
           '<rect width="100%" height="100%" fill="white"/>']  # fmt: skip
    for power in range(lows, highs + 1):
        out.append(f'<path d="M{left} {y_fid(10**power):.1f}h{width}" stroke="#ddd"/><text x="{left - 6}" '
                   f'y="{y_fid(10**power) + 4:.1f}" text-anchor="end" fill="#d62728">{10**power:g}</text>')  # fmt: skip
    for percent in range(0, 101, 20):
        out.append(f'<text x="{left + width + 6}" y="{y_share(percent) + 4:.1f}" fill="#1f77b4">{percent} %</text>')
    for step in range(0, last + 1, 500):
        out.append(f'<text x="{x(step):.1f}" y="{top + height + 16}" text-anchor="middle">{step}</text>')
    out.append(f'<text x="{left + width / 2}" y="{top + height + 33}" text-anchor="middle">training steps</text>')
    for name, colour, y, anchor, where in (("FID", "#d62728", lambda pair: y_fid(pair[0]), "start", left),
                                           ("right drawings", "#1f77b4", lambda pair: y_share(pair[1]), "end",
                                            left + width)):  # fmt: skip
        points = [(x(step), y(pair)) for step, pair in sorted(found.items())]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        out.append(f'<text x="{where}" y="{top - 10}" text-anchor="{anchor}" fill="{colour}">{name}</text>')
    return "\n".join(out) + "</svg>\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(HERE, "..", "build", "cpu", "bin"))
    parser.add_argument("--run", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--inception", required=True, help="weights of FID's Inception-v3; random ones will do")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--work", required=True)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--sampler", default="ddpm")
    parser.add_argument("--steps", type=int, default=50, help="of the sampler, for each picture")
    parser.add_argument("--guidance", type=float, default=1, help="1: the pictures that the weights themselves stand for")
    parser.add_argument("--checkpoints", type=int, nargs="+", help="steps; default: all that are there")
    parser.add_argument("--plot", help="SVG file")
    options = parser.parse_args()
    os.makedirs(options.work, exist_ok=True)
    with open(os.path.join(options.work, "prompts.txt"), "w") as file:
        file.write("\n".join(captions(options.data, options.pictures)) + "\n")
    options.reference = os.path.join(options.work, f"validation_{options.features}.npz")
    if not os.path.exists(options.reference):
        run([os.path.join(options.bin, "evaluate"), "--reference", os.path.join(options.data, "validation.tsv"),
             "--save-reference", options.reference, "--metrics", "fid", "--inception", options.inception,
             "--fid-features", str(options.features)])  # fmt: skip
    found = {}
    for checkpoint in sorted(glob.glob(os.path.join(options.run, "vis_model_[0-9]*.pth"))):
        step = int(re.search(r"_(\d+)\.pth$", checkpoint).group(1))
        if options.checkpoints and step not in options.checkpoints:
            continue
        found[step] = scores(options, checkpoint)
        print(f"step {step}: FID {found[step][0]:.4g}, {found[step][1]:.1f} % right", flush=True)
    print("\n| training steps | " + " | ".join(str(step) for step in found) + " |\n|---|" + "---|" * len(found))
    print("| FID | " + " | ".join(f"{fid:.3g}" for fid, _ in found.values()) + " |")
    print("| right drawings | " + " | ".join(f"{share:.0f} %" for _, share in found.values()) + " |")
    correlation = rank_correlation([fid for fid, _ in found.values()], [share for _, share in found.values()])
    print(f"\nSpearman's rank correlation: {correlation:.3f}")
    if options.plot:
        with open(options.plot, "w") as file:
            file.write(plot(found))


if __name__ == "__main__":
    main()
