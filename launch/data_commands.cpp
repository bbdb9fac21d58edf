#include "launch/data_commands.h"

#include <fmt/format.h>

#include "core/config.h"
#include "core/error.h"
#include "data/fetch.h"
#include "data/packed_file.h"
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
  const bool is_packed = verb != "pack" && std::filesystem::is_regular_file(arguments.name);
  const std::string name = is_packed ? PackedFile::open(arguments.name)->description().name
                                     : std::string(dataset_format(arguments.name).name);
  const std::vector<std::string> overrides = {"data.name=" + name, "data.labels=" + arguments.labels,
                                              fmt::format("data.image_size={}", arguments.image_size)};
  DataConfig config = parse_config("", "command line", overrides).data;
  config.path = arguments.path;
  if (is_packed) config.packed = arguments.name;
  config.allow_partial = arguments.allow_partial;
  if (arguments.skip_corrupt) config.corrupt_images = "skip";
  if (verb == "pack") {
    const PackSummary packed = pack_dataset(config, {.decoded = !arguments.as_files}, arguments.out);
    fmt::print("{}: {} train and {} test images of {}, {}; {} bytes\n", arguments.out, packed.train, packed.test, name,
               packed.left_out > 0 ? fmt::format("{} of them left out, since they do not decode", packed.left_out)
                                   : "all of which decode",
               packed.bytes);
    return 0;
  }
  const DatasetSummary summary = verb == "verify" ? verify_dataset(config) : dataset_summary(config);
  fmt::print("{}", format_summary(summary));
  if (verb == "verify" && summary.unreadable > 0) {
    throw DataError(fmt::format(
        "{}: images that do not decode: {} (named above); mend or remove them, or train with data.corrupt_images=skip",
        is_packed ? arguments.name : summary.folder.string(), summary.unreadable));
  }
  if (verb == "verify" && !summary.checksums_match()) {
    throw DataError(fmt::format("{}: every record reads, but files differ from the published checksums (marked above)",
                                summary.folder.string()));
  }
  return 0;
}

}  // namespace sage
