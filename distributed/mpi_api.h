// The C interface of MPI without its removed C++ bindings, and the check of its return codes.
#pragma once
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1
#endif
#include <mpi.h>

#include <string>

namespace sage {

/// Throws CommunicationError naming `call` and MPI's own explanation unless `code` is MPI_SUCCESS.
void check_mpi(int code, const char* call);

/// The text that MPI has for an error code.
std::string mpi_error_text(int code);

}  // namespace sage
