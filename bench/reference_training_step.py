"""The opponent of bench_training_step: the same training steps in the reference, apple/ml-mdm (Python).

Takes the inputs from what `bench_training_step --dump` wrote and the weights from the same .pth file, and
prints the same JSON. The reference's own trainer.train_batch does the work, with its ModelEma and LRScaler,
as its clis/train_parallel.py calls it. bf16: its get_loss under autocast (its own bf16 branch needs CUDA).
"""

import json
import sys
import time
import types

from reference_step import (
    add_stand_ins,
    load_diffusion,
    made_faster,
    option_parser,
    peak_rss_mib,
    report_head,
    reset_peak_rss,
    timed_steps,
)


def main():
    options = option_parser(__doc__, "bench_training_step").parse_args()

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
    args, diffusion = load_diffusion(options, mode="trainer")
    from ml_mdm import trainer
    from ml_mdm.lr_scaler import LRScaler
    from ml_mdm.models.model_ema import ModelEma

    args.fp16 = 0
    network = diffusion.model.vision_model
    made_faster(network, options, inference=False)
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

    _, measured = timed_steps(step, options)
    step_peak = peak_rss_mib()
    report = {
        **report_head("reference_training_step.py", options, replaced),
        "model": args.model,
        "images": tensors["images"].shape[0],
        "rows": tensors["images"].shape[0],
        "text_length": 0 if text is None else text.shape[1],
        "load_seconds": load_seconds,
        **measured,
        "load_peak_rss_mib": load_peak,
        "step_peak_rss_mib": step_peak if fresh_peak else None,
        "losses": losses,
    }
    print(json.dumps(report, indent=None if options.turns else 2), flush=True)


if __name__ == "__main__":
    main()
