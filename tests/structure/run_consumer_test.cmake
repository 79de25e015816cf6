# Installs the build into a temporary prefix, moves the prefix elsewhere, and builds and runs the outside
# project tests/consumer against it. Needs BUILD_DIR SOURCE_DIR CONFIG WORK_DIR TORCH_ROOT GENERATOR
# COMPILER LAUNCHER.
cmake_minimum_required(VERSION 3.25)

function(run what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${what} failed (${result}):\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE "${WORK_DIR}")
set(prefix "${WORK_DIR}/moved prefix")
run("the installation" "${CMAKE_COMMAND}" --install "${BUILD_DIR}" --config "${CONFIG}" --prefix "${WORK_DIR}/stage")
file(RENAME "${WORK_DIR}/stage" "${prefix}")

# No path of this machine in what other machines' CMake would read.
file(GLOB_RECURSE files "${prefix}/*.cmake" "${prefix}/*.pc")
list(LENGTH files count)
if(count LESS 4)
  message(FATAL_ERROR "only ${count} CMake files were installed: ${files}")
endif()
foreach(file IN LISTS files)
  file(READ "${file}" text)
  foreach(path "${SOURCE_DIR}" "${BUILD_DIR}" "${WORK_DIR}" "${TORCH_ROOT}" "/usr/lib/" "/usr/include")
    string(FIND "${text}" "${path}" place)
    if(NOT place EQUAL -1)
      message(FATAL_ERROR "${file} names the build machine's path ${path}")
    endif()
  endforeach()
endforeach()

# Every public header is there, and nothing private.
file(GLOB_RECURSE public RELATIVE "${SOURCE_DIR}/include" "${SOURCE_DIR}/include/*.h")
file(GLOB_RECURSE installed RELATIVE "${prefix}/include" "${prefix}/include/*")
list(SORT public)
list(SORT installed)
if(NOT public STREQUAL installed)
  message(FATAL_ERROR "installed headers: ${installed}\npublic headers: ${public}")
endif()

# SentencePiece is in a module of its own, which names no folder of this machine.
file(GLOB_RECURSE modules "${prefix}/mdm_sentencepiece.so")
list(LENGTH modules count)
if(NOT count EQUAL 1)
  message(FATAL_ERROR "mdm_sentencepiece.so should be installed once: ${modules}")
endif()
file(STRINGS "${modules}" strings REGEX "/")
foreach(path "${SOURCE_DIR}" "${BUILD_DIR}" "${TORCH_ROOT}")
  string(FIND "${strings}" "${path}" place)
  if(NOT place EQUAL -1)
    message(FATAL_ERROR "${modules} names the build machine's path ${path}")
  endif()
endforeach()

# The programs start from where they were moved to.
file(GLOB programs "${prefix}/bin/*")
foreach(program IN LISTS programs)
  run("${program} --version" "${program}" --version)
endforeach()

run("configuring the outside project" "${CMAKE_COMMAND}" -S "${SOURCE_DIR}/tests/consumer" -B "${WORK_DIR}/build"
  -G "${GENERATOR}" "-DCMAKE_BUILD_TYPE=${CONFIG}" "-DCMAKE_CXX_COMPILER=${COMPILER}"
  "-DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}" "-DCMAKE_PREFIX_PATH=${prefix}" "-DMDM_TORCH_ROOT=${TORCH_ROOT}")
run("building the outside project" "${CMAKE_COMMAND}" --build "${WORK_DIR}/build" --config "${CONFIG}")

# A checkpoint from the installed program and config, and a picture of it from the outside project.
set(config "${prefix}/share/mdm/configs/demo/tiny_nested_64.yaml")
run("checkpoint init" "${prefix}/bin/checkpoint" init "${WORK_DIR}/tiny.pth" --randomize 1 --config-path "${config}")
run("running the outside project"
  "${WORK_DIR}/build/consumer" "${WORK_DIR}/tiny.pth" "${config}" "${WORK_DIR}/picture.png")
message(STATUS "${output}")
file(READ "${WORK_DIR}/picture.png" head LIMIT 24 HEX)  # the signature, and the header with width and height
if(NOT head STREQUAL "89504e470d0a1a0a0000000d494844520000004000000040")
  message(FATAL_ERROR "picture.png is no PNG of 64x64 pixels: ${head}")
endif()

# It trains with the installed library, too: two steps, and a third from their checkpoint.
run("demo_dataset" "${prefix}/bin/demo_dataset" shapes --output-dir "${WORK_DIR}/data" --count 8 --validation-count 0)
foreach(steps 2 3)
  run("training in the outside project" "${WORK_DIR}/build/train" "${prefix}/share/mdm/configs/demo/shapes_32.yaml"
    "${WORK_DIR}/data/train.tsv" "${WORK_DIR}/run" ${steps})
endforeach()
if(NOT EXISTS "${WORK_DIR}/run/vis_model_000003.pth" OR NOT output MATCHES "step 3: loss" OR output MATCHES "step 2: loss")
  message(FATAL_ERROR "the training should have gone on at step 3:\n${output}")
endif()

# And scrapes with the library beside it.
run("scraping in the outside project" "${CMAKE_COMMAND}" -E chdir "${WORK_DIR}" "${WORK_DIR}/build/scrape")
if(NOT output MATCHES "no data: absent.tsv: there is no such file")
  message(FATAL_ERROR "the missing list should have been named:\n${output}")
endif()

# Without LibTorch the package is not found, with a reason, instead of breaking the project.
execute_process(
  COMMAND "${CMAKE_COMMAND}" -S "${SOURCE_DIR}/tests/consumer" -B "${WORK_DIR}/build-without-torch" -G "${GENERATOR}"
    "-DCMAKE_CXX_COMPILER=${COMPILER}" "-DCMAKE_PREFIX_PATH=${prefix}" "-DMDM_TORCH_ROOT=${WORK_DIR}/nowhere"
  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(result EQUAL 0 OR NOT output MATCHES "holds[ \r\n]+no[ \r\n]+LibTorch")
  message(FATAL_ERROR "without LibTorch the package should not be found, and say why:\n${output}")
endif()
file(REMOVE_RECURSE "${WORK_DIR}")
