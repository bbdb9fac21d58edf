# Finds LibTorch: the one inside a Python wheel (LIBTORCH_PYTHON or the first python3 that can locate torch), or an
# unpacked zip on CMAKE_PREFIX_PATH. The package config that LibTorch ships demands a whole CUDA toolkit for a CUDA
# build even where only the CPU part is linked, so the few libraries are named here.
#
# Gives libtorch::cpu, and with SAGE_CUDA, a CUDA LibTorch and a CUDA compiler: libtorch::cuda and LIBTORCH_CUDA_FOUND.
set(LIBTORCH_PYTHON "" CACHE FILEPATH "Python whose torch package holds LibTorch")
if(LIBTORCH_PYTHON)
  execute_process(
    COMMAND ${LIBTORCH_PYTHON} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE libtorch_hint OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
find_path(LIBTORCH_ROOT NAMES include/ATen/ATen.h HINTS ${libtorch_hint} PATH_SUFFIXES libtorch)
find_library(LIBTORCH_CPU_LIBRARY torch_cpu HINTS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
find_library(LIBTORCH_C10_LIBRARY c10 HINTS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
find_library(LIBTORCH_CUDA_LIBRARY torch_cuda HINTS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
find_library(LIBTORCH_C10_CUDA_LIBRARY c10_cuda HINTS ${LIBTORCH_ROOT}/lib NO_DEFAULT_PATH)
if(LIBTORCH_ROOT)
  file(STRINGS ${LIBTORCH_ROOT}/include/torch/headeronly/version.h version_lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
  string(REGEX MATCHALL "[0-9]+" LibTorch_VERSION "${version_lines}")
  list(JOIN LibTorch_VERSION "." LibTorch_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LIBTORCH_ROOT LIBTORCH_CPU_LIBRARY LIBTORCH_C10_LIBRARY VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "give -DLIBTORCH_PYTHON=/path/to/python (with torch installed) or -DCMAKE_PREFIX_PATH=/path/to/libtorch")

if(NOT TARGET libtorch::cpu)
  add_library(libtorch::cpu INTERFACE IMPORTED)
  set_target_properties(libtorch::cpu PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${LIBTORCH_ROOT}/include;${LIBTORCH_ROOT}/include/torch/csrc/api/include"
    INTERFACE_LINK_LIBRARIES "${LIBTORCH_CPU_LIBRARY};${LIBTORCH_C10_LIBRARY}"
    # The libraries that LibTorch itself needs are found at run time, by its own search path.
    INTERFACE_LINK_OPTIONS "-Wl,--allow-shlib-undefined;-Wl,-rpath,${LIBTORCH_ROOT}/lib"
    INTERFACE_COMPILE_DEFINITIONS "USE_DISTRIBUTED;USE_C10D")
endif()

set(LIBTORCH_CUDA_FOUND FALSE)
if(SAGE_CUDA AND LIBTORCH_CUDA_LIBRARY)
  include(CheckLanguage)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90)
  endif()
  check_language(CUDA)
  find_path(NCCL_INCLUDE_DIR nccl.h HINTS /usr/local/cuda/include)
  if(CMAKE_CUDA_COMPILER AND NCCL_INCLUDE_DIR)
    set(CMAKE_CUDA_STANDARD 17)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    add_library(libtorch::cuda INTERFACE IMPORTED)
    set_target_properties(libtorch::cuda PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${NCCL_INCLUDE_DIR}"
      INTERFACE_LINK_LIBRARIES "libtorch::cpu;${LIBTORCH_CUDA_LIBRARY};${LIBTORCH_C10_CUDA_LIBRARY};CUDA::cudart"
      INTERFACE_COMPILE_DEFINITIONS "USE_CUDA;USE_C10D_NCCL")
    set(LIBTORCH_CUDA_FOUND TRUE)
  endif()
endif()
if(LIBTORCH_CUDA_FOUND)
  message(STATUS "CUDA part: built (CUDA ${CUDAToolkit_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES})")
elseif(NOT SAGE_CUDA)
  message(STATUS "CUDA part: not built (SAGE_CUDA=OFF)")
elseif(NOT LIBTORCH_CUDA_LIBRARY)
  message(STATUS "CUDA part: not built (this LibTorch is CPU only)")
else()
  message(STATUS "CUDA part: not built (no nvcc or no nccl.h found)")
endif()
