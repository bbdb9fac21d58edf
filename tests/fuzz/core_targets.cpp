#include <ATen/core/Tensor.h>

#include <cstring>
#include <string>

#include "core/checksum.h"
#include "core/config.h"
#include "core/frequent_directions.h"
#include "core/safetensors.h"
#include "fuzz/targets.h"

namespace sage::fuzz {

void safetensors(std::string_view bytes) {
  const auto path = scratch() / "x.safetensors";
  put(path, bytes);
  const TensorFile file = read_safetensors(path, Checksums::if_present);
  std::size_t data = 0;
  for (const NamedTensor& tensor : file.tensors) data += tensor.tensor.nbytes();
  demand(data < bytes.size(), "more tensor data than the file holds");
  // What was read can be written, and is then the same.
  write_safetensors(path, file.tensors, file.metadata);
  const TensorFile again = read_safetensors(path);
  demand(again.tensors.size() == file.tensors.size() && again.metadata == file.metadata,
         "another content when written");
}

void config(std::string_view bytes) {
  const auto parts = split(bytes);
  const std::vector<std::string> overrides(parts.begin() + 1, parts.end());
  const Config config = parse_config(std::string(parts[0]), "x.yaml", overrides);
  const std::string text = to_json(config);
  demand(to_json(parse_config(to_yaml(config), "resolved", {})) == text, "the resolved YAML means something else");
  demand(to_json(parse_config(text, "resolved", {})) == text, "the resolved JSON means something else");
}

void sketch(std::string_view bytes) {
  std::string whole(bytes);
  const std::uint32_t checksum = crc32c(whole.data(), whole.size());
  whole.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
  const FrequentDirections sketch = FrequentDirections::deserialize(whole, at::kCPU, std::int64_t{16} << 20);
  demand(sketch.serialize() == whole, "another sketch when written");
}

}  // namespace sage::fuzz
