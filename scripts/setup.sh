#!/usr/bin/env bash
# Makes a machine ready to build libmdm: Debian packages, and LibTorch in the checkout's own folder
# .torch. Safe to run again: what is there already is left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
usage: scripts/setup.sh [--cpu | --cuda] [--dev] [--print-mode]
  --cpu         LibTorch for the CPU (about 550 MB to download, 550 MB on disk)
  --cuda        LibTorch with CUDA (about 2.5 GB to download, 4.5 GB on disk); needs the CUDA Toolkit
                neither: --cuda where both nvcc and a working GPU are there, else --cpu
  --dev         also the tools for working on the code (clang-format, clang-tidy), the emoji of the demo data, and
                what tests use beside us: TensorBoard, moto (an S3), clients of web_demo (each in a folder of .cache),
                and Chromium
  --print-mode  only print which of cpu and cuda it would be
LibTorch is not fetched when MDM_TORCH_ROOT, Torch_DIR or CMAKE_PREFIX_PATH name one.
TEXT
}

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

log="$PWD/.cache/setup.log"
work="$PWD/.cache/libtorch"  # on the file system of .torch, so that moving there is one rename

mode=""
dev=no
print_mode=no
for argument in "$@"; do
  case "$argument" in
    --cpu) mode=cpu ;;
    --cuda) mode=cuda ;;
    --dev) dev=yes ;;
    --print-mode) print_mode=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done

have_nvcc() { command -v nvcc >/dev/null || [[ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]]; }
have_gpu() { command -v nvidia-smi >/dev/null && timeout 30 nvidia-smi -L 2>/dev/null | grep -q '^GPU '; }

if [[ -z "$mode" ]]; then
  mode=cpu
  if have_nvcc && have_gpu; then mode=cuda; fi
fi
if [[ "$print_mode" == yes ]]; then
  echo "$mode"
  exit 0
fi
if [[ "$mode" == cuda ]] && ! have_nvcc; then
  die "--cuda needs the CUDA Toolkit 13, and nvcc is neither on PATH nor in \$CUDA_HOME/bin; use --cpu"
fi

packages=(
  g++ cmake ninja-build ccache pkg-config
  libyaml-cpp-dev libcli11-dev libspdlog-dev libfmt-dev nlohmann-json3-dev libsentencepiece-dev libutf8proc-dev
  libstb-dev libturbojpeg0-dev libpng-dev libwebp-dev zlib1g-dev libcurl4-openssl-dev libssl-dev libpugixml-dev libgloo-dev
  libboost1.81-dev prometheus-cpp-dev libgtest-dev libgmock-dev
  python3 python3-pip unzip ca-certificates)
if [[ "$dev" == yes ]]; then
  # The second line: what the demo data's emoji are made from, and by.
  packages+=(clang-format-14 clang-tidy-14 python3-venv openmpi-bin chromium chromium-driver
    libfreetype-dev libharfbuzz-dev fonts-noto-color-emoji unicode-data)
fi

install_packages() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "this is no Debian system: install by hand what these Debian packages hold: ${packages[*]}"
    return
  fi
  local missing=() package
  for package in "${packages[@]}"; do
    if [[ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null || true)" != ii* ]]; then
      missing+=("$package")
    fi
  done
  if [[ ${#missing[@]} -eq 0 ]]; then return; fi

  local as_root=()
  if [[ "$(id -u)" -ne 0 ]]; then
    command -v sudo >/dev/null || die "no sudo here; run this as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120)
  # A list that cannot be refreshed is no fault yet: the old one may do.
  "${apt[@]}" update >>"$log" 2>&1 </dev/null || say "warning: apt-get update failed; going on with the old lists"
  if ! "${apt[@]}" install --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null; then
    if grep -q 'No space left on device\|enough free space' "$log"; then die "the disk is full (see $log)"; fi
    if grep -q 'Temporary failure resolving\|Could not connect\|Failed to fetch' "$log"; then
      die "apt-get could not download packages: is there a network? (see $log)"
    fi
    die "apt-get could not install ${missing[*]}: $(grep '^E: ' "$log" | tail -n 1) (see $log)"
  fi
}

holds_libtorch() { [[ -n "$1" && -e "$1/include/torch/csrc/api/include/torch/torch.h" ]]; }

# Prints the LibTorch that the environment names (the same places as in cmake/MdmTorch.cmake).
named_libtorch() {
  local candidates=("${MDM_TORCH_ROOT:-}" "${Torch_ROOT:-}" "${Torch_DIR:+$Torch_DIR/../../..}") prefix prefixes
  IFS=':;' read -r -a prefixes <<<"${CMAKE_PREFIX_PATH:-}"
  for prefix in "${prefixes[@]}"; do
    candidates+=("$prefix" "$prefix/torch" "$prefix/libtorch" "$prefix/../..")
  done
  for prefix in "${candidates[@]}"; do
    if holds_libtorch "$prefix"; then
      echo "$prefix"
      return
    fi
  done
}

# What the marker of a complete folder holds: the mode, and every wheel with its hash.
marker() {
  echo "mode $1"
  grep -v '^#' "scripts/libtorch/$1.txt"
}

is_complete() {
  [[ -f .torch/complete && -s .torch/torch/lib/libtorch_cpu.so ]] &&
    { [[ "$(<.torch/complete)" == "$(marker "$mode")" ]] || [[ "$(<.torch/complete)" == "$(marker cuda)" ]]; }
}

find_python() {
  local python
  for python in python3 /usr/bin/python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null &&
      "$python" -m pip --version >/dev/null 2>&1; then
      echo "$python"
      return
    fi
  done
  die "no python3 (3.9 or later) with pip was found; install python3 and python3-pip"
}

# Downloads the wheels of the mode into $work/wheels. Hashes are checked by pip, and again here.
download_wheels() {
  local python tags=() level
  python="$(find_python)"
  # The wheels are those for Python 3.11 on any glibc from 2.28, whatever Python runs pip.
  for level in 28 27 26 25 24 23 22 21 20 19 18 17 12 5; do tags+=(--platform "manylinux_2_${level}_x86_64"); done
  tags+=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64)
  local pip=("$python" -m pip --disable-pip-version-check --no-cache-dir --log "$work/pip.log" download
    --no-deps --require-hashes --requirement "scripts/libtorch/$mode.txt" --dest "$work/wheels"
    --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 "${tags[@]}")
  mkdir -p "$work/tmp"  # pip would fill /tmp, which is often small
  local attempt done_=no
  for attempt in 1 2; do
    : >"$work/pip.log"
    if [[ -t 2 ]]; then
      TMPDIR="$work/tmp" PIP_REQUIRE_VIRTUALENV=0 "${pip[@]}" >&2 </dev/null && done_=yes
    else
      TMPDIR="$work/tmp" PIP_REQUIRE_VIRTUALENV=0 "${pip[@]}" --quiet >>"$log" 2>&1 </dev/null && done_=yes
    fi
    if [[ "$done_" == yes ]]; then break; fi
    cat "$work/pip.log" >>"$log" 2>/dev/null || true
    if grep -q 'No space left on device' "$work/pip.log"; then
      die "the disk is full (the download needs $1 MB)"
    elif grep -q 'DO NOT MATCH THE HASHES\|not match the hash' "$work/pip.log"; then
      rm -rf "$work/wheels"
      die "a downloaded wheel is not the one that scripts/libtorch/$mode.txt names (see $log)"
    fi
    if [[ "$attempt" == 1 ]]; then say "the download broke off; trying once more"; fi
  done
  if [[ "$done_" == no ]]; then
    die "LibTorch could not be downloaded: is there a network, and does pip reach its index? (see $log)"
  fi
  local wheel wanted
  wanted="$(grep -c '^[^#]' "scripts/libtorch/$mode.txt")"
  [[ "$(find "$work/wheels" -name '*.whl' | wc -l)" == "$wanted" ]] ||
    { rm -rf "$work/wheels"; die "pip left other wheels than the $wanted asked for; run this again"; }
  for wheel in "$work"/wheels/*.whl; do
    grep -q "sha256:$(sha256sum "$wheel" | cut -d' ' -f1)\$" "scripts/libtorch/$mode.txt" ||
      { rm -rf "$work/wheels"; die "$(basename "$wheel") has a wrong SHA-256; run this again"; }
  done
}

unpack_wheels() {
  local into="$work/unpacked" only wheel
  mkdir -p "$into"
  for wheel in "$work"/wheels/*.whl; do
    only=()
    case "$mode $(basename "$wheel")" in
      *' torch-'*)
        only=('torch/lib/*' 'torch/include/*' 'torch/share/cmake/*' 'torch/version.py' '*.dist-info/licenses/*')
        if [[ "$mode" == cpu ]]; then
          only[0]='torch/lib/libtorch_cpu.so'
          only+=('torch/lib/libc10.so' 'torch/lib/libgomp*')
        fi
        ;;
      'cpu nvidia_cuda_runtime-'*) only=('nvidia/cu13/lib/libcudart.so.*' '*.dist-info/licenses/*') ;;
      'cpu nvidia_cuda_cupti-'*) only=('nvidia/cu13/lib/libcupti.so.*' '*.dist-info/licenses/*') ;;
    esac
    unzip -q -o "$wheel" "${only[@]}" -d "$into" >>"$log" 2>&1 </dev/null ||
      die "$(basename "$wheel") could not be unpacked: is the disk full? (see $log)"
    rm "$wheel"
  done
}

fetch_libtorch() {
  local need_mb=1400 libc
  if [[ "$mode" == cuda ]]; then need_mb=8000; fi
  [[ "$(uname -s)-$(uname -m)" == Linux-x86_64 ]] ||
    die "the LibTorch wheels are for Linux on x86_64, this is $(uname -s) on $(uname -m); set MDM_TORCH_ROOT to a LibTorch 2.6 or later"
  libc="$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2)"
  [[ "$(printf '%s\n' 2.28 "${libc:-0}" | sort -V | head -n 1)" == 2.28 ]] ||
    die "the LibTorch wheels need glibc 2.28 or later, this is ${libc:-another C library}; set MDM_TORCH_ROOT"
  command -v unzip >/dev/null || die "unzip is missing; install it"
  [[ "$(df -Pm "$work" | awk 'NR == 2 {print $4}')" -ge "$need_mb" ]] ||
    die "LibTorch needs $need_mb MB of free disk below $PWD (half of it only while unpacking)"

  say "fetching LibTorch 2.11.0 ($mode)"
  rm -rf "$work/unpacked" "$work/tmp"
  mkdir -p "$work/wheels"
  download_wheels "$need_mb"
  unpack_wheels
  marker "$mode" >"$work/unpacked/complete"
  sync -f "$work/unpacked" 2>/dev/null || true
  rm -rf "$work/old"
  if [[ -e .torch ]]; then mv .torch "$work/old"; fi
  mv "$work/unpacked" .torch
  rm -rf "$work"
}

# Python packages that some tests need and nothing else does, in a virtual environment of their own:
# install_python NAME "MODULE, MODULE" REQUIREMENT...
install_python() {
  local venv=".cache/$1" name="$1" modules="$2"
  shift 2
  if "$venv/bin/python" -c "import $modules" 2>/dev/null; then return; fi
  say "installing $name for tests in $venv"
  if ! { "$(find_python)" -m venv "$venv" &&
    "$venv/bin/python" -m pip --disable-pip-version-check install -q "$@"; } >>"$log" 2>&1 </dev/null; then
    say "warning: $name could not be installed (see $log); the tests that need it will be skipped"
  fi
}

if ! mkdir -p .cache 2>/dev/null || [[ ! -w .cache ]]; then die "$PWD is not writable"; fi
: >"$log"
install_packages

if [[ "$dev" == yes ]]; then
  # What reads event files; the S3 that tests read from; clients of web_demo, and what drives a browser.
  install_python tensorboard "tensorboard" 'tensorboard>=2.14,<3'
  install_python moto "moto, boto3, flask" 'moto[server,s3]>=5,<6'
  install_python web "openai, requests, openapi_spec_validator, selenium" 'openai>=1.50,<3' 'requests>=2.31,<3' \
    'openapi-spec-validator>=0.7,<1' 'selenium>=4.20,<5'
fi

named="$(named_libtorch)"
if [[ -n "${MDM_TORCH_ROOT:-}" ]] && ! holds_libtorch "$MDM_TORCH_ROOT"; then
  die "MDM_TORCH_ROOT is '$MDM_TORCH_ROOT', which holds no LibTorch (no include/torch/csrc/api/include/torch/torch.h)"
fi
if [[ -n "$named" ]]; then
  say "ready ($mode): LibTorch in $named"
  exit 0
fi
mkdir -p "$work"
if command -v flock >/dev/null; then
  exec 9>.cache/setup.lock
  flock 9  # another set-up of this checkout may be at it
fi
if ! is_complete; then
  mkdir -p "$work"
  fetch_libtorch
fi
rmdir "$work" 2>/dev/null || true
say "ready ($mode): LibTorch in $PWD/.torch/torch"
