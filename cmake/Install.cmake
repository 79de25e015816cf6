# What `cmake --install` puts where: the library, its headers, the programs, the configs, and the files
# that make find_package(mdm) work. No installed .cmake file names a folder of the build machine; only
# the binaries do (where LibTorch lies).
include(CMakePackageConfigHelpers)

if(NOT BUILD_SHARED_LIBS)
  message(FATAL_ERROR "An installed libmdm is a shared library: a static one would make every project that uses it "
    "find yaml-cpp, spdlog and the image libraries. Set BUILD_SHARED_LIBS=ON; or, to link it "
    "statically into a project that has libmdm as a subdirectory, MDM_INSTALL=OFF.")
endif()

set(MDM_INSTALL_CMAKEDIR "${CMAKE_INSTALL_LIBDIR}/cmake/mdm")
set(mdm_torch_rpath "${MDM_TORCH_PREFIX}/lib")
if(MDM_TORCH_HAS_CUDA)
  list(APPEND mdm_torch_rpath "${CUDAToolkit_LIBRARY_DIR}")
endif()
file(RELATIVE_PATH mdm_bin_to_lib "/${CMAKE_INSTALL_BINDIR}" "/${CMAKE_INSTALL_LIBDIR}")

set(mdm_libraries mdm mdm_demo_library mdm_ingest_library mdm_evaluation_library)
if(MDM_WITH_SERVING)
  list(APPEND mdm_libraries mdm_serving_library)
endif()
set_target_properties(${mdm_libraries} PROPERTIES INSTALL_RPATH "$ORIGIN;${mdm_torch_rpath}")
install(TARGETS ${mdm_libraries} EXPORT mdmTargets
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
  INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(TARGETS mdm_sentencepiece LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}/mdm")  # libmdm looks there
if(MDM_BUILD_APPS)
  get_property(mdm_apps DIRECTORY "${PROJECT_SOURCE_DIR}/apps" PROPERTY BUILDSYSTEM_TARGETS)
  foreach(app IN LISTS mdm_apps)
    get_target_property(type ${app} TYPE)
    if(type STREQUAL "EXECUTABLE")
      set_target_properties(${app} PROPERTIES INSTALL_RPATH "$ORIGIN/${mdm_bin_to_lib};${mdm_torch_rpath}")
      install(TARGETS ${app} RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
    endif()
  endforeach()
endif()
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/mdm" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
  FILES_MATCHING PATTERN "*.h")
# With the text model that lies beside the demo configs.
install(DIRECTORY "${PROJECT_SOURCE_DIR}/configs" DESTINATION "${CMAKE_INSTALL_DATADIR}/mdm")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")

install(EXPORT mdmTargets NAMESPACE mdm:: DESTINATION "${MDM_INSTALL_CMAKEDIR}")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/mdmConfig.cmake.in" "${PROJECT_BINARY_DIR}/mdmConfig.cmake"
  INSTALL_DESTINATION "${MDM_INSTALL_CMAKEDIR}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/mdmConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/mdmConfig.cmake" "${PROJECT_BINARY_DIR}/mdmConfigVersion.cmake"
  "${PROJECT_SOURCE_DIR}/cmake/MdmTorch.cmake" DESTINATION "${MDM_INSTALL_CMAKEDIR}")
