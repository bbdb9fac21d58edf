#include "models/module.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "core/error.h"

namespace sage {
namespace {

std::string join(const std::string& prefix, const std::string& name) {
  if (name.empty()) return prefix;
  return prefix.empty() ? name : prefix + "." + name;
}

}  // namespace

void Module::check_name(const std::string& name, bool may_be_empty) const {
  const auto taken = [&name](const auto& slots) {
    for (const auto& slot : slots) {
      if (slot.first == name) return true;
    }
    return false;
  };
  if ((name.empty() && !may_be_empty) || name.find('.') != std::string::npos) {
    throw InternalError(fmt::format("'{}' cannot name a part of a module: names are not empty and hold no dot", name));
  }
  if (taken(parameters_) || taken(buffers_) || taken(children_)) {
    throw InternalError(fmt::format("a module has two parts named '{}'", name));
  }
}

at::Tensor& Module::register_parameter(std::string name, at::Tensor value) {
  check_name(name, /*may_be_empty=*/true);
  value.set_requires_grad(true);
  parameters_.emplace_back(std::move(name), std::make_unique<at::Tensor>(std::move(value)));
  return *parameters_.back().second;
}

at::Tensor& Module::register_buffer(std::string name, at::Tensor value) {
  check_name(name);
  buffers_.emplace_back(std::move(name), std::make_unique<at::Tensor>(std::move(value)));
  return *buffers_.back().second;
}

void Module::collect(const std::string& prefix, std::vector<NamedTensor>* parameters,
                     std::vector<NamedTensor>* buffers) const {
  if (parameters != nullptr) {
    for (const auto& [name, tensor] : parameters_) parameters->push_back({join(prefix, name), *tensor});
  }
  if (buffers != nullptr) {
    for (const auto& [name, tensor] : buffers_) buffers->push_back({join(prefix, name), *tensor});
  }
  for (const auto& [name, child] : children_) child->collect(join(prefix, name), parameters, buffers);
}

void Module::collect_modules(const std::string& prefix, std::vector<std::pair<std::string, Module*>>* modules) {
  modules->emplace_back(prefix, this);
  for (const auto& [name, child] : children_) child->collect_modules(join(prefix, name), modules);
}

std::vector<NamedTensor> Module::named_parameters() const {
  std::vector<NamedTensor> result;
  collect("", &result, nullptr);
  return result;
}

std::vector<NamedTensor> Module::named_buffers() const {
  std::vector<NamedTensor> result;
  collect("", nullptr, &result);
  return result;
}

std::vector<at::Tensor> Module::parameters() const {
  std::vector<at::Tensor> result;
  for (NamedTensor& parameter : named_parameters()) result.push_back(std::move(parameter.tensor));
  return result;
}

std::vector<std::pair<std::string, Module*>> Module::named_modules() {
  std::vector<std::pair<std::string, Module*>> result;
  collect_modules("", &result);
  return result;
}

void Module::train(bool on) {
  training_ = on;
  for (const auto& [name, child] : children_) child->train(on);
}

void Module::to(at::Device device, at::ScalarType dtype, at::MemoryFormat format) {
  const at::NoGradGuard no_grad;
  const auto moved = [&](const at::Tensor& tensor, bool formatted) {
    const at::ScalarType type = tensor.is_floating_point() ? dtype : tensor.scalar_type();
    at::Tensor result = tensor.detach().to(device, type);
    if (!formatted || result.dim() != 4) return result;
    // Not contiguous(format): where a side is 1 it keeps other strides than those that gradients arrive with.
    at::Tensor laid_out = at::empty(result.sizes(), result.options().memory_format(format));
    return laid_out.copy_(result);
  };
  for (const auto& [name, tensor] : parameters_) {
    tensor->mutable_grad().reset();
    tensor->set_data(moved(*tensor, true));
  }
  for (const auto& [name, tensor] : buffers_) tensor->set_data(moved(*tensor, false));
  for (const auto& [name, child] : children_) child->to(device, dtype, format);
}

void Module::set_requires_grad(bool on) {
  for (const auto& [name, tensor] : parameters_) tensor->set_requires_grad(on);
  for (const auto& [name, child] : children_) child->set_requires_grad(on);
}

}  // namespace sage
