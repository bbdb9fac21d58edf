#pragma once
#include <string>

namespace sage {

struct DataArguments {
  std::string name, path, url, labels = "fine";
  bool allow_partial = false;
};

/// `verb`: verify, info or fetch. One rank. Returns the exit status; bad data is a DataError.
int run_data_command(const std::string& verb, const DataArguments& arguments);

}  // namespace sage
