#!/usr/bin/env python3
"""Images a second of the reference's reader (ml_mdm/reader.py on mlx-data) and of bench_load_images, in turns on the
same tars: A B A B.

Needs numpy, Pillow, mlx-data and dataclass-wizard. Without --list it makes a data set of its own first: JPEGs of
usual sizes (quality 90, 4:2:0) cut and scaled from --photos, or from fractal noise when there are none.

usage: reference_reader.py --reference CLONE/ml-mdm-matryoshka --ours build/cpu/bin/bench_load_images
           --vocab t5.vocab [--list INDEX.tsv | --folder F [--photos A.jpg ...]] [--image-size 64] [--rounds 5]
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import time


def fractal_noise(random, height, width):
    """A picture whose amplitudes fall as 1/f, as those of photographs do."""
    import numpy as np

    fy, fx = np.meshgrid(np.fft.fftfreq(height), np.fft.rfftfreq(width), indexing="ij")
    scale = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    planes = []
    for _ in range(3):
        spectrum = scale * np.exp(2j * np.pi * random.random(scale.shape))
        plane = np.fft.irfft2(spectrum, (height, width))
        planes.append(128 + 45 * plane / plane.std())
    grey = sum(planes) / 3
    return np.clip(np.stack([0.3 * p + 0.7 * grey for p in planes], -1), 0, 255).astype(np.uint8)


def make_data(folder, photos, count, seed=1):
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    sources = [Image.open(name).convert("RGB") for name in photos]
    sources = sources or [Image.fromarray(fractal_noise(random, 1200, 1600)) for _ in range(4)]
    words = "a photo of the red house by lake with two dogs and an old car under blue sky".split()
    os.makedirs(folder, exist_ok=True)
    shards = []
    for shard in range(2):
        tar_name = os.path.join(folder, f"images_{shard}.tar")
        rows = ["tar\tfile\tcaption"]
        with tarfile.open(tar_name, "w", format=tarfile.USTAR_FORMAT) as tar:
            for i in range(count // 2):
                source = sources[int(random.integers(len(sources)))]
                width, height = [(500, 375), (640, 480), (375, 500), (800, 600), (450, 300), (1024, 683)][i % 6]
                part = random.uniform(0.6, 1.0)
                w, h = source.width * part, source.height * part
                if w * height > h * width:
                    w = h * width / height
                else:
                    h = w * height / width
                x, y = random.uniform(0, source.width - w), random.uniform(0, source.height - h)
                picture = source.resize((width, height), Image.BICUBIC, (x, y, x + w, y + h))
                out = io.BytesIO()
                picture.save(out, "JPEG", quality=90, subsampling=2)
                info = tarfile.TarInfo(f"{i:06d}.jpg")
                info.size = out.tell()
                out.seek(0)
                tar.addfile(info, out)
                rows.append(f"{tar_name}\t{info.name}\t{' '.join(random.choice(words, int(random.integers(4, 20))))}")
        shards.append(os.path.join(folder, f"shard_{shard}.tsv"))
        with open(shards[-1], "w") as file:
            file.write("\n".join(rows) + "\n")
    index = os.path.join(folder, "index.tsv")
    with open(index, "w") as file:
        file.write("filename\n" + "\n".join(shards) + "\n")
    return index


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure_reference(options, tokenizer):
    from ml_mdm import reader

    config = reader.ReaderConfig(image_size=options.image_size, num_readers=1, reader_buffer_size=2)
    wall, cpu = time.monotonic(), cpu_seconds()
    dataset = reader.get_dataset(tokenizer, options.batch, options.list, config, num_epochs=-1, is_index_file=True)
    images = 0
    while images < options.images:
        images += next(dataset)["image"].shape[0]
    del dataset
    seconds, used = time.monotonic() - wall, cpu_seconds() - cpu
    return {"images": images, "seconds": seconds, "cpu_seconds": used, "images_per_second": images / seconds,
            "images_per_cpu_second": images / used}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="folder of the clone that holds ml_mdm/")
    parser.add_argument("--ours", required=True, help="the program bench_load_images")
    parser.add_argument("--vocab", required=True, help="the reference's t5.vocab")
    parser.add_argument("--list", help="index TSV; without it a data set is made")
    parser.add_argument("--folder", default="bench_images", help="where that goes")
    parser.add_argument("--photos", nargs="*", default=[], help="pictures that it is made from")
    parser.add_argument("--count", type=int, default=1200, help="images that it has")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=1200, help="read in a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mlx", action="store_true", help="ours in compat mode")
    options = parser.parse_args()
    if not options.list:
        options.list = make_data(options.folder, options.photos, options.count)

    sys.path.insert(0, options.reference)
    from ml_mdm.language_models.tokenizer import Tokenizer

    tokenizer = Tokenizer(options.vocab, mode="t5")
    command = [options.ours, options.list, "--image-size", str(options.image_size), "--vocab", options.vocab, "--batch",
               str(options.batch), "--images", str(options.images), "--threads", "1", "--turns"]
    ours = subprocess.Popen(command + (["--mlx"] if options.mlx else []), stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)
    results = {"libmdm": [], "reference": []}
    for _ in range(options.rounds + 1):
        ours.stdin.write("go\n")
        ours.stdin.flush()
        results["libmdm"].append(json.loads(ours.stdout.readline()))
        results["reference"].append(measure_reference(options, tokenizer))
    ours.stdin.close()
    ours.wait()
    report = {"image_size": options.image_size, "images": options.images, "rounds": options.rounds}
    for name, rounds in results.items():
        rounds = rounds[1:]  # the first warms the file cache
        report[name] = {key: statistics.median(r[key] for r in rounds)
                        for key in ("images_per_second", "images_per_cpu_second")}
    report["ratio_per_cpu_second"] = (report["libmdm"]["images_per_cpu_second"]
                                      / report["reference"]["images_per_cpu_second"])
    report["ratio_per_second"] = report["libmdm"]["images_per_second"] / report["reference"]["images_per_second"]
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
