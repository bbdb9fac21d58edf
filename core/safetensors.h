// The safetensors file format: an 8-byte little-endian header length, a JSON header, raw little-endian data. Unlike
// LibTorch's archives nothing in such a file is ever executed. Files written here also carry checksums (in the
// metadata, where other readers ignore them), so that one flipped bit anywhere is found. Format:
// https://github.com/huggingface/safetensors#format
#pragma once
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/named_tensor.h"

namespace sage {

/// The tensors of a file, in the order of their data, and its metadata without the checksums.
struct TensorFile {
  std::vector<NamedTensor> tensors;  ///< CPU, contiguous, aligned, owned
  std::map<std::string, std::string> metadata;
};

/// Writes the tensors (any device and layout; float64, float32, float16, bfloat16, int64, int32, uint8 or bool) so that
/// `path` holds the old file or the new one, never a part. Items of a larger type come first, so that all data is
/// aligned. Names must be unique; "__metadata__" and metadata keys beginning with "sage.crc32c" are taken.
/// Throws EnvironmentError if the file cannot be written, InternalError on tensors that the format cannot hold.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// Whether a file without checksums (made by another program) is accepted.
enum class Checksums { required, if_present };

/// Reads a whole file, strictly: the header must describe every byte of the file exactly once, and checksums must fit.
/// Memory is taken only for what the file really holds. Throws CheckpointError naming the file and the cause.
TensorFile read_safetensors(const std::filesystem::path& path, Checksums checksums = Checksums::required);

}  // namespace sage
