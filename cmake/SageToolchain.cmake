# Compiler cache, linker, warnings and sanitizers, for every target of the project.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # A precompiled header hides its own inputs from ccache: these settings make the pair safe.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE_PROGRAM})
endif()
find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM)
  add_link_options(-fuse-ld=mold)
endif()

add_library(sage_options INTERFACE)
target_compile_options(sage_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-fPIC -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wno-unknown-pragmas>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${SAGE_WERROR}>>:-Werror>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${CCACHE_PROGRAM}>>:-fpch-preprocess>)
# LibTorch's wheel ships newer fmt headers than the distribution's library: use the headers alone.
target_compile_definitions(sage_options INTERFACE FMT_HEADER_ONLY=1)
if(SAGE_SANITIZE)
  # -O1: what is checked costs far more to compile at -O2, and LibTorch's own kernels stay as fast as they are.
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SAGE_SANITIZE}>
                      $<$<COMPILE_LANGUAGE:CXX>:-O1>
                      # The checks between the lines make GCC see uninitialised values in LibTorch's headers.
                      $<$<COMPILE_LANGUAGE:CXX>:-Wno-maybe-uninitialized>
                      # Unity builds: a type of an unnamed namespace then seems to stand in an included file.
                      $<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>
                      $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>
                      $<$<COMPILE_LANGUAGE:CXX>:-g1>)
  add_link_options(-fsanitize=${SAGE_SANITIZE})
endif()
