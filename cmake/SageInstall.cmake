# cmake --install: the program, and the libraries up to selection with a package config, so that other projects can say
# find_package(sage CONFIG) and link sage::selection. Components: program, development.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(sage_package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/sage)

# The program finds LibTorch where it was built with it.
set_target_properties(sage PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
install(TARGETS sage RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT program)
if(TARGET sage_cuda)
  add_dependencies(sage sage_cuda) # loaded at run time: who builds the program wants it too
  # Where the program looks for it (core/plugin.h): ../lib, whatever the distribution calls its library folder.
  install(TARGETS sage_cuda LIBRARY DESTINATION lib COMPONENT program)
endif()

# Public headers use LibTorch's fmt without its library: those who include them have to do the same.
target_compile_definitions(sage_core INTERFACE $<INSTALL_INTERFACE:FMT_HEADER_ONLY=1>)
target_compile_features(sage_core PUBLIC cxx_std_20)
install(TARGETS sage_core sage_distributed sage_selection EXPORT sageTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
foreach(folder core distributed selection)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/sage COMPONENT development
          FILES_MATCHING PATTERN "*.h")
endforeach()
install(EXPORT sageTargets NAMESPACE sage:: DESTINATION ${sage_package_folder} COMPONENT development)

configure_package_config_file(cmake/sageConfig.cmake.in ${CMAKE_BINARY_DIR}/sageConfig.cmake
                              INSTALL_DESTINATION ${sage_package_folder})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/sageConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/sageConfig.cmake ${CMAKE_BINARY_DIR}/sageConfigVersion.cmake
              ${CMAKE_SOURCE_DIR}/cmake/FindLibTorch.cmake
        DESTINATION ${sage_package_folder} COMPONENT development)
