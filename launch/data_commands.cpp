#include "launch/data_commands.h"

#include <fmt/format.h>

#include "core/config.h"
#include "core/error.h"
#include "data/fetch.h"
#include "data/registry.h"
#include "data/summary.h"

namespace sage {

int run_data_command(const std::string& verb, const DataArguments& arguments) {
  if (verb == "fetch") {
    std::filesystem::path folder =
        arguments.path.empty() ? default_data_folder() : std::filesystem::path(arguments.path);
    for (const auto& own : dataset_format(arguments.name).folder_names) {  // the data set's own folder was meant
      if (folder.filename() == own) folder = folder.parent_path();
    }
    fmt::print("{}\n", fetch_dataset(arguments.name, folder, arguments.url).string());
    return 0;
  }
  const std::vector<std::string> overrides = {"data.name=" + arguments.name, "data.labels=" + arguments.labels};
  DataConfig config = parse_config("", "command line", overrides).data;
  config.path = arguments.path;
  config.allow_partial = arguments.allow_partial;
  const DatasetSummary summary = verb == "verify" ? verify_dataset(config) : dataset_summary(config);
  fmt::print("{}", format_summary(summary));
  if (verb == "verify" && !summary.checksums_match()) {
    throw DataError(fmt::format("{}: every record reads, but files differ from the published checksums (marked above)",
                                summary.folder.string()));
  }
  return 0;
}

}  // namespace sage
