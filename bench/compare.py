"""Measures one denoising step in libmdm and in the reference, in turns, and compares what both compute.

Both programs load the same weights, stay in memory and make one step at a time, A B A B ..., so that other
work on the machine hits both alike. Needs a Python with torch, einops, torchinfo, simple-parsing, PyYAML and
tqdm for the reference (--python), and weights: checkpoint init FILE.pth --config_path ... --randomize 1.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
HERE = os.path.dirname(os.path.abspath(__file__))


class Player:
    """A program that makes a step for each line it is sent; its memory is looked at from outside."""

    def __init__(self, name, command):
        self.name, self.seconds, self.cpu = name, [], []
        self.peak_anonymous_mib = 0.0
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._watch, daemon=True).start()
        self._answer("ready")

    def _watch(self):
        """Resident pages that belong to no file: weights and tensors, not code or mapped checkpoints."""
        while self.process.poll() is None:
            try:
                with open(f"/proc/{self.process.pid}/statm") as file:
                    _, resident, shared = file.read().split()[:3]
            except OSError:
                return
            self.peak_anonymous_mib = max(self.peak_anonymous_mib, (int(resident) - int(shared)) * PAGE_MIB)
            time.sleep(0.01)

    def _answer(self, key):
        for line in self.process.stdout:
            if line.startswith("{"):
                answer = json.loads(line)
                if key in answer:
                    return answer
        sys.exit(f"{self.name} ended (exit code {self.process.wait()}) without saying '{key}'")

    def step(self):
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        answer = self._answer("seconds")
        self.seconds.append(answer["seconds"])
        self.cpu.append(answer["cpu_seconds"])

    def finish(self):
        self.process.stdin.close()
        report = self._answer("program")
        if self.process.wait() != 0:
            sys.exit(f"{self.name} failed")
        report["peak_anonymous_mib"] = self.peak_anonymous_mib
        return report


def commands(options, folder):
    dump = os.path.join(folder, "step.pth")
    shared = ["--checkpoint", options.checkpoint, "--guidance-scale", str(options.guidance_scale),
              "--threads", str(options.threads), "--precision", options.precision]  # fmt: skip
    ours = [options.bench, "--config_path", options.config_path, "--images", str(options.images), "--text-length",
            str(options.text_length), "--ddim-eta", "0", *shared]  # fmt: skip
    theirs = [options.python, os.path.join(HERE, "reference_step.py"), "--reference", options.reference,
              "--config-path", options.reference_config, "--inputs", dump, *shared]  # fmt: skip
    return dump, ours, theirs


def load_average():
    return round(os.getloadavg()[0], 2)


def measure(options):
    with tempfile.TemporaryDirectory() as folder:
        dump, ours, theirs = commands(options, folder)
        subprocess.run([*ours, "--steps", "1", "--warm-up", "0", "--dump", dump], check=True, stdout=subprocess.DEVNULL)
        load_before = load_average()
        players = [Player("libmdm", [*ours, "--turns"]), Player("reference", [*theirs, "--turns"])]
        for turn in range(options.rounds):
            for player in players if turn % 2 == 0 else reversed(players):
                player.step()
        reports = {player.name: player.finish() for player in players}
    for player in players:
        reports[player.name]["rounds"] = {"seconds": player.seconds, "cpu_seconds": player.cpu}
    ours, theirs = players
    ratio = {
        "min_seconds": min(theirs.seconds) / min(ours.seconds),
        "median_seconds": statistics.median(theirs.seconds) / statistics.median(ours.seconds),
        "min_cpu_seconds": min(theirs.cpu) / min(ours.cpu),
        "median_of_paired_seconds": statistics.median(b / a for a, b in zip(ours.seconds, theirs.seconds)),
    }
    return {
        "reference_over_libmdm": ratio,
        "load_average": [load_before, load_average()],
        "outputs": reports["reference"].pop("difference"),
        **reports,
    }


def table(result):
    ours, theirs, ratio = result["libmdm"], result["reference"], result["reference_over_libmdm"]
    whole_peak = [max(r["load_peak_rss_mib"], r["step_peak_rss_mib"] or 0) for r in (ours, theirs)]
    rows = [
        ("seconds per step, least", ours["min_seconds"], theirs["min_seconds"], ratio["min_seconds"], ".2f"),
        ("seconds per step, median", ours["median_seconds"], theirs["median_seconds"], ratio["median_seconds"], ".2f"),
        ("CPU seconds per step, least", ours["min_cpu_seconds"], theirs["min_cpu_seconds"], ratio["min_cpu_seconds"], ".2f"),
        ("seconds to load", ours["load_seconds"], theirs["load_seconds"], theirs["load_seconds"] / ours["load_seconds"], ".2f"),
        ("peak resident MiB, whole run", *whole_peak, whole_peak[1] / whole_peak[0], ".0f"),
        ("peak resident MiB, steps", ours["step_peak_rss_mib"], theirs["step_peak_rss_mib"],
         theirs["step_peak_rss_mib"] / ours["step_peak_rss_mib"], ".0f"),
        ("peak anonymous MiB, whole run", ours["peak_anonymous_mib"], theirs["peak_anonymous_mib"],
         theirs["peak_anonymous_mib"] / ours["peak_anonymous_mib"], ".0f"),
    ]  # fmt: skip
    worst = max(level["relative_to_max"] for level in result["outputs"]["prediction"])
    machine = ours["machine"]
    lines = [
        f"{ours['model']} {ours['side']}x{ours['side']}, {ours['rows']} rows, {ours['text_length']} tokens, "
        f"{ours['precision']}; {machine['cpu']} ({', '.join(machine['instructions'])}), {machine['cores']} cores, "
        f"{ours['threads']} threads; libmdm {ours['versions']['libmdm']} with LibTorch {ours['versions']['torch']}, "
        f"Python {theirs['versions']['python']} with torch {theirs['versions']['torch']}; {len(ours['seconds'])} rounds, "
        f"load average {result['load_average'][0]} to {result['load_average'][1]}",
        "",
        "| | libmdm | reference | reference / libmdm |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {a:{form}} | {b:{form}} | {r:.2f} |" for name, a, b, r, form in rows]
    lines += [
        "",
        f"Largest difference of the network's output, relative to its largest value: {worst:.1e}; "
        f"standard deviation of the output {min(ours['prediction_std']):.2f}.",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", default="build/cpu/bin/bench_denoise_step", help="our program")
    parser.add_argument("--reference", required=True, help="folder of the reference's clone that holds ml_mdm/")
    parser.add_argument("--reference-config", required=True, help="the model's YAML file of the reference")
    parser.add_argument("--python", default=sys.executable, help="interpreter for the reference")
    parser.add_argument("--config-path", required=True, help="our YAML file of the same model")
    parser.add_argument("--checkpoint", required=True, help=".pth file of random weights")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--text-length", type=int, default=32)
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: the reference under autocast")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write everything that was measured to this file")
    options = parser.parse_args()
    result = measure(options)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)
    print(table(result))


if __name__ == "__main__":
    main()
