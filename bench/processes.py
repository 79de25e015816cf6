"""Measures how much faster several processes train than one: images a second of N processes with one thread each
against one process with one thread, in turns, on synthetic images that grow with the processes.

    python3 bench/processes.py --program build/cpu/bin/bench_training_step --checkpoint shapes.pth -- --config-path ...

What follows `--` goes to the program. Prints every round, the least and the median ratio, and their spread. With
--check nothing is timed: what the processes hand to c10d in a step is compared with scaling.py's cost model, for sums
in both precisions and for a sharded optimizer.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys

import scaling


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run(arguments, processes, more=()):
    """Rank 0's report."""
    port = str(free_port())
    running = []
    for rank in range(processes):
        words = [arguments.program, "--checkpoint", arguments.checkpoint, "--threads", "1", "--images",
                 str(arguments.images), "--steps", str(arguments.steps), "--warm-up", "2"] + arguments.more + list(more)
        if processes > 1:
            words += ["--rank", str(rank), "--world-size", str(processes), "--master-addr", "127.0.0.1",
                      "--master-port", port]
        running.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    answers = [process.communicate() for process in running]
    for process, (_, error) in zip(running, answers):
        if process.returncode != 0:
            sys.exit(error)
    return json.loads(answers[0][0])


def images_a_second(report):
    """Of all processes, by rank 0's median step."""
    return report["images"] / report["median_seconds"]


def check(arguments):
    for more in ([], ["--reduce-precision", "bf16"], ["--shard-optimizer", "true"],
                 ["--shard-optimizer", "true", "--precision", "bf16", "--reduce-precision", "bf16"]):
        for bucket in ("0.1", "25"):
            more_of_it = more + ["--bucket-mb", bucket]
            print(arguments.processes, "processes:", *more_of_it)
            scaling.check(run(arguments, arguments.processes, more_of_it))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--images", type=int, default=16, help="of each process")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep", metavar="FILE", help="the last reports: FILE.one.json, FILE.many.json")
    parser.add_argument("more", nargs="*", help="flags of bench_training_step, after --")
    arguments = parser.parse_args()
    if arguments.check:
        return check(arguments)
    print(f"cores: {os.cpu_count()}")
    ratios = []
    for number in range(arguments.rounds):
        alone, report = run(arguments, 1), run(arguments, arguments.processes)
        one, many = images_a_second(alone), images_a_second(report)
        ratios.append(many / one)
        print(f"round {number + 1}: 1 process {one:.2f} images/s, {arguments.processes} processes {many:.2f}, "
              f"ratio {many / one:.2f}", flush=True)
    if arguments.keep:
        for what, content in (("one", alone), ("many", report)):
            with open(f"{arguments.keep}.{what}.json", "w", encoding="utf-8") as file:
                json.dump(content, file)
    print(json.dumps({"median_ratio": statistics.median(ratios), "least": min(ratios), "largest": max(ratios),
                      "state_mb_of_a_process": report["state_mb"], "precision": report["precision"]}))


if __name__ == "__main__":
    main()
