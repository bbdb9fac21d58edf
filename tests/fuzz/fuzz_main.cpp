// One libFuzzer program per reader: SAGE_FUZZ_TARGET is the function of targets.h.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "core/error.h"
#include "fuzz/targets.h"

// libFuzzer prescribes the name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    sage::fuzz::SAGE_FUZZ_TARGET({reinterpret_cast<const char*>(data), size});
  } catch (const sage::InternalError& error) {
    std::fprintf(stderr, "internal error: %s\n", error.what());
    std::abort();
  } catch (const sage::Error&) {
    // Refused, as it should be. Any other exception ends the program, which is a finding.
  }
  return 0;
}
