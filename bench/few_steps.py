"""How many drawings are right after how many steps, by sampler: the demo model, its judge, a table and a plot.

  bench/few_steps.py --bin build/cpu/bin --work FOLDER --plot bench/few_steps.svg

Needs the programs sample and demo_dataset. 200 pictures at 50 steps take about 100 s on two cores.
"""

import argparse
import json
import os
import shutil
import subprocess

SAMPLERS = ("ddpm", "euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc")
HERE = os.path.dirname(os.path.abspath(__file__))
COLOURS = ("#888888", "#1f77b4", "#2ca02c", "#d62728", "#9467bd", "#ff7f0e")


def run(command):
    """What a program writes to stdout; ends this one with the program's messages when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{done.stderr}{command[0]} ended with {done.returncode}")
    return done.stdout


def share(options, sampler, steps):
    """The judge's share of right drawings, in percent. A picture is drawn with the same seed by all samplers."""
    folder = os.path.join(options.work, f"{sampler}_{steps}")
    report = os.path.join(folder, "judged.json")
    if not os.path.exists(report):
        shutil.rmtree(folder, ignore_errors=True)
        run([os.path.join(options.bin, "sample"), "--checkpoint", options.checkpoint, "--prompts-file",
             os.path.join(options.work, "prompts.txt"), "--sample-dir", folder, "--sampler", sampler,
             "--num-inference-steps", str(steps), "--precision", options.precision, "--seed", "100", "--grid", "false",
             "--gallery", "false"])  # fmt: skip
        judged = run([os.path.join(options.bin, "demo_dataset"), "judge", "--images", folder])
        with open(report + ".part", "w") as file:
            file.write(judged[judged.index("{"):])
        os.replace(report + ".part", report)
    with open(report) as file:
        return 100 * json.load(file)["rate"]


def table(shares, samplers, steps, reference):
    lines = ["| steps | " + " | ".join(samplers) + " |", "|---|" + "---|" * len(samplers)]
    for count in steps:
        cells = [f"{shares[s, count]:.1f}" if (s, count) in shares else "–" for s in samplers]
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    lines.append(f"\nddpm, {reference[0]} steps: {reference[1]:.1f} % right.")
    return "\n".join(lines)


def plot(shares, steps, reference):
    """An SVG: steps on a logarithmic axis, a line for each sampler."""
    import math

    left, top, width, height = 50, 15, 430, 220
    low, high = math.log(min(steps)), math.log(max(steps))
    x = lambda count: left + width * (math.log(count) - low) / (high - low)
    y = lambda percent: top + height * (1 - percent / 100)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 620 {top + height + 40}" font-family="sans-serif" '
           f'font-size="11"><rect width="620" height="{top + height + 40}" fill="white"/>']  # fmt: skip
    for percent in range(0, 101, 20):
        out.append(f'<path d="M{left} {y(percent):.1f}h{width}" stroke="#ddd"/>'
                   f'<text x="{left - 6}" y="{y(percent) + 4:.1f}" text-anchor="end">{percent} %</text>')  # fmt: skip
    for count in steps:
        out.append(f'<text x="{x(count):.1f}" y="{top + height + 16}" text-anchor="middle">{count}</text>')
    out.append(f'<text x="{left + width / 2}" y="{top + height + 33}" text-anchor="middle">steps</text>')
    out.append(f'<path d="M{left} {y(reference[1]):.1f}h{width}" stroke="#000" stroke-dasharray="4 3"/>')
    for i, (sampler, colour) in enumerate(zip(SAMPLERS, COLOURS)):
        points = [(x(c), y(shares[sampler, c])) for c in steps if (sampler, c) in shares]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        out.append(f'<rect x="500" y="{30 + 20 * i}" width="14" height="4" fill="{colour}"/>'
                   f'<text x="520" y="{36 + 20 * i}">{sampler}</text>')  # fmt: skip
    out.append(f'<text x="500" y="{36 + 20 * len(SAMPLERS)}">- - ddpm, {reference[0]} steps</text></svg>')
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(HERE, "..", "build", "cpu", "bin"))
    parser.add_argument("--checkpoint", default=os.path.join(HERE, "..", "configs", "demo", "shapes_32.pth"))
    parser.add_argument("--work", required=True, help="folder for the pictures; what is there is not drawn again")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--split", default="held-out-combinations", help="of demo_dataset prompts")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 8, 10, 15, 20, 50])
    parser.add_argument("--reference-steps", type=int, default=250, help="steps of DDPM that the others are measured by")
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--precision", default="bf16", help="of all that is in the work folder")
    parser.add_argument("--plot", help="SVG file")
    options = parser.parse_args()
    os.makedirs(options.work, exist_ok=True)
    subprocess.run([os.path.join(options.bin, "demo_dataset"), "prompts", "--split", options.split, "--count",
                    str(options.pictures), "--output", os.path.join(options.work, "prompts.txt")], check=True)  # fmt: skip
    shares = {}
    for sampler in options.samplers:
        for steps in options.steps:
            shares[sampler, steps] = share(options, sampler, steps)
            print(f"{sampler} {steps}: {shares[sampler, steps]:.1f} %", flush=True)
    reference = options.reference_steps, share(options, "ddpm", options.reference_steps)
    print(table(shares, options.samplers, options.steps, reference))
    if options.plot:
        with open(options.plot, "w") as file:
            file.write(plot(shares, options.steps, reference) + "\n")


if __name__ == "__main__":
    main()
