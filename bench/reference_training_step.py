"""The opponent of bench_training_step: the same training steps in the reference, apple/ml-mdm (Python).

Takes the inputs from what `bench_training_step --dump` wrote and the weights from the same .pth file, and
prints the same JSON. The reference's own trainer.train_batch does the work, with its ModelEma and LRScaler,
as its clis/train_parallel.py calls it. bf16: its get_loss under autocast (its own bf16 branch needs CUDA).
"""

import argparse
import json
import statistics
import sys
import time
import types

from reference_step import add_stand_ins, machine, peak_rss_mib, remove_stand_ins, reset_peak_rss


def load_diffusion(options):
    import yaml
    from ml_mdm.config import get_arguments, get_model, get_pipeline

    with open(options.config_path) as file:
        kind = yaml.safe_load(file).get("model", "unet")
    args = get_arguments(["--model", kind, "--config_path", options.config_path], mode="trainer")
    remove_stand_ins()
    args.unet_config.conditioning_feature_dim = options.text_width
    network = get_model(args.model)(3, 3, args.unet_config)
    diffusion = get_pipeline(args.model)(network, args.diffusion_config)
    diffusion.model.load(options.checkpoint)
    return args, diffusion


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", required=True, help="folder of the clone that holds ml_mdm/")
    parser.add_argument("--config-path", required=True, help="the model's YAML file, of the reference")
    parser.add_argument("--checkpoint", required=True, help="the .pth file that bench_training_step measures")
    parser.add_argument("--inputs", required=True, help="what bench_training_step --dump wrote")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--turns", action="store_true", help="a step for each line 'step' on the standard input")
    options = parser.parse_args()

    sys.path.insert(0, options.reference)
    # trainer.py imports it for a type annotation only
    sys.modules["torch.utils.tensorboard"] = types.SimpleNamespace(SummaryWriter=object)
    replaced = add_stand_ins()
    import torch

    torch.utils.tensorboard = sys.modules["torch.utils.tensorboard"]
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    dump = torch.load(options.inputs, map_location="cpu", weights_only=True)
    tensors = dump["state_dict"]
    text, mask = tensors.get("lm_outputs"), tensors.get("lm_mask")
    options.text_width = text.shape[2] if text is not None else -1

    start = time.perf_counter()
    args, diffusion = load_diffusion(options)
    from ml_mdm import trainer
    from ml_mdm.lr_scaler import LRScaler
    from ml_mdm.models.model_ema import ModelEma

    args.fp16 = 0
    network = diffusion.model.vision_model
    kind = torch.optim.AdamW if args.use_adamw else torch.optim.Adam
    extra = {"weight_decay": 0} if args.use_adamw else {}
    optimizer = kind(network.parameters(), lr=args.lr, eps=1e-8, **extra)
    scheduler = LRScaler().get_lr_scheduler(args.warmup_steps, optimizer)
    average = ModelEma(network)
    load_seconds = time.perf_counter() - start
    load_peak = peak_rss_mib()
    fresh_peak = reset_peak_rss()
    torch.manual_seed(dump["seed"])
    losses = []

    def step():
        images = torch.permute((tensors["images"].type(torch.float) - 127.0) / 128.0, (0, 3, 1, 2))
        sample = {"images": images, "lm_outputs": text, "lm_mask": mask}
        result = trainer.train_batch(diffusion, sample, optimizer, scheduler, None, args, ema_model=average)
        losses.append(float(result[0]))

    if options.precision == "bf16":
        plain = diffusion.get_loss

        def under_autocast(sample):
            with torch.autocast("cpu", torch.bfloat16):
                return plain(sample)

        diffusion.get_loss = under_autocast

    for _ in range(options.warm_up):
        step()
    seconds, cpu = [], []

    def timed():
        start, start_cpu = time.perf_counter(), time.process_time()
        step()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)

    if options.turns:
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            if line.strip() != "step":
                break
            timed()
            print(json.dumps({"seconds": seconds[-1], "cpu_seconds": cpu[-1]}), flush=True)
    else:
        for _ in range(options.steps):
            timed()
    step_peak = peak_rss_mib()
    report = {
        "program": "reference_training_step.py",
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
        "machine": machine(),
        "stand_ins": replaced,
        "threads": torch.get_num_threads(),
        "model": args.model,
        "images": tensors["images"].shape[0],
        "rows": tensors["images"].shape[0],
        "text_length": 0 if text is None else text.shape[1],
        "precision": options.precision,
        "load_seconds": load_seconds,
        "seconds": seconds,
        "min_seconds": min(seconds, default=0),
        "median_seconds": statistics.median(seconds) if seconds else 0,
        "min_cpu_seconds": min(cpu, default=0),
        "load_peak_rss_mib": load_peak,
        "step_peak_rss_mib": step_peak if fresh_peak else None,
        "losses": losses,
    }
    print(json.dumps(report, indent=None if options.turns else 2), flush=True)


if __name__ == "__main__":
    main()
