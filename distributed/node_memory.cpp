#include "distributed/node_memory.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/error.h"
#include "core/log.h"

namespace sage {
namespace {

using nlohmann::json;

constexpr const char* memory_name = "sage-shared";  // shown in /proc/PID/maps

/// Why memory cannot be shared. Not an error: the rank then holds its own.
struct CannotShare {
  std::string reason;
};

[[noreturn]] void cannot(const char* action) {
  throw CannotShare{fmt::format("{} ({})", action, std::generic_category().message(errno))};
}

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int number() const { return number_; }

 private:
  int number_;
};

/// Pages of an anonymous file. Mapped for as long as a tensor points there.
class Mapping {
 public:
  Mapping(int descriptor, std::size_t bytes, int protection) : bytes_(bytes) {
    address_ = ::mmap(nullptr, bytes_, protection, MAP_SHARED, descriptor, 0);
    if (address_ == MAP_FAILED) cannot("memory of the node cannot be mapped");
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { ::munmap(address_, bytes_); }

  char* begin() const { return static_cast<char*>(address_); }
  std::size_t bytes() const { return bytes_; }
  bool holds(const void* bytes, std::size_t count) const {
    const auto* first = static_cast<const char*>(bytes);
    return first >= begin() && first + count <= begin() + bytes_;
  }
  /// The same pages at the same place, which tensors know, without the right to write.
  void make_read_only(int descriptor) {
    if (::mmap(address_, bytes_, PROT_READ, MAP_SHARED | MAP_FIXED, descriptor, 0) == MAP_FAILED) {
      cannot("memory of the node cannot be mapped read-only");
    }
    // The kernel can promise that it will not be written to or cut off. (F_SEAL_WRITE would fail now and then: it waits
    // for the kernel's own short-lived hold on pages.) Before Linux 5.1 only the latter.
    constexpr int size_seals = F_SEAL_SHRINK | F_SEAL_GROW;
    if (::fcntl(descriptor, F_ADD_SEALS, size_seals | F_SEAL_FUTURE_WRITE) != 0 &&
        ::fcntl(descriptor, F_ADD_SEALS, size_seals) != 0) {
      cannot("memory of the node cannot be sealed");
    }
  }

 private:
  void* address_ = nullptr;
  std::size_t bytes_;
};

at::Tensor tensor_at(const std::shared_ptr<Mapping>& mapping, std::size_t offset, at::IntArrayRef sizes,
                     at::ScalarType type) {
  return at::from_blob(
      mapping->begin() + offset, sizes, [mapping](void*) {}, at::TensorOptions(type));
}

struct Region {
  Descriptor descriptor;
  std::shared_ptr<Mapping> mapping;
};

/// The rank that makes.
class Maker {
 public:
  /// Ordinary memory where the system gives no other.
  at::Tensor allocate(at::IntArrayRef sizes, at::ScalarType type = at::kByte) {
    const auto count = c10::multiply_integers(sizes);
    const std::size_t bytes = static_cast<std::size_t>(count) * c10::elementSize(type);
    if (bytes == 0 || !problem_.empty()) return at::empty(sizes, type);
    try {
      Descriptor descriptor(::memfd_create(memory_name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
      if (descriptor.number() < 0) cannot("the system gives no anonymous file");
      // Pages are taken when they are written to.
      if (::ftruncate(descriptor.number(), static_cast<off_t>(bytes)) != 0) cannot("an anonymous file cannot grow");
      auto mapping = std::make_shared<Mapping>(descriptor.number(), bytes, PROT_READ | PROT_WRITE);
      at::Tensor tensor = tensor_at(mapping, 0, sizes, type);
      regions_.push_back({std::move(descriptor), std::move(mapping)});
      return tensor;
    } catch (const CannotShare& failure) {
      problem_ = failure.reason;
      return at::empty(sizes, type);
    }
  }

  /// Ends the writing, and says where the others find everything.
  std::string publish(NodeShared& shared) {
    json tensors = json::array();
    for (at::Tensor& tensor : shared.tensors) {
      require(tensor.device().is_cpu() && tensor.is_contiguous(), "once_per_node: a tensor is strided or on a device");
      if (tensor.numel() > 0 && problem_.empty() && region_of(tensor) == regions_.size()) {
        at::Tensor copy = allocate(tensor.sizes(), tensor.scalar_type());
        copy.copy_(tensor);
        tensor = std::move(copy);
      }
      const std::size_t region = region_of(tensor);
      const bool found = region < regions_.size();
      const auto* bytes = static_cast<const char*>(tensor.const_data_ptr());
      tensors.push_back({{"type", static_cast<int>(tensor.scalar_type())},
                         {"sizes", tensor.sizes().vec()},
                         {"region", found ? region : 0},
                         {"offset", found ? bytes - regions_[region].mapping->begin() : 0}});
    }
    json regions = json::array();
    try {
      for (Region& region : regions_) {
        const int descriptor = region.descriptor.number();
        region.mapping->make_read_only(descriptor);
        struct stat status {};
        if (::fstat(descriptor, &status) != 0) cannot("an anonymous file cannot be looked at");
        regions.push_back({{"descriptor", descriptor},
                           {"device", static_cast<std::uint64_t>(status.st_dev)},
                           {"file", static_cast<std::uint64_t>(status.st_ino)},
                           {"bytes", region.mapping->bytes()}});
      }
    } catch (const CannotShare& failure) {
      problem_ = failure.reason;
    }
    return json{{"problem", problem_},
                {"text", shared.text},
                {"process", static_cast<std::int64_t>(::getpid())},
                {"regions", regions},
                {"tensors", tensors}}
        .dump();
  }

 private:
  std::size_t region_of(const at::Tensor& tensor) const {
    return static_cast<std::size_t>(
        std::ranges::find_if(
            regions_,
            [&](const Region& region) { return region.mapping->holds(tensor.const_data_ptr(), tensor.nbytes()); }) -
        regions_.begin());
  }

  std::vector<Region> regions_;
  std::string problem_;
};

/// The other ranks. Throws CannotShare.
NodeShared attach(const std::string& description) {
  const json from = json::parse(description);
  if (const auto& problem = from.at("problem").get_ref<const std::string&>(); !problem.empty()) {
    throw CannotShare{problem};
  }
  std::vector<std::shared_ptr<Mapping>> mappings;
  for (const json& region : from.at("regions")) {
    const std::string path =
        fmt::format("/proc/{}/fd/{}", from.at("process").get<std::int64_t>(), region.at("descriptor").get<int>());
    const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (descriptor.number() < 0) cannot("memory of another rank cannot be opened");
    struct stat status {};
    if (::fstat(descriptor.number(), &status) != 0 ||
        static_cast<std::uint64_t>(status.st_dev) != region.at("device").get<std::uint64_t>() ||
        static_cast<std::uint64_t>(status.st_ino) != region.at("file").get<std::uint64_t>()) {
      throw CannotShare{"what another rank has open is not what it named"};
    }
    mappings.push_back(
        std::make_shared<Mapping>(descriptor.number(), region.at("bytes").get<std::size_t>(), PROT_READ));
  }
  NodeShared shared{from.at("text").get<std::string>(), {}};
  for (const json& tensor : from.at("tensors")) {
    const auto sizes = tensor.at("sizes").get<std::vector<std::int64_t>>();
    const auto type = static_cast<at::ScalarType>(tensor.at("type").get<int>());
    if (c10::multiply_integers(sizes) == 0) {
      shared.tensors.push_back(at::empty(sizes, type));
    } else {
      shared.tensors.push_back(tensor_at(mappings.at(tensor.at("region").get<std::size_t>()),
                                         tensor.at("offset").get<std::size_t>(), sizes, type));
    }
  }
  return shared;
}

/// Equal for processes that can reach each other through /proc.
const std::string& node_identity() {
  static const std::string identity = [] {
    std::string boot;
    std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
    std::error_code error;
    const auto processes = std::filesystem::read_symlink("/proc/self/ns/pid", error);
    return fmt::format("{} {} {}", boot, processes.string(), ::geteuid());
  }();
  return identity;
}

at::Tensor allocate_private(at::IntArrayRef sizes) { return at::empty(sizes, at::kByte); }

}  // namespace

NodeShared once_per_node(Communicator& communicator,
                         const std::function<NodeShared(const AllocateShared& allocate)>& make) {
  const auto rank = static_cast<std::size_t>(communicator.rank());
  const std::vector<std::string> nodes = communicator.all_gather_strings(node_identity());
  const auto first = static_cast<std::size_t>(std::ranges::find(nodes, nodes[rank]) - nodes.begin());
  const bool alone = std::ranges::count(nodes, nodes[rank]) == 1;

  Maker maker;
  NodeShared shared;
  std::string description;
  communicator.all_or_none([&] {
    if (alone) {
      shared = make(allocate_private);
    } else if (rank == first) {
      shared = make([&](at::IntArrayRef sizes) { return maker.allocate(sizes); });
      description = maker.publish(shared);
    }
  });
  const std::vector<std::string> descriptions = communicator.all_gather_strings(description);
  std::string problem;
  if (rank != first) {
    try {
      shared = attach(descriptions[first]);
    } catch (const CannotShare& failure) {
      problem = failure.reason;
    }
  }
  communicator.barrier();  // the maker's descriptors are closed after this
  communicator.all_or_none([&] {
    if (problem.empty()) return;
    log::every_rank(fmt::format("memory is not shared with rank {}, this rank holds its own copy: {}", first, problem));
    shared = make(allocate_private);
  });
  return shared;
}

}  // namespace sage
