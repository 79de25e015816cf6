"""The opponent of bench_denoise_step: the same denoising step in the reference, apple/ml-mdm (Python).

Takes the inputs from what `bench_denoise_step --dump` wrote and the weights from the same .pth file, and
prints the same JSON. The reference's own code does the work (get_model, load, sampler.get_xt_minus_1), as
its clis/generate_batch.py calls it; only modules that a step does not use are replaced when they are not
installed.
"""

import argparse
import importlib.util
import json
import os
import statistics
import sys
import time
import types


class _StandIn(types.ModuleType):
    """A module of which anything can be imported; what is used of it fails there and then."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


# Storage, data and picture modules that ml_mdm imports on the way; none of them has a part in a step.
UNUSED_MODULES = (
    "boto3", "boto3.session", "boto3.s3", "boto3.s3.transfer", "dataclass_wizard", "mlx", "mlx.data",
    "mlx.data.core", "mlx.core", "mlx.nn", "torchvision", "torchvision.utils", "rotary_embedding_torch",
)  # fmt: skip


def add_stand_ins():
    replaced = []
    for name in UNUSED_MODULES:
        top = name.split(".")[0]
        if top in replaced or importlib.util.find_spec(top) is None:
            sys.modules[name] = _StandIn(name)
            replaced.append(top)
    return sorted(set(replaced))


def remove_stand_ins():
    """Once ml_mdm is imported: einops looks at what is loaded to learn which tensors it may meet."""
    for name in [name for name, module in sys.modules.items() if isinstance(module, _StandIn)]:
        del sys.modules[name]


def machine():
    info = {"cpu": "", "instructions": [], "cores": len(os.sched_getaffinity(0))}
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                info["cpu"] = value.strip()
            if key.strip() == "flags":
                wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
                info["instructions"] = [flag for flag in value.split() if flag in wanted]
                break
    return info


def peak_rss_mib():
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None


def reset_peak_rss():
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return True
    except OSError:
        return False


def load_diffusion(options, mode="sampler"):
    """The reference's settings, and its pipeline with the weights, built as its programs build it."""
    import yaml
    from ml_mdm.config import get_arguments, get_model, get_pipeline

    with open(options.config_path) as file:
        kind = yaml.safe_load(file).get("model", "unet")
    args = get_arguments(["--model", kind, "--config_path", options.config_path], mode=mode)
    remove_stand_ins()
    args.unet_config.conditioning_feature_dim = options.text_width
    network = get_model(args.model)(3, 3, args.unet_config)
    diffusion = get_pipeline(args.model)(network, args.diffusion_config)
    diffusion.model.load(options.checkpoint)
    return args, diffusion


def option_parser(description, program):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--reference", required=True, help="folder of the clone that holds ml_mdm/")
    parser.add_argument("--config-path", required=True, help="the model's YAML file, of the reference")
    parser.add_argument("--checkpoint", required=True, help=f"the .pth file that {program} measures")
    parser.add_argument("--inputs", required=True, help=f"what {program} --dump wrote")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast")
    parser.add_argument("--channels-last", action="store_true", help="weights and pictures in that layout")
    parser.add_argument("--compile", action="store_true", help="under torch.compile, with frozen weights when sampling")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--turns", action="store_true", help="a step for each line 'step' on the standard input")
    return parser


def made_faster(network, options, inference):
    """What a user of the reference can do in a line or two."""
    import torch

    if options.channels_last:
        network.to(memory_format=torch.channels_last)
    if options.compile:
        import torch._inductor.config

        torch._inductor.config.freezing = inference
        network.compile(dynamic=False)


def timed_steps(step, options):
    """Runs the steps; with --turns one for each line that comes in. Returns what the last one gave, and times."""
    start = time.perf_counter()
    for _ in range(max(options.warm_up, 2 if options.compile else 0)):
        last = step()
    warm_up_seconds = time.perf_counter() - start
    seconds, cpu = [], []

    def timed():
        start, start_cpu = time.perf_counter(), time.process_time()
        result = step()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
        return result

    if options.turns:
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            if line.strip() != "step":
                break
            last = timed()
            print(json.dumps({"seconds": seconds[-1], "cpu_seconds": cpu[-1]}), flush=True)
    else:
        for _ in range(options.steps):
            last = timed()
    times = {
        "seconds": seconds,
        "min_seconds": min(seconds, default=0),
        "median_seconds": statistics.median(seconds) if seconds else 0,
        "min_cpu_seconds": min(cpu, default=0),
        "warm_up_seconds": warm_up_seconds,
    }
    return last, times


def report_head(program, options, replaced):
    import torch

    return {
        "program": program,
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
        "machine": machine(),
        "stand_ins": replaced,
        "threads": torch.get_num_threads(),
        "precision": options.precision,
    }


def levels(tensors, name):
    out = []
    while f"{name}.{len(out)}" in tensors:
        out.append(tensors[f"{name}.{len(out)}"])
    return out


def largest_error(ours, theirs):
    """Per level: the largest difference, and the same relative to the largest value."""
    report = []
    for a, b in zip(ours, theirs):
        error = (a.double() - b.double()).abs().max().item()
        report.append({"max_abs": error, "relative_to_max": error / b.abs().max().item()})
    return report


def main():
    parser = option_parser(__doc__, "bench_denoise_step")
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    options = parser.parse_args()

    sys.path.insert(0, options.reference)
    replaced = add_stand_ins()
    import torch

    if options.threads > 0:
        torch.set_num_threads(options.threads)
    dump = torch.load(options.inputs, map_location="cpu", weights_only=True)
    tensors = dump["state_dict"]
    text, mask = tensors.get("lm_outputs"), tensors.get("lm_mask")
    options.text_width = text.shape[2] if text is not None else -1

    start = time.perf_counter()
    with torch.no_grad():
        args, diffusion = load_diffusion(options)
        diffusion.eval()
        made_faster(diffusion.model.vision_model, options, inference=True)
    load_seconds = time.perf_counter() - start
    load_peak = peak_rss_mib()
    fresh_peak = reset_peak_rss()

    x_t = levels(tensors, "x_t")
    if options.channels_last:
        x_t = [x.contiguous(memory_format=torch.channels_last) for x in x_t]
    nested = len(x_t) > 1
    guided = options.guidance_scale != 1
    at = torch.tensor(dump["time"]), torch.tensor(dump["next_time"])

    def under(work):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            return work()

    def step():
        return diffusion.sampler.get_xt_minus_1(
            diffusion.model, at[0], x_t if nested else x_t[0], text, mask, {}, time_step_last=at[1],
            guidance_scale=options.guidance_scale, ddim_eta=0,
        )  # fmt: skip

    after, measured = timed_steps(lambda: under(step), options)
    step_peak = peak_rss_mib()

    times = torch.full((x_t[0].shape[0],), dump["time"] - 1)
    both = [torch.cat([x, x]) if guided else x for x in x_t]
    raw = under(
        lambda: diffusion.model(both if nested else both[0], torch.cat([times, times]) if guided else times, text, mask, {})
    )
    raw = [p.float() for p in (raw if nested else [raw[0]])]
    after = [x.float() for x in (after if nested else [after])]
    report = {
        **report_head("reference_step.py", options, replaced),
        "model": args.model,
        "side": x_t[0].shape[-1],
        "images": x_t[0].shape[0],
        "rows": both[0].shape[0],
        "text_length": 0 if text is None else text.shape[1],
        "load_seconds": load_seconds,
        **measured,
        "load_peak_rss_mib": load_peak,
        "step_peak_rss_mib": step_peak if fresh_peak else None,
        "prediction_std": [p.std().item() for p in raw],
        "difference": {
            "prediction": largest_error(levels(tensors, "prediction"), raw),
            "x_next": largest_error(levels(tensors, "x_next"), after),
        },
    }
    print(json.dumps(report, indent=None if options.turns else 2), flush=True)


if __name__ == "__main__":
    main()
