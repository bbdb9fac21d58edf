#include "data/image_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <system_error>

#include "core/error.h"
#include "core/random.h"
#include "core/text.h"
#include "data/byte_reader.h"

namespace sage {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t largest_image_file = std::size_t{256} << 20, largest_text_file = std::size_t{64} << 20;

bool is_hidden(const std::string& name) { return name.starts_with('.'); }

bool is_image_name(const std::string& name) {
  std::string ending = fs::path(name).extension().string();
  std::ranges::transform(ending, ending.begin(), [](unsigned char c) { return std::tolower(c); });
  return !is_hidden(name) && (ending == ".jpg" || ending == ".jpeg" || ending == ".png");
}

/// Names in a folder, sorted: of its folders, or of its images.
std::vector<std::string> names_in(const fs::path& folder, bool folders) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::error_code unknown;
    if (folders ? !is_hidden(name) && entry->is_directory(unknown) : is_image_name(name)) names.push_back(name);
  }
  if (error) throw DataError(fmt::format("{}: the folder cannot be read ({})", folder.string(), error.message()));
  std::ranges::sort(names);
  return names;
}

std::vector<std::uint8_t> read_image_file(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) throw DataError(fmt::format("{}: cannot be read ({})", path.string(), error.message()));
  if (size > largest_image_file) {
    throw DataError(
        fmt::format("{}: {} bytes, where an image has at most {}", path.string(), size, largest_image_file));
  }
  std::vector<std::uint8_t> bytes(size);
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  if (!in) {
    throw DataError(fmt::format("{}: cannot be read ({})", path.string(), std::strerror(errno != 0 ? errno : EIO)));
  }
  return bytes;
}

/// Labelled files, their names one behind the other: a million of them would not fit well into strings of their own.
struct Listing {
  std::vector<std::string> folders;  // by class
  std::string names;                 // ended by zeros
  std::vector<std::uint64_t> begins;
  std::vector<std::int64_t> labels;

  void add(std::int64_t label, const std::string& name) {
    begins.push_back(names.size());
    names.append(name.c_str(), name.size() + 1);
    labels.push_back(label);
  }
  std::int64_t size() const { return static_cast<std::int64_t>(labels.size()); }
  fs::path path(std::int64_t id) const {
    const auto at = static_cast<std::size_t>(id);
    return fs::path(folders[static_cast<std::size_t>(labels[at])]) / (names.c_str() + begins[at]);
  }
};

class ImageFiles : public EncodedImages {
 public:
  ImageFiles(Listing files, const ViewOptions& view) : EncodedImages(view), files_(std::move(files)) {}
  std::int64_t size() const override { return files_.size(); }
  std::string name(std::int64_t id) const override { return files_.path(id).string(); }
  std::vector<std::uint8_t> encoded(std::int64_t id) const override { return read_image_file(files_.path(id)); }
  std::int64_t bytes() const override {
    return static_cast<std::int64_t>(files_.names.capacity() + 16 * files_.begins.capacity());
  }

 protected:
  void with_encoded(std::int64_t id, const std::function<void(std::span<const std::uint8_t>)>& use) const override {
    use(encoded(id));
  }

 private:
  Listing files_;
};

/// Classes in order, by the names of their folders.
struct Classes {
  std::vector<std::string> names;
  std::map<std::string, std::int64_t, std::less<>> numbers;

  explicit Classes(std::vector<std::string> in_order) : names(std::move(in_order)) {
    for (std::size_t c = 0; c < names.size(); ++c) numbers.emplace(names[c], static_cast<std::int64_t>(c));
  }
  std::int64_t count() const { return static_cast<std::int64_t>(names.size()); }
};

void require_folder(const fs::path& folder, const char* layout) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw DataError(fmt::format("{}: the folder is missing; expected {}", folder.string(), layout));
  }
}

/// The images of every class, from <folder>/<class>/<below>.
Listing list_classes(const fs::path& folder, const Classes& classes, const std::vector<std::string>& present,
                     const fs::path& below = {}) {
  Listing listing;
  for (const std::string& name : classes.names) listing.folders.push_back((folder / name / below).string());
  for (std::int64_t label = 0; label < classes.count(); ++label) {
    const std::string& name = classes.names[static_cast<std::size_t>(label)];
    if (std::ranges::find(present, name) == present.end()) continue;
    const auto files = names_in(listing.folders[static_cast<std::size_t>(label)], /*folders=*/false);
    if (files.empty()) {
      throw DataError(
          fmt::format("{}: class `{}` has no image (*.jpg, *.jpeg, *.png) there: add some, or remove the "
                      "folder",
                      listing.folders[static_cast<std::size_t>(label)], excerpt(name)));
    }
    for (const std::string& file : files) listing.add(label, file);
  }
  return listing;
}

/// The classes of a folder to test on: each has to be trained on.
std::vector<std::string> known_classes(const fs::path& folder, const fs::path& train, const Classes& classes) {
  auto present = names_in(folder, /*folders=*/true);
  for (const std::string& name : present) {
    if (!classes.numbers.contains(name)) {
      throw DataError(
          fmt::format("{}: class `{}` is not in {}: a network cannot be tested on what it is not trained on",
                      (folder / name).string(), excerpt(name), train.string()));
    }
  }
  return present;
}

/// The parts of each line of a text file that are separated by blanks, tabs or commas; empty lines left out. `use` gets
/// the number of the line and the parts.
void for_each_line(const fs::path& file,
                   const std::function<void(std::int64_t line, const std::vector<std::string>& parts)>& use) {
  const std::string text = read_all_bytes(file, largest_text_file);
  if (const std::size_t at = first_non_text(text); at != std::string::npos) {
    throw DataError(fmt::format("{}: byte {} is a control character or not UTF-8", file.string(), at));
  }
  std::int64_t line = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    ++line;
    std::vector<std::string> parts;
    for (std::size_t at = begin; at < end;) {
      const std::size_t stop = std::min(text.find_first_of(" \t,\r", at), end);
      if (stop > at) parts.push_back(text.substr(at, stop - at));
      at = stop + 1;
    }
    if (!parts.empty()) use(line, parts);
    begin = end + 1;
  }
}

/// Images of all classes in one folder, with a file of labels.
Listing list_annotated(const fs::path& folder, const fs::path& annotations, const Classes& classes) {
  const std::vector<std::string> files = names_in(folder, /*folders=*/false);
  const auto wrong = [&](std::int64_t line, const std::string& why) {
    return DataError(fmt::format("{}, line {}: {}; expected a file of {} and its class", annotations.string(), line,
                                 why, folder.string()));
  };
  const auto label_of = [&](std::int64_t line, const std::string& text) {
    if (const auto known = classes.numbers.find(text); known != classes.numbers.end()) return known->second;
    const bool number = text.size() <= 6 && std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c); });
    if (number && std::stoll(text) < classes.count()) return static_cast<std::int64_t>(std::stoll(text));
    throw wrong(line, fmt::format("`{}` is no class of the training images", excerpt(text, 40)));
  };
  std::vector<std::int64_t> label(files.size(), -1);
  std::size_t next = 0;  // where lines name no file
  for_each_line(annotations, [&](std::int64_t line, const std::vector<std::string>& parts) {
    if (line == 1 && parts.front() == "ImageId") return;
    std::size_t at = next;
    if (parts.size() == 1) {
      if (next++ >= files.size()) throw wrong(line, fmt::format("more lines than the {} images", files.size()));
    } else {
      const auto found = std::ranges::lower_bound(files, parts[0]);
      at = static_cast<std::size_t>(found - files.begin());
      if (found == files.end() || (*found != parts[0] && fs::path(*found).stem() != parts[0])) {
        throw wrong(line, fmt::format("there is no image `{}`", excerpt(parts[0], 80)));
      }
    }
    if (label[at] >= 0) throw wrong(line, fmt::format("image `{}` has a class already", files[at]));
    label[at] = label_of(line, parts[parts.size() == 1 ? 0 : 1]);
  });
  Listing listing;
  listing.folders.assign(classes.names.size(), folder.string());
  std::vector<std::vector<std::size_t>> members(classes.names.size());
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (label[i] < 0) throw DataError(fmt::format("{}: image {} has no line there", annotations.string(), files[i]));
    members[static_cast<std::size_t>(label[i])].push_back(i);
  }
  for (std::size_t c = 0; c < members.size(); ++c) {
    for (const std::size_t i : members[c]) listing.add(static_cast<std::int64_t>(c), files[i]);
  }
  return listing;
}

/// "goldfish (n01443537)" where a file says so, else the wnid alone.
std::vector<std::string> names_of(const Classes& classes, std::initializer_list<fs::path> files) {
  std::vector<std::string> names = classes.names;
  std::error_code error;
  for (const fs::path& file : files) {
    if (!fs::is_regular_file(file, error)) continue;
    const std::string text = read_all_bytes(file, largest_text_file);
    if (first_non_text(text) != std::string::npos) throw DataError(fmt::format("{}: not a text file", file.string()));
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      const std::string line = text.substr(begin, end - begin);
      begin = end + 1;
      const std::size_t blank = line.find_first_of(" \t");
      const auto known = classes.numbers.find(line.substr(0, blank));
      if (blank == std::string::npos || known == classes.numbers.end()) continue;
      const std::string words = line.substr(blank + 1, line.find_first_of(",\r", blank) - blank - 1);
      names[static_cast<std::size_t>(known->second)] = fmt::format("{} ({})", words, known->first);
    }
    break;
  }
  return names;
}

/// Reads images into memory, or leaves them to be read as they are used.
Split make_split(Listing listing, const ViewOptions& view, bool in_memory, const ReadOptions& options) {
  Split split;
  split.labels = listing.labels;
  auto source = std::make_shared<const ImageFiles>(std::move(listing), view);
  if (!in_memory) {
    split.source = std::move(source);
    return split;
  }
  split.images = options.images({split.size(), 3, view.side, view.side});
  const std::int64_t image_bytes = 3 * view.side * view.side;
  std::uint8_t* bytes = split.size() > 0 ? split.images.mutable_data_ptr<std::uint8_t>() : nullptr;
  split.unreadable = find_unreadable(0, split.size(), options.skip_corrupt, [&](std::int64_t id) {
    std::uint8_t* target = bytes + id * image_bytes;
    try {
      source->read(id, target);
    } catch (...) {
      std::memset(target, 0, static_cast<std::size_t>(image_bytes));
      throw;
    }
  });
  return split;
}

Dataset make_dataset(const char* name, const fs::path& folder, const Classes& classes, std::vector<std::string> names,
                     Listing train, Listing test, std::int64_t own_side, bool own_size_for_all,
                     const ReadOptions& options) {
  if (train.size() == 0) throw DataError(fmt::format("{}: no image to train on", folder.string()));
  ViewOptions view;
  view.side = options.image_size > 0 ? options.image_size : own_side;
  if (own_size_for_all) view.margin = 1.0;
  // A random part is cut out of the image as it lies in its file, unless that has the size of the others anyway.
  const bool resizes = !own_size_for_all || view.side != own_side;
  const std::int64_t decoded = (train.size() + test.size()) * 3 * view.side * view.side;
  const bool in_memory = !options.from_files && (own_size_for_all || options.image_size > 0) &&
                         !(options.resizes_at_random && resizes) && decoded <= largest_decoded_set;
  Dataset dataset;
  dataset.name = name;
  dataset.class_count = classes.count();
  dataset.class_names = std::move(names);
  dataset.train = make_split(std::move(train), view, in_memory, options);
  dataset.test = make_split(std::move(test), view, in_memory, options);
  if (in_memory) {
    set_statistics(dataset);
  } else {
    dataset.mean.assign(std::begin(imagenet_mean), std::end(imagenet_mean));
    dataset.deviation.assign(std::begin(imagenet_deviation), std::end(imagenet_deviation));
  }
  return dataset;
}

}  // namespace

bool looks_like_image_folder(const fs::path& folder) {
  std::error_code error;
  return fs::is_directory(folder / "train", error) && !fs::exists(folder / "wnids.txt", error);
}

bool looks_like_caltech256(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const std::size_t dot = name.find('.');
    if (dot == 3 && std::ranges::all_of(name.substr(0, dot), [](unsigned char c) { return std::isdigit(c); }))
      return true;
  }
  return false;
}

Dataset read_tiny_imagenet(const fs::path& folder, const ReadOptions& options) {
  constexpr const char* layout = "wnids.txt, train/<wnid>/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt";
  std::vector<std::string> wnids;
  for_each_line(require_file(folder, "wnids.txt"), [&](std::int64_t line, const std::vector<std::string>& parts) {
    const std::string& wnid = parts.front();
    if (parts.size() != 1 || wnid.find('/') != std::string::npos || is_hidden(wnid)) {
      throw DataError(fmt::format("{}, line {}: expected one wnid", (folder / "wnids.txt").string(), line));
    }
    if (std::ranges::find(wnids, wnid) != wnids.end()) {
      throw DataError(
          fmt::format("{}, line {}: `{}` for the second time", (folder / "wnids.txt").string(), line, excerpt(wnid)));
    }
    wnids.push_back(wnid);
  });
  if (wnids.empty()) throw DataError(fmt::format("{}: no wnid", (folder / "wnids.txt").string()));
  const Classes classes(wnids);
  const fs::path train = folder / "train", val = folder / "val";
  require_folder(train, layout);
  require_folder(val, layout);
  for (const std::string& name : names_in(train, /*folders=*/true)) {
    if (!classes.numbers.contains(name)) {
      throw DataError(fmt::format("{}: not in wnids.txt", (train / name).string()));
    }
  }
  for (const std::string& wnid : wnids) require_folder(train / wnid / "images", layout);
  Listing test;
  if (const fs::path annotations = val / "val_annotations.txt"; fs::exists(annotations)) {
    require_folder(val / "images", layout);
    test = list_annotated(val / "images", annotations, classes);
  } else {
    const auto present = known_classes(val, train, classes);
    const bool nested = !present.empty() && fs::is_directory(val / present.front() / "images");
    test = list_classes(val, classes, present, nested ? "images" : "");
  }
  constexpr std::int64_t side = 64;
  return make_dataset("tiny_imagenet", folder, classes, names_of(classes, {folder / "words.txt"}),
                      list_classes(train, classes, wnids, "images"), std::move(test), side, /*own_size_for_all=*/true,
                      options);
}

namespace {

constexpr std::int64_t photo_side = 224;

Dataset read_split_folders(const char* name, const fs::path& folder, const std::vector<fs::path>& labels,
                           const ReadOptions& options) {
  const fs::path train = folder / "train";
  require_folder(train, "train/<class>/*.jpg and val/<class>/*.jpg");
  const Classes classes(names_in(train, /*folders=*/true));
  if (classes.count() == 0) {
    throw DataError(fmt::format("{}: no class there; expected a folder of images for each", train.string()));
  }
  fs::path val = folder / "val";
  if (!fs::is_directory(val)) val = folder / "test";
  if (!fs::is_directory(val)) {
    throw DataError(
        fmt::format("{}: neither val nor test is there; make an empty folder val if there is nothing to "
                    "test on",
                    folder.string()));
  }
  Listing test;
  const auto present = known_classes(val, train, classes);
  const auto annotated = std::ranges::find_if(labels, [](const fs::path& file) { return fs::is_regular_file(file); });
  if (present.empty() && annotated != labels.end()) {
    test = list_annotated(val, *annotated, classes);
  } else {
    if (present.empty() && !names_in(val, /*folders=*/false).empty()) {
      std::string expected;
      for (const fs::path& file : labels) expected += (expected.empty() ? ": " : ", ") + file.filename().string();
      throw DataError(fmt::format("{}: images without the folders of their classes{}{}", val.string(),
                                  labels.empty() ? "" : ", and no file of labels", expected));
    }
    test = list_classes(val, classes, present);
  }
  auto names = names_of(classes, {folder / "words.txt", folder / "LOC_synset_mapping.txt"});
  return make_dataset(name, folder, classes, std::move(names), list_classes(train, classes, classes.names),
                      std::move(test), photo_side, /*own_size_for_all=*/false, options);
}

}  // namespace

Dataset read_imagenet(const fs::path& folder, const ReadOptions& options) {
  std::vector<fs::path> labels;
  for (const fs::path& place : {folder / "val", folder}) {
    for (const char* name : {"val_labels.txt", "val.txt", "val_annotations.txt", "LOC_val_solution.csv",
                             "imagenet_2012_validation_synset_labels.txt"}) {
      labels.push_back(place / name);
    }
  }
  return read_split_folders("imagenet", folder, labels, options);
}

Dataset read_image_folder(const fs::path& folder, const ReadOptions& options) {
  return read_split_folders("image_folder", folder, {}, options);
}

Dataset read_caltech256(const fs::path& folder, const ReadOptions& options) {
  const Classes classes(names_in(folder, /*folders=*/true));
  const Listing all = list_classes(folder, classes, classes.names);
  std::vector<std::vector<std::int64_t>> members(classes.names.size());
  for (std::int64_t id = 0; id < all.size(); ++id) {
    members[static_cast<std::size_t>(all.labels[static_cast<std::size_t>(id)])].push_back(id);
  }
  std::vector<char> is_test(static_cast<std::size_t>(all.size()));
  for (std::size_t c = 0; c < members.size(); ++c) {
    const auto count = static_cast<std::int64_t>(members[c].size());
    if (count < 2) {
      throw DataError(fmt::format("{}: one image; a class needs one to train on and one to test on", all.folders[c]));
    }
    const std::int64_t tested = std::max<std::int64_t>(1, std::llround(static_cast<double>(count) / 5.0));
    const auto order = random_permutation(count, RandomStream(0, "caltech256 split", c));
    for (std::int64_t i = 0; i < tested; ++i) {
      const std::int64_t id = members[c][static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
      is_test[static_cast<std::size_t>(id)] = 1;
    }
  }
  Listing parts[2];
  for (Listing& part : parts) part.folders = all.folders;
  for (std::int64_t id = 0; id < all.size(); ++id) {
    const auto at = static_cast<std::size_t>(id);
    parts[static_cast<std::size_t>(is_test[at])].add(all.labels[at], all.names.c_str() + all.begins[at]);
  }
  std::vector<std::string> names;
  for (const std::string& name : classes.names) {  // "001.ak47"
    const std::size_t dot = name.find('.');
    names.push_back(dot == std::string::npos ? name : name.substr(dot + 1));
  }
  return make_dataset("caltech256", folder, classes, std::move(names), std::move(parts[0]), std::move(parts[1]),
                      photo_side, /*own_size_for_all=*/false, options);
}

}  // namespace sage
