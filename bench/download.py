#!/usr/bin/env python3
"""`download_dataset scrape` against img2dataset: the same list, from the same server on this machine, in turn.

usage: download.py --img2dataset PYTHON [--bin build/cpu/bin] [--urls 6000] [--repeats 3] [--json FILE]

PYTHON: of an environment with the package img2dataset. Its processes and threads are those that were fastest on a
part of the list (tried first). Both keep the files as they come (img2dataset once with its decoding and once without;
libmdm always decodes, so that broken files never enter), and then both make the smaller side 256 pixels, quality 95.
CPU seconds are those of the program and its children; the server's are shown apart.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

SETTINGS = [(1, 32), (2, 16), (2, 32), (2, 64), (2, 128), (4, 64)]  # processes and threads of img2dataset
IMG2DATASET = """
import sys, json
from img2dataset import download
if __name__ == "__main__":
    download(**json.loads(sys.argv[1]))
"""
MODES = {
    "files as they are": {"resize_mode": "no", "skip_reencode": True},
    "files as they are, img2dataset does not decode": {"resize_mode": "no", "disable_all_reencoding": True},
    "smaller side 256": {"resize_mode": "keep_ratio", "resize_only_if_bigger": True, "image_size": 256,
                         "encode_quality": 95},
}


def measured(command, log):
    """Seconds, CPU seconds with children, and the largest process in MiB."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 4):
        sys.exit(f"{command[0]} ends with {process.returncode}; see {log.name}")
    return {"seconds": time.monotonic() - begin, "cpu": usage.ru_utime + usage.ru_stime,
            "mib": usage.ru_maxrss / 1024}


def pictures_in(folder):
    count = 0
    for tar in pathlib.Path(folder).glob("*.tar"):
        with tarfile.open(tar) as archive:
            count += sum(name.endswith((".jpg", ".png", ".webp")) for name in archive.getnames())
    return count


class Bench:
    def __init__(self, arguments, work):
        self.arguments, self.work = arguments, pathlib.Path(work)
        self.log = open(self.work / "log.txt", "w")
        self.script = self.work / "run_img2dataset.py"
        self.script.write_text(IMG2DATASET)
        self.server = subprocess.Popen(
            [f"{arguments.bin}/fault_server", "--side", str(arguments.side), "--quality", "85", "--templates", "16"],
            stdout=subprocess.PIPE, text=True)
        self.url = self.server.stdout.readline().strip()
        self.picture_bytes = int(self.server.stdout.readline().split()[0])

    def list(self, count):
        """Without a header for us, with one for img2dataset."""
        plain, named = self.work / f"{count}.tsv", self.work / f"{count}_named.tsv"
        text = subprocess.run([f"{self.arguments.bin}/fault_server", "--list", str(count), "--mix", "good", "--base",
                               self.url], check=True, capture_output=True, text=True).stdout
        plain.write_text(text)
        named.write_text("url\tcaption\n" + text)
        return plain, named

    def server_cpu(self):
        fields = pathlib.Path(f"/proc/{self.server.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def once(self, command, count, folder):
        shutil.rmtree(folder, ignore_errors=True)
        before = self.server_cpu()
        result = measured(command, self.log)
        result["server_cpu"] = self.server_cpu() - before
        found = pictures_in(folder)
        if found != count:
            sys.exit(f"{found} pictures of {count} in {folder}; see {self.log.name}")
        shutil.rmtree(folder)
        return result

    def libmdm(self, count, mode):
        folder = self.work / "libmdm"
        command = [f"{self.arguments.bin}/download_dataset", "scrape", "--urls", str(self.list(count)[0]), "--output-dir",
                   str(folder), "--allow-private", "--samples-per-shard", "1000", "--transfers-per-host", "64"]
        if "image_size" in MODES[mode]:
            command += ["--resize", "256", "--quality", "95"]
        return self.once(command, count, folder)

    def img2dataset(self, count, mode, setting):
        folder = self.work / "img2dataset"
        options = dict(url_list=str(self.list(count)[1]), input_format="tsv", url_col="url", caption_col="caption",
                       output_format="webdataset", output_folder=str(folder), number_sample_per_shard=1000,
                       processes_count=setting[0], thread_count=setting[1], enable_wandb=False, **MODES[mode])
        return self.once([self.arguments.img2dataset, str(self.script), json.dumps(options)], count, folder)

    def best_setting(self):
        times = {}
        for setting in SETTINGS:
            times[setting] = self.img2dataset(min(3000, self.arguments.urls), "files as they are", setting)["seconds"]
            print(f"img2dataset with {setting[0]} processes, {setting[1]} threads: {times[setting]:.1f} s", file=sys.stderr)
        return min(times, key=times.get)

    def run(self):
        setting = self.best_setting()
        rows = []
        for mode in MODES:
            runs = {"libmdm": [], "img2dataset": []}
            for _ in range(self.arguments.repeats):
                runs["libmdm"].append(self.libmdm(self.arguments.urls, mode))
                runs["img2dataset"].append(self.img2dataset(self.arguments.urls, mode, setting))
            rows.append({"mode": mode, **runs})
        return setting, rows


def version_of(python):
    code = "import importlib.metadata as m; print(m.version('img2dataset'))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def cpu_name():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def table(rows, urls):
    lines = ["| | images/s, libmdm | images/s, img2dataset | ratio (least to most) | CPU s a 1,000, libmdm | img2dataset | ratio |"
             " MiB, libmdm | img2dataset |", "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        ours, theirs = row["libmdm"], row["img2dataset"]
        middle = lambda runs, what: statistics.median(run[what] for run in runs)
        ratios = sorted(b["seconds"] / a["seconds"] for a, b in zip(ours, theirs))
        lines.append(
            f"| {row['mode']} | {urls / middle(ours, 'seconds'):.0f} | {urls / middle(theirs, 'seconds'):.0f} | "
            f"**{statistics.median(ratios):.1f}** ({ratios[0]:.1f} to {ratios[-1]:.1f}) | {middle(ours, 'cpu') / urls * 1000:.2f} | "
            f"{middle(theirs, 'cpu') / urls * 1000:.2f} | **{middle(ours, 'cpu') / middle(theirs, 'cpu'):.2f}** | "
            f"{middle(ours, 'mib'):.0f} | {middle(theirs, 'mib'):.0f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--img2dataset", required=True, metavar="PYTHON")
    parser.add_argument("--bin", default="build/cpu/bin")
    parser.add_argument("--urls", type=int, default=6000)
    parser.add_argument("--side", type=int, default=480, help="smaller side of the pictures; the other is a third longer")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    arguments.bin = str(pathlib.Path(arguments.bin).resolve())
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(arguments, work)
        try:
            setting, rows = bench.run()
        finally:
            bench.server.terminate()
            bench.server.wait()
    head = {"cpu": cpu_name(), "threads": os.cpu_count(), "img2dataset": version_of(arguments.img2dataset),
            "processes": setting[0], "thread_count": setting[1], "urls": arguments.urls,
            "picture": f"{arguments.side * 4 // 3} x {arguments.side} JPEG, {bench.picture_bytes} bytes"}
    print(f"{head['cpu']}, {head['threads']} threads, shared with the server; {head['urls']} URLs, {head['picture']}; "
          f"img2dataset {head['img2dataset']}, {setting[0]} processes, {setting[1]} threads\n")
    print(table(rows, arguments.urls))
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps({"head": head, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
