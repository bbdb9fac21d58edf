// What peer_test.py compares: reads lines from standard input, each a command with its arguments, separated by tabs,
// and writes what it makes to the file that the last argument names.
#include <fmt/format.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "data/image_decoder.h"
#include "data/image_source.h"
#include "data/randaugment.h"
#include "data/resize.h"

namespace {

using namespace sage;

std::vector<std::uint8_t> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const std::string& path, ImageSize size, const std::vector<std::uint8_t>& bytes) {
  std::ofstream out(path, std::ios::binary);
  out << size.height << " " << size.width << "\n";
  out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

void run(const std::vector<std::string>& words) {
  const auto number = [&](std::size_t at) { return std::stoll(words[at]); };
  const std::string& out = words.back();
  if (words[0] == "decode") {  // file, reduction
    const auto bytes = read_file(words[1]);
    const DecodedImage image = decode_image(bytes, words[1], [&](ImageSize) { return static_cast<int>(number(2)); });
    return write_file(out, image.size, image.pixels);
  }
  if (words[0] == "view") {  // file, side: as evaluation sees it, [3, side, side]
    const auto bytes = read_file(words[1]);
    const ViewOptions view{number(2)};
    std::vector<std::uint8_t> planes(static_cast<std::size_t>(3 * view.side * view.side));
    write_view(decode_image(bytes, words[1]), view, planes.data());
    return write_file(out, {view.side, view.side}, planes);
  }
  if (words[0] == "resize") {  // raw file, height, width, box y, x, height, width, to height, width
    const auto pixels = read_file(words[1]);
    const ImageSize to{number(8), number(9)};
    std::vector<std::uint8_t> result(static_cast<std::size_t>(3 * to.height * to.width));
    resize_bilinear({pixels.data(), number(2), number(3), 3}, {number(4), number(5), number(6), number(7)}, to.height,
                    to.width, {0, 0, to.height, to.width}, result.data());
    return write_file(out, to, result);
  }
  // change: raw file [3, height, width], height, width, operation, strength
  auto planes = read_file(words[1]);
  std::vector<std::uint8_t> scratch;
  apply_change({static_cast<ImageOperation>(number(4)), std::stod(words[5])}, planes.data(), 3, {number(2), number(3)},
               scratch);
  write_file(out, {number(2), number(3)}, planes);
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<std::string> words;
    std::istringstream parts(line);
    for (std::string word; std::getline(parts, word, '\t');) words.push_back(word);
    try {
      run(words);
    } catch (const std::exception& error) {
      fmt::print(stderr, "{}: {}\n", line, error.what());
      return 1;
    }
  }
  return 0;
}
