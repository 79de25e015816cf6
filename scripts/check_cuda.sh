#!/usr/bin/env bash
# Compiles every CUDA source to an object, as the preset cuda would; needs nvcc, but no GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

nvcc="${CUDACXX:-$(command -v nvcc || true)}"
if [[ -z "$nvcc" && -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]]; then nvcc="${CUDA_HOME:-/usr/local/cuda}/bin/nvcc"; fi
mapfile -t sources < <(find src -type f -name '*.cu' | sort)
if [[ ${#sources[@]} -eq 0 ]]; then
  echo "cuda: there are no CUDA sources"
  exit 0
fi
if [[ -z "$nvcc" ]]; then
  echo "cuda: SKIPPED, nvcc was not found: ${#sources[@]} CUDA sources were not compiled"
  exit 0
fi
launcher=()
if command -v ccache >/dev/null; then launcher=(ccache); fi

# The same machine codes as MDM_CUDA_ARCHITECTURES in cmake/Cuda.cmake.
codes=(-gencode 'arch=compute_80,code=sm_80' -gencode 'arch=compute_90,code=sm_90'
  -gencode 'arch=compute_100,code=[sm_100,compute_100]')
failed=()
for source in "${sources[@]}"; do
  object="build/cuda-check/${source%.cu}.o"
  mkdir -p "$(dirname "$object")"
  if nice "${launcher[@]}" "$nvcc" -std=c++17 -O3 --threads 2 -Xcompiler -fPIC,-Wall "${codes[@]}" \
    -Iinclude -Isrc -c "$source" -o "$object"; then
    echo "cuda: compiled $source"
  else
    failed+=("$source")
  fi
done
if [[ ${#failed[@]} -gt 0 ]]; then
  printf 'cuda: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo "cuda: ${#sources[@]} sources compile for sm_80, sm_90 and sm_100"

torch="${MDM_TORCH_ROOT:-.torch/torch}"
toolkit="$(dirname "$(dirname "$(readlink -f "$nvcc")")")"
if [[ ! -d "$torch/include" ]]; then
  echo "cuda: SKIPPED the C++ sources of a build with CUDA: no LibTorch in $torch"
  exit 0
fi
with_torch=(-Iinclude -Isrc -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include"
  -isystem "$toolkit/include")

# What C++ sources do only in a build with CUDA. One unit: most of the time goes into LibTorch's headers.
mapfile -t sources < <(grep -rl --include='*.cpp' 'if MDM_HAS_CUDA' src | sort)
unit=build/cuda-check/with_cuda.cpp
printf '#include "%s"\n' "${sources[@]/#/$PWD/}" >"$unit"
"${launcher[@]}" g++ -std=c++17 -O0 -fPIC -fopenmp -Wall -DMDM_HAS_CUDA=1 "${with_torch[@]}" -c "$unit" -o "${unit%.cpp}.o"
echo "cuda: compiled ${sources[*]} as with CUDA"

# The one C++ source that needs NCCL's headers.
if [[ ! -e "$toolkit/include/nccl.h" && ! -e /usr/include/nccl.h && ! -e /usr/local/include/nccl.h ]]; then
  echo "cuda: SKIPPED nccl_backend.cpp: nccl.h was not found"
else
  "${launcher[@]}" g++ -std=c++17 -O0 -fPIC -DMDM_HAS_NCCL=1 -DUSE_C10D_NCCL=1 -DUSE_DISTRIBUTED "${with_torch[@]}" \
    -isystem /usr/local/include -c src/distributed/nccl_backend.cpp -o build/cuda-check/nccl_backend.o
  echo "cuda: compiled src/distributed/nccl_backend.cpp"
fi
