# LibTorch's headers are half of the work of compiling: torch/nn/module.h alone takes nine seconds. Sources that may want
# it get it precompiled, once for the library's objects and once for the tests.
option(MDM_PRECOMPILED_HEADERS "Parse LibTorch's headers once for all sources" ${PROJECT_IS_TOP_LEVEL})

# What ccache needs to see through them.
set(MDM_CCACHE_WITH_HEADERS "$<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>")

# mdm_precompiled_headers(NAME KIND): a target that mdm_use_precompiled_headers can name. It takes the compile options of
# the folder that calls this. KIND: OBJECT or EXECUTABLE, what those are that use it (-fPIC or -fPIE).
function(mdm_precompiled_headers name kind)
  if(NOT MDM_PRECOMPILED_HEADERS)
    return()
  endif()
  set(source "${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp")
  file(CONFIGURE OUTPUT "${source}" CONTENT "int main() {}\n")
  if(kind STREQUAL "OBJECT")
    add_library(${name} OBJECT EXCLUDE_FROM_ALL "${source}")
  else()
    add_executable(${name} EXCLUDE_FROM_ALL "${source}")
  endif()
  target_link_libraries(${name} PRIVATE MDM::Torch mdm_build_flags)
  target_compile_options(${name} PRIVATE ${MDM_CCACHE_WITH_HEADERS})
  target_precompile_headers(${name} PRIVATE <torch/nn/module.h> <string> <vector>)
endfunction()

function(mdm_use_precompiled_headers target name)
  if(MDM_PRECOMPILED_HEADERS)
    target_compile_options(${target} PRIVATE ${MDM_CCACHE_WITH_HEADERS})
    target_precompile_headers(${target} REUSE_FROM ${name})
  endif()
endfunction()
