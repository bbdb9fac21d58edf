# sage_library(name DEPENDS a b ...): the static library of one folder, all *.cpp files in it and one level below.
add_library(sage_pch OBJECT ${CMAKE_SOURCE_DIR}/cmake/precompiled.cpp)
target_link_libraries(sage_pch PUBLIC sage_options libtorch::cpu)
target_include_directories(sage_pch PUBLIC ${CMAKE_SOURCE_DIR})
target_precompile_headers(sage_pch PRIVATE ${CMAKE_SOURCE_DIR}/cmake/precompiled.h)

function(sage_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp ${CMAKE_CURRENT_SOURCE_DIR}/*/*.cpp)
  add_library(sage_${name} STATIC ${sources})
  add_library(sage::${name} ALIAS sage_${name})
  set_target_properties(sage_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(sage_${name} PUBLIC
    $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}> $<INSTALL_INTERFACE:include> $<INSTALL_INTERFACE:include/sage>)
  target_link_libraries(sage_${name} PUBLIC libtorch::cpu ${ARG_DEPENDS} PRIVATE $<BUILD_INTERFACE:sage_options>)
  target_precompile_headers(sage_${name} REUSE_FROM sage_pch)
endfunction()
