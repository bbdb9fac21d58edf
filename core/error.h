// What can go wrong, as exceptions. Each carries where it was thrown and the exit status of the program; main() prints
// exactly one of them and ends the job. Libraries never call exit().
#pragma once
#include <source_location>
#include <stdexcept>
#include <string>

namespace sage {

/// Exit statuses of the `sage` program. docs/exit_codes.md explains them to users.
enum class ExitStatus : int {
  success = 0,
  internal = 1,       ///< a defect of the program, or an exception of a library
  configuration = 2,  ///< command line or configuration
  data = 3,           ///< a data set is missing, truncated or wrong
  checkpoint = 4,     ///< a checkpoint or run folder is missing, damaged or of another model
  environment = 5,    ///< no such device, too many ranks, no space, no permission
  training = 6,       ///< the loss or a gradient is not finite
  communication = 7,  ///< a collective failed or missed its deadline, or ranks hold different parameters
  stopped = 8,        ///< a signal asked for it: everything is saved, `--resume` goes on
};

/// Base of all errors that a user can do something about. The message names the file, key or record, what was
/// expected, and a way out.
class Error : public std::runtime_error {
 public:
  Error(ExitStatus status, const std::string& message, std::source_location where = std::source_location::current())
      : std::runtime_error(message), status_(status), where_(where) {}
  ExitStatus status() const noexcept { return status_; }
  const std::source_location& where() const noexcept { return where_; }

 private:
  ExitStatus status_;
  std::source_location where_;
};

/// One class per exit status, so that a throw reads as what it is.
template <ExitStatus Status>
class ErrorOf : public Error {
 public:
  explicit ErrorOf(const std::string& message, std::source_location where = std::source_location::current())
      : Error(Status, message, where) {}
};
using ConfigError = ErrorOf<ExitStatus::configuration>;
using DataError = ErrorOf<ExitStatus::data>;
using CheckpointError = ErrorOf<ExitStatus::checkpoint>;
using EnvironmentError = ErrorOf<ExitStatus::environment>;
using TrainingError = ErrorOf<ExitStatus::training>;
using CommunicationError = ErrorOf<ExitStatus::communication>;
/// A broken promise between two parts of the program: wrong shapes, a call out of order.
using InternalError = ErrorOf<ExitStatus::internal>;

/// Throws InternalError with `message` unless `condition` holds.
inline void require(bool condition, const char* message, std::source_location where = std::source_location::current()) {
  if (!condition) throw InternalError(message, where);
}

}  // namespace sage
