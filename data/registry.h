// Data sets by name, and where they are looked for.
#pragma once
#include <filesystem>
#include <span>
#include <string_view>

#include "core/config.h"
#include "data/dataset.h"
#include "data/format.h"

namespace sage {

/// All data sets, in the order in which messages list them.
std::span<const DatasetFormat> dataset_formats();

/// The table row of `name`. Throws ConfigError with the right names and the nearest one.
const DatasetFormat& dataset_format(std::string_view name);

/// The folder of `${XDG_CACHE_HOME:-~/.cache}/sage/data`, or what SAGE_DATA_DIR says: where fetch_dataset puts data
/// sets unless told otherwise.
std::filesystem::path default_data_folder();

/// The folder that holds the files of data set `name`. `path` is that folder or the one above it; if empty, the
/// folder named by SAGE_DATA_DIR and then the user's cache are searched. Throws DataError with the places searched,
/// the files expected and the command that fetches them; ConfigError for an unknown name.
std::filesystem::path find_dataset(std::string_view name, const std::filesystem::path& path);

/// Finds and reads the data set that `config` names (or its packed file), large ones into memory of `allocate`.
/// `from_files`: a folder of images is never read into memory. Throws ConfigError or DataError.
Dataset load_dataset(const DataConfig& config, const AllocateImages& allocate = {}, bool from_files = false);

}  // namespace sage
