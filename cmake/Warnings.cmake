# Compiler flags for our own sources only: warnings, OpenMP, sanitizers, exact floating point.
add_library(mdm_build_flags INTERFACE)
target_compile_options(mdm_build_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow;-Wno-unused-parameter;-fno-math-errno>
  # Without it the compiler may fuse a*b+c where it likes, and random numbers and schedules would
  # differ between machines.
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>
  # LibTorch's at::parallel_for is silently serial in files that are compiled without OpenMP.
  $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
target_link_options(mdm_build_flags INTERFACE -fopenmp)
if(MDM_WARNINGS_AS_ERRORS)
  target_compile_options(mdm_build_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(MDM_SANITIZE)
  target_compile_options(mdm_build_flags INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=address,undefined;-fno-sanitize-recover=undefined;-fno-omit-frame-pointer>)
  target_link_options(mdm_build_flags INTERFACE -fsanitize=address,undefined)
endif()
