#pragma once
#include <cstdint>
#include <string>

namespace sage {

struct DataArguments {
  std::string name;  ///< of a data set; verify and info: or a packed file
  std::string path, url, labels = "fine", out;
  std::int64_t image_size = 0;
  bool allow_partial = false, decoded = false, as_files = false, skip_corrupt = false;
};

/// `verb`: verify, info, fetch or pack. One rank. Returns the exit status; bad data is a DataError.
int run_data_command(const std::string& verb, const DataArguments& arguments);

}  // namespace sage
