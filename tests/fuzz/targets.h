// The readers of files from elsewhere, each as a function of the bytes it is given: for libFuzzer (fuzz_main.cpp) and
// for the replay of the kept corpus in the ordinary tests (replay_test.cpp).
#pragma once
#include <array>
#include <filesystem>
#include <string_view>
#include <vector>

namespace sage::fuzz {

/// Each reads `bytes` as its kind of file. A reader either accepts them, and then what it gives has to be sound
/// (std::logic_error if not), or throws an Error that is not an InternalError. Anything else is a finding.
void safetensors(std::string_view bytes);
/// The state, the configuration and names of further tensors of a checkpoint, separated by bytes of 1.
void checkpoint_state(std::string_view bytes);
/// A configuration in YAML, then overrides, separated by bytes of 1.
void config(std::string_view bytes);
/// A byte of options, the length of the class names, the names, then records.
void cifar(std::string_view bytes);
/// A byte of options, the length of the labels file, that file, then the images file.
void idx(std::string_view bytes);
/// A byte that says how many examples there are, then the file of their labels by people.
void human_labels(std::string_view bytes);
void tar(std::string_view bytes);
/// A sketch without its checksum.
void sketch(std::string_view bytes);
void metrics(std::string_view bytes);
/// A byte that says how far it is reduced, then a JPEG or PNG image.
void image(std::string_view bytes);
/// A packed data set, whose checksums are put right first.
void packed(std::string_view bytes);

struct Target {
  const char* name;
  void (*run)(std::string_view bytes);
};
inline constexpr std::array targets{
    Target{"safetensors", safetensors},
    Target{"checkpoint_state", checkpoint_state},
    Target{"config", config},
    Target{"cifar", cifar},
    Target{"idx", idx},
    Target{"human_labels", human_labels},
    Target{"tar", tar},
    Target{"sketch", sketch},
    Target{"metrics", metrics},
    Target{"image", image},
    Target{"packed", packed},
};

/// A folder of this process (TMPDIR says where), removed at its end.
const std::filesystem::path& scratch();
void put(const std::filesystem::path& path, std::string_view bytes);
/// Parts between bytes of 1.
std::vector<std::string_view> split(std::string_view bytes);
/// Throws std::logic_error.
void demand(bool holds, const char* what);

}  // namespace sage::fuzz
