"""A cost model of a training step on many processes: compute, bytes on the wire, what of the sending is hidden.

    python3 bench/scaling.py                        # the three models on 8 and on 512 GPUs; all assumptions are printed
    python3 bench/scaling.py --check REPORT.json    # bench_training_step's report of several processes: the model's
                                                    # bytes and calls a step against what was handed to c10d
    python3 bench/scaling.py --here ONE.json MANY.json   # one process's times -> several here; against what they took

It is weak scaling: each process has a batch of its own. In the model a process computes as fast among many as alone;
the gradients of a bucket are there at even times of the backward pass; a collective begins when its bucket is there and
the one before has ended; the last one ends before the optimizer begins, and with a sharded optimizer all weights are
back before the next step begins.
"""

import argparse
import json
import math
import sys

SLOT = 32  # elements to which the arena aligns

# What the three configs compute: trained parameters, GFLOP of a forward pass per image with 64 text tokens (convolutions,
# matrix products and attention, counted from their shapes), batch of a process. Backward: twice the forward.
MODELS = {
    "cc12m_64x64": {"parameters": 461.4e6, "gflop": 371, "batch": 32},
    "cc12m_256x256": {"parameters": 476.6e6, "gflop": 596, "batch": 2},
    "cc12m_1024x1024": {"parameters": 481.0e6, "gflop": 1026, "batch": 4},
}

# Not measured: this project has had no cluster. Figures of the H100's and InfiniBand's data sheets times a share that
# well-made programs reach.
GPU = {
    "flops": 316e12,                 # bf16, dense: a third of the data sheet's
    "memory": 3.35e12 * 0.75,        # bytes a second: the optimizer's step is one pass over its buffers
    "node": 8,                       # GPUs of a machine
    "inside": 450e9 * 0.75,          # bytes a second and direction between the GPUs of a machine
    "between": 50e9 * 0.80,          # ... from each GPU to other machines (400 Gbit/s)
    "latency_inside": 5e-6, "latency_between": 15e-6,  # seconds for each level of a tree
}


def round_up(count, unit):
    return -(-count // unit) * unit


def payload(numbers, processes, bucket_mb, reduce_bytes, sharded):
    """What a step hands to c10d: {kind: [bytes of each call]}. numbers: elements that compute in (bfloat16, float32)."""
    unit = SLOT * (processes if sharded else 1)
    most = max(int(bucket_mb * 1e6) // 4 // unit, 1) * unit
    gradients, weights = [], []
    for count, size in zip(numbers, (2, 4)):
        rest = round_up(count, unit)
        while rest > 0:
            bucket = min(most, rest)
            gradients.append(bucket * reduce_bytes)
            weights.append(bucket * size)
            rest -= bucket
    if sharded:
        return {"all_reduce": [], "reduce_scatter": gradients, "all_gather": weights}
    return {"all_reduce": gradients, "reduce_scatter": [], "all_gather": []}


def collective_seconds(kind, size, processes, link):
    """Of one call: in each machine, and between machines with each GPU for its share. Bytes as a ring sends them, and
    the latency of a tree, which is what NCCL comes close to."""
    rounds = 2 if kind == "all_reduce" else 1
    inside = min(processes, link["node"])
    machines = max(processes // link["node"], 1)
    seconds = 0
    if inside > 1:
        seconds += rounds * ((inside - 1) * size / inside / link["inside"] + math.log2(inside) * link["latency_inside"])
    if machines > 1:
        share = size / inside
        seconds += rounds * ((machines - 1) * share / machines / link["between"] +
                             math.log2(machines) * link["latency_between"])
    return seconds


def step_seconds(compute, calls, processes, link):
    """compute: seconds of forward, backward, update. Of a step, and how much of it waits for others."""
    if processes == 1:
        return sum(compute.values()), 0.0
    gradients = [(kind, size) for kind in ("all_reduce", "reduce_scatter") for size in calls[kind]]
    free = 0.0
    for number, (kind, size) in enumerate(gradients):
        ready = compute["forward"] + compute["backward"] * (number + 1) / len(gradients)
        free = max(free, ready) + collective_seconds(kind, size, processes, link)
    # The global norm of a sharded step is one more collective, of a few bytes; so are the sums of the losses.
    small = collective_seconds("all_reduce", 64, processes, link) * (2 if calls["all_gather"] else 1)
    back = sum(collective_seconds("all_gather", size, processes, link) for size in calls["all_gather"])
    update = compute["update"] / (processes if calls["all_gather"] else 1)
    total = free + small + update + back
    return total, total - compute["forward"] - compute["backward"] - update


def predict():
    print("Assumptions:", json.dumps(GPU))
    print("| model | batch of a process | GPUs | gradients | step, ms | of it waiting, ms | images/s | efficiency |")
    print("|---|---|---|---|---|---|---|---|")
    for name, model in MODELS.items():
        flop = model["gflop"] * 1e9 * model["batch"]
        compute = {"forward": flop / GPU["flops"], "backward": 2 * flop / GPU["flops"],
                   # Reads weights, gradients, two moments and averages, writes all but the gradients and a bfloat16 copy.
                   "update": model["parameters"] * (20 + 18) / GPU["memory"]}
        for processes in (1, 8, 512):
            for what, size, sharded in (("fp32", 4, False), ("bf16", 2, False), ("bf16, sharded", 2, True)):
                if processes == 1 and what != "fp32":
                    continue
                calls = payload((model["parameters"], 0), processes, 25, size, sharded)
                seconds, waiting = step_seconds(compute, calls, processes, GPU)
                alone = sum(compute.values())
                print(f"| {name} | {model['batch']} | {processes} | {what if processes > 1 else '-'} | {seconds * 1e3:.1f} | "
                      f"{waiting * 1e3:.1f} | {processes * model['batch'] / seconds:,.0f} | {alone / seconds:.2f} |")


def numbers_of(report):
    return report["numbers"]["bfloat16"], report["numbers"]["float32"]


def expected_of(report):
    return payload(numbers_of(report), report["processes"], report["bucket_mb"],
                   2 if report["reduce_precision"] == "bf16" else 4, report["sharded"])


def check(report):
    """Exits with 1 when the model and the program disagree on a byte or a call."""
    before, after, steps = report["traffic"]["before"], report["traffic"]["after"], report["timed_steps"]
    expected, wrong = expected_of(report), []
    # Sums that are no gradients: five numbers of float64 about losses and, when sharded, the square of the norm.
    small_calls, small_bytes = (2, 48) if report["sharded"] else (1, 40)
    for kind, sizes in expected.items():
        calls, total = len(sizes), sum(sizes)
        if kind == "all_reduce":
            calls, total = calls + small_calls, total + small_bytes
        seen = {key: (after[kind][key] - before[kind][key]) / steps for key in ("calls", "bytes")}
        print(f"{kind}: {seen['calls']:.10g} calls and {seen['bytes']:.12g} bytes a step, by the model {calls} and {total}")
        if seen["calls"] != calls or seen["bytes"] != total:
            wrong.append(kind)
    if wrong:
        sys.exit("the model is wrong about " + ", ".join(wrong))


def here(one, many, gigabytes_per_second):
    link = {"node": many["processes"], "inside": gigabytes_per_second * 1e9, "latency_inside": 50e-6}
    seconds, waiting = step_seconds(one["mean_seconds"], expected_of(many), many["processes"], link)
    alone = sum(one["mean_seconds"].values())
    print(f"by the model {seconds:.3f} s a step ({waiting:.4f} s of it waiting), efficiency {alone / seconds:.2f}; "
          f"seen: {many['median_seconds']:.3f} s, {one['median_seconds'] / many['median_seconds']:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", metavar="REPORT")
    parser.add_argument("--here", nargs=2, metavar=("ONE", "MANY"))
    parser.add_argument("--link", type=float, default=1, help="--here: gigabytes a second between the processes")
    arguments = parser.parse_args()

    def load(name):
        with open(name, encoding="utf-8") as file:
            return json.load(file)

    if arguments.check:
        check(load(arguments.check))
    elif arguments.here:
        here(load(arguments.here[0]), load(arguments.here[1]), arguments.link)
    else:
        predict()


if __name__ == "__main__":
    main()
