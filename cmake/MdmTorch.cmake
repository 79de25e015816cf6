# Finds LibTorch and makes the target MDM::Torch. Used by libmdm's own build and installed beside
# mdmConfig.cmake, so that both find it in the same way.
#
# Why not find_package(Torch) always: the packaged CPU+CUDA wheel has no CPU switch there; it insists
# on a CUDA toolkit and on libraries that a CPU user does not need. Without CUDA we link the two
# libraries that matter.
#
# Input:  MDM_WITH_CUDA  OFF | ON | AUTO (default AUTO)
#         MDM_TORCH_ROOT (variable or environment), Torch_DIR, Torch_ROOT, CMAKE_PREFIX_PATH; else the
#         folder that scripts/setup.sh fills, else a Python package `torch`.
# Output: MDM::Torch, MDM_TORCH_PREFIX, MDM_TORCH_VERSION, MDM_TORCH_HAS_CUDA; or MDM_TORCH_PROBLEM, the
#         reason why there is no MDM::Torch
set(MDM_TORCH_PROBLEM "")
if(NOT DEFINED MDM_WITH_CUDA)  # an unguarded set(CACHE) would drop the variable of mdmConfig.cmake
  set(MDM_WITH_CUDA AUTO CACHE STRING "Use CUDA: OFF, ON or AUTO")
endif()

function(_mdm_torch_prefix result)
  set(candidates "${MDM_TORCH_ROOT}" "$ENV{MDM_TORCH_ROOT}" "${Torch_ROOT}" "$ENV{Torch_ROOT}")
  if(Torch_DIR)
    list(APPEND candidates "${Torch_DIR}/../../..")
  endif()
  if(DEFINED ENV{Torch_DIR})
    list(APPEND candidates "$ENV{Torch_DIR}/../../..")
  endif()
  string(REPLACE ":" ";" env_prefixes "$ENV{CMAKE_PREFIX_PATH}")
  foreach(prefix IN LISTS CMAKE_PREFIX_PATH env_prefixes)
    list(APPEND candidates "${prefix}" "${prefix}/torch" "${prefix}/libtorch" "${prefix}/../..")
  endforeach()
  list(APPEND candidates "${MDM_TORCH_FOUND}")  # the last time, perhaps through a variable of that shell
  if(PROJECT_NAME STREQUAL "mdm")
    list(APPEND candidates "${PROJECT_SOURCE_DIR}/.torch/torch")
  endif()
  list(APPEND candidates "/usr")
  foreach(candidate IN LISTS candidates)
    if(candidate AND EXISTS "${candidate}/include/torch/csrc/api/include/torch/torch.h")
      get_filename_component(candidate "${candidate}" REALPATH)
      set(${result} "${candidate}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
  find_package(Python3 QUIET COMPONENTS Interpreter)
  if(Python3_Interpreter_FOUND)
    execute_process(
      COMMAND "${Python3_EXECUTABLE}" -c
        "import importlib.util as u,os;s=u.find_spec('torch');print(os.path.dirname(s.origin) if s and s.origin else '',end='')"
      OUTPUT_VARIABLE found ERROR_QUIET)
    if(found AND EXISTS "${found}/include/torch/csrc/api/include/torch/torch.h")
      set(${result} "${found}" PARENT_SCOPE)
      return()
    endif()
  endif()
  set(${result} "" PARENT_SCOPE)
endfunction()

set(MDM_TORCH_PREFIX "")
foreach(_mdm_root "${MDM_TORCH_ROOT}" "$ENV{MDM_TORCH_ROOT}")
  if(_mdm_root AND NOT EXISTS "${_mdm_root}/include/torch/csrc/api/include/torch/torch.h")
    set(MDM_TORCH_PROBLEM "MDM_TORCH_ROOT is '${_mdm_root}', which holds no LibTorch (no include/torch)")
    return()
  endif()
endforeach()
_mdm_torch_prefix(MDM_TORCH_PREFIX)
if(NOT MDM_TORCH_PREFIX)
  string(CONCAT MDM_TORCH_PROBLEM "LibTorch was not found. Set MDM_TORCH_ROOT to a folder that holds its include/ and "
    "lib/ (libmdm's scripts/setup.sh fetches one into .torch/torch of the checkout).")
  return()
endif()
set(MDM_TORCH_FOUND "${MDM_TORCH_PREFIX}" CACHE INTERNAL "The LibTorch of this build folder")
set(MDM_TORCH_VERSION "unknown")
foreach(_mdm_header headeronly/version.h csrc/api/include/torch/version.h)
  if(MDM_TORCH_VERSION STREQUAL "unknown" AND EXISTS "${MDM_TORCH_PREFIX}/include/torch/${_mdm_header}")
    file(READ "${MDM_TORCH_PREFIX}/include/torch/${_mdm_header}" _mdm_text)
    if(_mdm_text MATCHES "_VERSION_MAJOR ([0-9]+).*_VERSION_MINOR ([0-9]+).*_VERSION_PATCH ([0-9]+)")
      set(MDM_TORCH_VERSION "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}.${CMAKE_MATCH_3}")
    endif()
  endif()
endforeach()
if(NOT MDM_TORCH_VERSION STREQUAL "unknown" AND MDM_TORCH_VERSION VERSION_LESS 2.6)
  set(MDM_TORCH_PROBLEM "LibTorch ${MDM_TORCH_VERSION} in ${MDM_TORCH_PREFIX} is too old; libmdm needs 2.6 or later")
  return()
endif()

set(MDM_TORCH_HAS_CUDA OFF)
if(NOT MDM_WITH_CUDA STREQUAL "OFF" AND EXISTS "${MDM_TORCH_PREFIX}/lib/libtorch_cuda.so")
  find_package(CUDAToolkit QUIET)
  include(CheckLanguage)
  check_language(CUDA)
  if(CUDAToolkit_FOUND AND CMAKE_CUDA_COMPILER)
    include(CheckCXXSourceCompiles)  # a wheel without its companion libraries fails here
    set(CMAKE_REQUIRED_LIBRARIES -Wl,--no-as-needed "${MDM_TORCH_PREFIX}/lib/libtorch_cuda.so"
      "${MDM_TORCH_PREFIX}/lib/libtorch_cpu.so" "${MDM_TORCH_PREFIX}/lib/libc10.so")
    check_cxx_source_compiles("int main(){return 0;}" MDM_TORCH_CUDA_LINKS)
    unset(CMAKE_REQUIRED_LIBRARIES)
    if(MDM_TORCH_CUDA_LINKS)
      set(MDM_TORCH_HAS_CUDA ON)
    endif()
  endif()
endif()
if(MDM_WITH_CUDA STREQUAL "ON" AND NOT MDM_TORCH_HAS_CUDA)
  string(CONCAT MDM_TORCH_PROBLEM "MDM_WITH_CUDA is ON, but ${MDM_TORCH_PREFIX} or the CUDA toolkit lacks what a CUDA "
    "build needs. Run libmdm's scripts/setup.sh --cuda, or set MDM_WITH_CUDA=OFF.")
  return()
endif()

if(NOT TARGET MDM::Torch)
  add_library(MDM::Torch INTERFACE IMPORTED GLOBAL)
  if(MDM_TORCH_HAS_CUDA)
    if(NOT DEFINED TORCH_CUDA_ARCH_LIST AND NOT DEFINED ENV{TORCH_CUDA_ARCH_LIST})
      # Torch's own default list names architectures that nvcc 13 refuses.
      set(TORCH_CUDA_ARCH_LIST "8.0;9.0;10.0+PTX")
    endif()
    set(_mdm_cuda_flags "${CMAKE_CUDA_FLAGS}")
    find_package(Torch REQUIRED CONFIG PATHS "${MDM_TORCH_PREFIX}/share/cmake/Torch" NO_DEFAULT_PATH)
    set(CMAKE_CUDA_FLAGS "${_mdm_cuda_flags}")
    set_property(TARGET MDM::Torch PROPERTY INTERFACE_LINK_LIBRARIES torch c10 c10_cuda)
  else()
    # Names of our own, so that a project may also find_package(Torch).
    foreach(_mdm_lib c10 torch_cpu)
      add_library(MDM::${_mdm_lib} SHARED IMPORTED GLOBAL)
      set_target_properties(MDM::${_mdm_lib} PROPERTIES
        IMPORTED_LOCATION "${MDM_TORCH_PREFIX}/lib/lib${_mdm_lib}.so"
        INTERFACE_INCLUDE_DIRECTORIES "${MDM_TORCH_PREFIX}/include;${MDM_TORCH_PREFIX}/include/torch/csrc/api/include")
    endforeach()
    set_target_properties(MDM::torch_cpu PROPERTIES
      INTERFACE_LINK_LIBRARIES MDM::c10 INTERFACE_COMPILE_DEFINITIONS "USE_DISTRIBUTED;USE_C10D_GLOO")
    set_property(TARGET MDM::Torch PROPERTY INTERFACE_LINK_LIBRARIES MDM::torch_cpu MDM::c10)
  endif()
endif()
message(STATUS "LibTorch ${MDM_TORCH_VERSION} in ${MDM_TORCH_PREFIX} (CUDA: ${MDM_TORCH_HAS_CUDA})")
