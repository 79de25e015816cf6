#!/usr/bin/env python3
"""Runs `evaluate` and PyPI's torch-fidelity, torchmetrics and transformers on the same pictures with the same random
weights, one after the other on the same cores: numbers, pictures a second, CPU time, memory. Prints a table and one JSON
line a comparison.

usage: evaluate.py --evaluate build/cpu/bin/evaluate [--work DIR] [--pictures 128] [--many 0] [--threads 2]
       --pictures N  of each of two sets, for FID and speed        --many N  pictures whose peak memory is compared with that
       of 500        --clip  also a CLIP of ViT-B/16's full size
Needs torch, torch-fidelity, torchmetrics, transformers, safetensors, Pillow in the Python that runs it.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "evaluation" / "golden"))
import make  # noqa: E402  (the formula of the weights)


def weights_of(list_name):
    state = {}
    for line in (make.HERE / list_name).read_text().splitlines():
        name, *shape = line.split()
        state[name] = make.drawn(name, tuple(map(int, shape)))
    return state


def pictures(folder, count, seed, side=64):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for i in range(count):
        path = folder / f"{i:06d}.png"
        if not path.exists():
            small = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(small).resize((side, side), Image.BICUBIC).save(path)
        else:
            random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return folder


def ours(program, arguments, threads, output):
    environment = dict(os.environ, OMP_WAIT_POLICY="passive")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.time()
    command = [str(program), *map(str, arguments), "--threads", str(threads), "--output", str(output)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: ended with {status}")
    seconds = time.time() - start
    cpu = usage.ru_utime + usage.ru_stime
    del before
    return json.loads(output.read_text())["results"], seconds, cpu, usage.ru_maxrss / 1024


def fidelity(first, second, weights, threads, width):
    """torch-fidelity's own program path, in this process."""
    import torch_fidelity

    torch.set_num_threads(threads)
    start, cpu = time.time(), time.process_time()
    metrics = torch_fidelity.calculate_metrics(
        input1=str(first), input2=str(second), cuda=False, fid=True, kid=False, verbose=False, cache=False,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights), batch_size=64,
        feature_layer_fid=str(width), save_cpu_ram=True,
    )
    return metrics["frechet_inception_distance"], time.time() - start, time.process_time() - cpu


def compare_fid(options, work):
    a, b = pictures(work / f"a{options.pictures}", options.pictures, 1), pictures(work / f"b{options.pictures}", options.pictures, 2)
    for width in (64, 2048):
        arguments = ["--generated", a, "--reference", b, "--inception", work / "inception.pth", "--metrics", "fid",
                     "--fid-features", width]
        result, seconds, cpu, memory = ours(options.evaluate, arguments, options.threads, work / "ours.json")
        theirs, their_seconds, their_cpu = fidelity(a, b, work / "inception.pth", options.threads, width)
        count = 2 * options.pictures
        print(json.dumps({
            "comparison": f"fid {width}", "ours": result["fid"], "torch-fidelity": theirs,
            "relative": abs(result["fid"] / theirs - 1),
            "pictures_per_second": [count / seconds, count / their_seconds],
            "pictures_per_cpu_second": [count / cpu, count / their_cpu], "our_memory_mib": memory}), flush=True)


def compare_memory(options, work):
    peaks = {}
    for count in (500, options.many):
        folder = pictures(work / f"many{count}", count, 3, side=32)
        arguments = ["--reference", folder, "--save-reference", work / "many.npz", "--metrics", "fid",
                     "--inception", work / "inception.pth", "--fid-features", options.many_features]
        _, seconds, cpu, peaks[count] = ours(options.evaluate, arguments, options.threads, work / "ours.json")
        print(json.dumps({"comparison": "memory", "pictures": count, "peak_mib": peaks[count], "seconds": seconds,
                          "cpu_seconds": cpu}), flush=True)


def compare_clip(options, work):
    from safetensors.torch import save_file
    from torchmetrics.multimodal.clip_score import CLIPScore
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = work / "clip_vit_b_16"
    folder.mkdir(exist_ok=True)
    vocabulary = json.loads((make.HERE / "clip" / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text((make.HERE / "clip" / "merges.txt").read_text())
    config = {"model_type": "clip", "text_config": {"vocab_size": 49408, "eos_token_id": vocabulary["<|endoftext|>"]},
              "vision_config": {"patch_size": 16}}
    (folder / "config.json").write_text(json.dumps(config))
    model = CLIPModel(CLIPConfig(text_config=config["text_config"], vision_config=config["vision_config"])).eval()
    state = {name: value.contiguous() for name, value in make.draw_into(model).items() if value.is_floating_point()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    merges = [tuple(line.split(" ")) for line in (make.HERE / "clip" / "merges.txt").read_text().splitlines()[1:]]
    processor = CLIPProcessor(CLIPImageProcessorPil(), CLIPTokenizer(vocab=vocabulary, merges=merges))
    captions = [c for c in make.CAPTIONS if c.strip() and "<|" not in c and len(c) < 200]
    files = sorted((make.HERE / "pictures").iterdir())
    count = len(files)
    (work / "lst.json").write_text(json.dumps([[str(f), captions[i % len(captions)]] for i, f in enumerate(files)]))
    result, seconds, cpu, memory = ours(options.evaluate, ["--generated", work / "lst.json", "--clip", folder],
                                        options.threads, work / "ours.json")
    for name in ("get_image_features", "get_text_features"):  # torchmetrics expects the tensors of transformers 4
        give = getattr(model, name)
        setattr(model, name, lambda *a, give=give, **k: (lambda out: getattr(out, "pooler_output", out))(give(*a, **k)))
    metric = CLIPScore(model_name_or_path=lambda: (model, processor))
    torch.set_num_threads(options.threads)
    start, used = time.time(), time.process_time()
    with torch.no_grad():
        for i, file in enumerate(files):
            metric.update([make.tensor_of(file)[0]], [captions[i % len(captions)]])
    theirs = metric.compute().item()
    print(json.dumps({"comparison": "clip ViT-B/16", "ours": result["clip_score"], "torchmetrics": theirs,
                      "absolute": abs(result["clip_score"] - theirs), "pictures": count, "cpu_seconds": [cpu, time.process_time() - used],
                      "seconds": [seconds, time.time() - start], "our_memory_mib": memory}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluate", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("evaluate_bench"))
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--many", type=int, default=0)
    parser.add_argument("--many-features", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clip", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.save(weights_of("inception.txt"), options.work / "inception.pth")
    if options.pictures > 0:
        compare_fid(options, options.work)
    if options.many > 0:
        compare_memory(options, options.work)
    if options.clip:
        compare_clip(options, options.work)


if __name__ == "__main__":
    main()
