// Decoding and resizing of JPEG photos by one thread: this project's way from a file to a network's bytes. The peer is
// PIL, which has a libjpeg-turbo of its own (decoding_peer.py).
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include <jpeglib.h>  // after <cstdio>

#include "benchmarks/measure.h"
#include "core/random.h"
#include "data/image_decoder.h"
#include "data/image_source.h"

namespace {

using namespace sage;

/// Photo-like: smooth with some noise, which decides how many coefficients there are to decode.
std::vector<std::uint8_t> make_photo(int height, int width) {
  RandomStream stream(1, "photo");
  std::vector<std::uint8_t> pixels;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        pixels.push_back(static_cast<std::uint8_t>((x * (c + 1) / 3 + y / 2) % 200 + static_cast<int>(stream() & 31)));
      }
    }
  }
  jpeg_compress_struct state{};
  jpeg_error_mgr errors{};
  state.err = jpeg_std_error(&errors);
  jpeg_create_compress(&state);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&state, &memory, &size);
  state.image_height = static_cast<JDIMENSION>(height);
  state.image_width = static_cast<JDIMENSION>(width);
  state.input_components = 3;
  state.in_color_space = JCS_RGB;
  jpeg_set_defaults(&state);
  jpeg_set_quality(&state, 90, TRUE);
  jpeg_start_compress(&state, TRUE);
  while (state.next_scanline < state.image_height) {
    JSAMPROW row = pixels.data() + std::size_t{3} * state.next_scanline * static_cast<std::size_t>(width);
    jpeg_write_scanlines(&state, &row, 1);
  }
  jpeg_finish_compress(&state);
  std::vector<std::uint8_t> bytes(memory, memory + size);
  jpeg_destroy_compress(&state);
  std::free(memory);
  return bytes;
}

/// The peer decodes the same file.
void write_for_peer(const char* name, const std::vector<std::uint8_t>& bytes) {
  const auto path = std::filesystem::temp_directory_path() / fmt::format("sage_decoding_{}.jpg", name);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace

int main() {
  constexpr int images = 40, repeats = 5;
  struct Case {
    const char* name;
    int height, width;
  };
  for (const Case& photo : {Case{"64x64", 64, 64}, Case{"375x500", 375, 500}, Case{"1536x2048", 1536, 2048}}) {
    const auto bytes = make_photo(photo.height, photo.width);
    write_for_peer(photo.name, bytes);
    const int count = photo.height > 1000 ? images / 8 : images;
    const ViewOptions view{photo.height == 64 ? 64 : 224};
    const int reduction = photo.height > 1000 ? 2 : 1;  // what EncodedImages takes for this size
    std::vector<std::uint8_t> planes(static_cast<std::size_t>(3 * view.side * view.side));
    const auto seconds = benchmarks::interleaved_medians(
        repeats, {[&] {
                    for (int i = 0; i < count; ++i) decode_image(bytes, "photo");
                  },
                  [&] {
                    for (int i = 0; i < count; ++i) {
                      write_view(decode_image(bytes, "photo", [&](ImageSize) { return reduction; }), view,
                                 planes.data());
                    }
                  }});
    const char* names[] = {"decode", "view"};
    const char* words[] = {"decode a JPEG photo", "decode, resize and crop a JPEG photo"};
    for (std::size_t i = 0; i < seconds.size(); ++i) {
      benchmarks::print_row({{"row", fmt::format("{} {}", names[i], photo.name)},
                             {"what", fmt::format("{} of {} pixels, one thread", words[i], photo.name)},
                             {"ours_seconds", seconds[i] / count},
                             {"target", ">= 0.95"},
                             {"note", fmt::format("{:.0f} images/s", count / seconds[i])}});
    }
  }
  return 0;
}
