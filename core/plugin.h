// The CUDA part of the program is a library of its own (libsage_cuda.so), loaded when it is first needed: so the same
// program starts on machines without a GPU driver.
#pragma once

namespace sage {

/// Address of the C function `name` in the CUDA part. Looked for at SAGE_CUDA_LIBRARY if that is set, else beside the
/// program and in ../lib. Throws EnvironmentError that says why it cannot be had: not built, no GPU driver, or a
/// damaged or older library. Safe to call from several threads.
void* load_cuda_function(const char* name);

/// Whether the CUDA part can be loaded. Says nothing on whether a device is there.
bool cuda_part_available();

}  // namespace sage
