# Everything that libmdm links, found in one place. LibTorch has a module of its own, which is also
# installed for the projects that use libmdm.
include(MdmTorch)
if(MDM_TORCH_PROBLEM)
  message(FATAL_ERROR "${MDM_TORCH_PROBLEM}")
endif()
include(Cuda)

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(yaml-cpp REQUIRED)
if(NOT TARGET yaml-cpp::yaml-cpp)  # Debian's 0.7 exports the name without a namespace
  add_library(yaml-cpp::yaml-cpp ALIAS yaml-cpp)
endif()
find_package(spdlog REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(PNG REQUIRED)
pkg_check_modules(TURBOJPEG REQUIRED IMPORTED_TARGET libturbojpeg)
pkg_check_modules(WEBP REQUIRED IMPORTED_TARGET libwebp libwebpdemux libwebpmux)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)  # what CLIP's tokenizer knows of Unicode
pkg_check_modules(SENTENCEPIECE REQUIRED IMPORTED_TARGET sentencepiece)
if(MDM_WITH_CURL)
  find_package(CURL REQUIRED)  # 7.85 or later
  find_package(pugixml REQUIRED)  # what S3 answers
endif()
if(MDM_WITH_SERVING)
  find_package(Boost 1.81 REQUIRED)  # Beast and Asio, headers alone
  find_package(prometheus-cpp CONFIG REQUIRED)
endif()
# Collectives of several processes: c10d's Gloo on CPUs (LibTorch has the code, but not these headers of its own), and
# NCCL in a build with CUDA.
option(MDM_WITH_GLOO "Several processes on CPUs (needs Gloo's headers)" ON)
if(MDM_WITH_GLOO)
  find_path(MDM_GLOO_INCLUDE_DIR gloo/algorithm.h)
endif()
option(MDM_WITH_NCCL "Several processes on GPUs (in a build with CUDA)" ON)
if(MDM_TORCH_HAS_CUDA AND MDM_WITH_NCCL)
  find_path(MDM_NCCL_INCLUDE_DIR nccl.h HINTS "${MDM_TORCH_PREFIX}/../nvidia/nccl/include" ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)
endif()
find_path(STB_INCLUDE_DIR stb/stb_image.h REQUIRED)
# Only the demo data's emoji need these two; without them that part says what to install.
option(MDM_WITH_FREETYPE "Read emoji fonts with FreeType and HarfBuzz (demo data only)" ON)
if(MDM_WITH_FREETYPE)
  pkg_check_modules(FREETYPE IMPORTED_TARGET freetype2)
  pkg_check_modules(HARFBUZZ IMPORTED_TARGET harfbuzz)
endif()
if(MDM_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
