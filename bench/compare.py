"""Measures a denoising or a training step in libmdm and in the reference, in turns, and compares what both compute.

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


# The ways to run the reference: flags of its script.
OPPONENTS = {
    "fp32": ["--precision", "fp32"],
    "bf16": ["--precision", "bf16"],
    "bf16-channels-last": ["--precision", "bf16", "--channels-last"],
    "compile": ["--precision", "bf16", "--compile"],
    "compile-fp32": ["--precision", "fp32", "--compile"],  # the fastest one on a CPU without bfloat16 units
    "compile-channels-last": ["--precision", "bf16", "--channels-last", "--compile"],
}


def commands(options, folder):
    dump = os.path.join(folder, "step.pth")
    shared = ["--checkpoint", options.checkpoint, "--threads", str(options.threads)]
    ours = [options.bench, "--config_path", options.config_path, "--images", str(options.images), "--text-length",
            str(options.text_length)]  # fmt: skip
    script = "reference_training_step.py"
    if options.what == "denoising":
        script = "reference_step.py"
        shared += ["--guidance-scale", str(options.guidance_scale)]
        ours += ["--ddim-eta", "0"]
    theirs = [options.python, os.path.join(HERE, script), "--reference", options.reference,
              "--config-path", options.reference_config, "--inputs", dump]  # fmt: skip
    opponent = OPPONENTS[options.opponent or options.precision]
    return dump, [*ours, *shared, "--precision", options.precision, *options.set], [*theirs, *shared, *opponent]


def load_average():
    return round(os.getloadavg()[0], 2)


def in_turns(programs, rounds):
    """Both programs are there all the time and make a step each, A B B A A B ..."""
    players = [Player(name, [*command, "--turns"]) for name, command in programs.items()]
    for turn in range(rounds):
        for player in players if turn % 2 == 0 else reversed(players):
            player.step()
    return players, {player.name: player.finish() for player in players}


def one_after_the_other(programs, rounds):
    """For programs that don't fit into memory together: each is started twice, A B B A, and makes half the steps."""
    first, reports = {}, {}
    for name in [*programs, *reversed(programs)]:
        player = Player(name, [*programs[name], "--turns"])
        for _ in range((rounds + 1) // 2):
            player.step()
        reports[name] = player.finish()
        if name in first:
            first[name].seconds += player.seconds
            first[name].cpu += player.cpu
            first[name].peak_anonymous_mib = max(first[name].peak_anonymous_mib, player.peak_anonymous_mib)
            reports[name]["peak_anonymous_mib"] = first[name].peak_anonymous_mib
        else:
            first[name] = player
    for name, player in first.items():
        reports[name]["seconds"] = player.seconds
        reports[name]["min_seconds"] = min(player.seconds)
        reports[name]["median_seconds"] = statistics.median(player.seconds)
        reports[name]["min_cpu_seconds"] = min(player.cpu)
    return list(first.values()), reports


def compared_outputs(reports):
    """How far both programs' results are apart, in words."""
    ours, theirs = reports["libmdm"], reports["reference"]
    if "losses" in ours:
        apart = [abs(a - b) / abs(b) for a, b in zip(ours["losses"], theirs["losses"])]
        return (f"The losses of {len(apart)} steps differ by at most {max(apart):.1e} of their values "
                f"(first step: {apart[0]:.1e}, {ours['losses'][0]:.4f}).")  # fmt: skip
    worst = max(level["relative_to_max"] for level in theirs["difference"]["prediction"])
    return (f"Largest difference of the network's output, relative to its largest value: {worst:.1e}; "
            f"standard deviation of the output {min(ours['prediction_std']):.2f}.")  # fmt: skip


def measure(options):
    with tempfile.TemporaryDirectory() as folder:
        dump, ours, theirs = commands(options, folder)
        subprocess.run([*ours, "--steps", "1", "--warm-up", "0", "--dump", dump], check=True, stdout=subprocess.DEVNULL)
        load_before = load_average()
        play = one_after_the_other if options.apart else in_turns
        players, reports = play({"libmdm": ours, "reference": theirs}, options.rounds)
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
        "outputs": compared_outputs(reports),
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
    lines += ["", result["outputs"]]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=("denoising", "training"), default="denoising", help="the step to measure")
    parser.add_argument("--bench", help="our program (default: build/cpu/bin/bench_denoise_step or _training_step)")
    parser.add_argument("--reference", required=True, help="folder of the reference's clone that holds ml_mdm/")
    parser.add_argument("--reference-config", required=True, help="the model's YAML file of the reference")
    parser.add_argument("--python", default=sys.executable, help="interpreter for the reference")
    parser.add_argument("--config-path", required=True, help="our YAML file of the same model")
    parser.add_argument("--checkpoint", required=True, help=".pth file of random weights")
    parser.add_argument("--images", type=int, help="pictures at a time (default: 1 denoising, 2 training)")
    parser.add_argument("--set", action="append", default=[], help="further flag for our program")
    parser.add_argument("--text-length", type=int, default=32)
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="ours, and the reference's")
    parser.add_argument("--opponent", choices=sorted(OPPONENTS), help="the reference as shipped (fp32), under bf16 autocast, "
                        "with channels_last, under torch.compile (default: as --precision says)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--apart", action="store_true", help="only one of the two is in memory at a time")
    parser.add_argument("--json", help="write everything that was measured to this file")
    options = parser.parse_args()
    if options.bench is None:
        options.bench = {"denoising": "build/cpu/bin/bench_denoise_step", "training": "build/cpu/bin/bench_training_step"}[
            options.what
        ]
    if options.images is None:
        options.images = {"denoising": 1, "training": 2}[options.what]
    result = measure(options)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)
    print(table(result))


if __name__ == "__main__":
    main()
