#!/usr/bin/env python3
"""Checks which file includes which: the ladder of the rooms, what public headers may show, and the one
private seam of each third-party library. Prints a line for each fault and exits 1 if there is one.

usage: check_layering.py [ROOT]    (ROOT: a checkout; default: the one that this script is in)
"""

import pathlib
import re
import sys

# A room may include itself and the rooms of earlier entries; rooms of one entry are strangers.
LADDER = [
    {"core"}, {"config"}, {"checkpoint"}, {"distributed"}, {"ops"}, {"media", "net", "text"}, {"data"},
    {"models"}, {"diffusion"}, {"pipeline"}, {"training"}, {"demo", "serving", "ingest", "evaluation"},
]
LEVEL = {room: level for level, rooms in enumerate(LADDER) for room in rooms}
APPS = len(LADDER)
TOP_HEADERS = "pipeline"  # the room that headers directly in include/mdm (mdm/pipeline.h) count as

# Third-party libraries: what their includes look like, and the rooms whose sources may use them
# (None: any). None of them may be seen in include/.
THIRD_PARTY = {
    "yaml-cpp": (r"yaml-cpp/", {"config"}),
    "CLI11": (r"CLI/|CLI11\.hpp", {"config"}),
    "spdlog": (r"spdlog/|fmt/", {"core"}),
    "sentencepiece": (r"sentencepiece", {"text"}),
    "utf8proc": (r"utf8proc", {"evaluation"}),
    "stb": (r"stb/|stb_", {"media"}),
    "libpng": (r"png\.h|libpng", {"media"}),
    "libjpeg-turbo": (r"turbojpeg\.h|jpeglib\.h", {"media"}),
    "libwebp": (r"webp/", {"media"}),
    "libcurl": (r"curl/", {"net"}),
    "pugixml": (r"pugixml", {"net"}),
    "OpenSSL": (r"openssl/", {"core"}),
    "FreeType": (r"ft2build\.h|freetype/", {"demo"}),
    "HarfBuzz": (r"hb\.h|hb-", {"demo"}),
    "Boost": (r"boost/", {"serving"}),
    "prometheus-cpp": (r"prometheus/", {"serving"}),
    "zlib": (r"zlib\.h", None),
    "nlohmann-json": (r"nlohmann/", None),
    "c10d": (r"distributed/c10d/|gloo/", {"distributed"}),
    "NCCL": (r"nccl", {"distributed"}),
    "CUDA": (r"cuda", None),
}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.MULTILINE)
SUFFIXES = {".h", ".hpp", ".cpp", ".cu", ".cuh", ".inc"}


def room_of_target(target):
    """The room that an include names, or None when it is not one of ours."""
    parts = target.split("/")
    if parts[0] == "mdm":
        return parts[1] if len(parts) > 2 else TOP_HEADERS
    return parts[0] if parts[0] in LEVEL and len(parts) > 1 else None


def allowed(room, other):
    if other == room:
        return True
    return other in LEVEL and LEVEL[other] < (APPS if room == "apps" else LEVEL[room])


def faults_of(path, room, public, text):
    for match in INCLUDE.finditer(text):
        target = match.group(1)
        where = f"{path}:{text.count(chr(10), 0, match.start()) + 1}"
        other = room_of_target(target)
        if other is not None:
            if other not in LEVEL:
                yield f"{where}: includes \"{target}\", and there is no room '{other}'"
            elif not allowed(room, other):
                yield f"{where}: room '{room}' includes \"{target}\", but '{other}' is not below it on the ladder"
            if (public or room == "apps") and not target.startswith("mdm/"):
                yield f"{where}: includes the private header \"{target}\""
            continue
        if re.match(r"torch/(torch|all|extension)\.h", target):
            yield f"{where}: includes <{target}>, which costs ten seconds a file; name what is needed"
        if public and target == "ATen/ATen.h":
            yield f"{where}: a public header includes <ATen/ATen.h>; ATen/core/Tensor.h is enough"
        if public and target.startswith("torch/nn") and room != "models" and path.as_posix() != "include/mdm/ops/layers.h":
            yield f"{where}: <{target}> may be seen in include/mdm/ops/layers.h and include/mdm/models/ alone"
        for library, (pattern, rooms) in THIRD_PARTY.items():
            if not re.match(pattern, target):
                continue
            if public:
                yield f"{where}: a public header shows {library} (<{target}>)"
            elif room != "apps" and rooms is not None and room not in rooms:
                yield f"{where}: {library} (<{target}>) belongs to {', '.join(sorted(rooms))}, not to '{room}'"


def check(root):
    faults, count = [], 0
    for top, public in (("include/mdm", True), ("src", False), ("apps", False)):
        for file in sorted((root / top).rglob("*")):
            if file.suffix not in SUFFIXES or not file.is_file():
                continue
            path = file.relative_to(root)
            inside = file.relative_to(root / top).parts
            room = "apps" if top == "apps" else inside[0] if len(inside) > 1 else TOP_HEADERS
            count += 1
            if room != "apps" and room not in LEVEL:
                faults.append(f"{path}: there is no room '{room}'")
                continue
            faults.extend(faults_of(path, room, public, file.read_text(encoding="utf-8", errors="replace")))
    return faults, count


def main(arguments):
    root = pathlib.Path(arguments[0]) if arguments else pathlib.Path(__file__).resolve().parent.parent
    faults, count = check(root)
    for fault in faults:
        print(fault)
    if count == 0:
        print(f"layering: no sources below {root}")
        return 1
    print(f"layering: {count} files, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
