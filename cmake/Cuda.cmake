# The CUDA language, for a build whose LibTorch has CUDA. Included by Dependencies.cmake.
if(MDM_TORCH_HAS_CUDA)
  set(MDM_CUDA_ARCHITECTURES "80-real;90-real;100-real;100-virtual" CACHE STRING
    "GPUs that the kernels are compiled for (also in scripts/check_cuda.sh)")
  # LibTorch's own configuration leaves "OFF" here, which CMake does not accept as a target's list.
  set(CMAKE_CUDA_ARCHITECTURES "${MDM_CUDA_ARCHITECTURES}")
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # LibTorch's own: two runtimes in a process share no streams
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
endif()
