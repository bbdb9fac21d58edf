// A small module tree: parameters and buffers with dotted names (torchvision's, where it has the model), train and eval
// mode, and nothing hidden. LibTorch's own torch::nn::Module costs 20 s of compile time a file and has no hooks.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/named_tensor.h"

namespace sage {

class Module {
 public:
  Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  virtual ~Module() = default;

  /// Parameters of this module and its children, in registration order, with dotted names. The tensors are the live
  /// ones (leaves that require gradients).
  std::vector<NamedTensor> named_parameters() const;
  std::vector<NamedTensor> named_buffers() const;
  std::vector<at::Tensor> parameters() const;
  /// This module and all below it, with dotted names ("" for itself), in registration order.
  std::vector<std::pair<std::string, Module*>> named_modules();

  void train(bool on = true);
  void eval() { train(false); }
  bool is_training() const { return training_; }
  /// Moves parameters and buffers in place: they stay the same leaves, so that an optimizer that holds them follows.
  /// `dtype` applies to floating-point tensors only, `format` to 4-D parameters. Gradients are dropped.
  void to(at::Device device, at::ScalarType dtype, at::MemoryFormat format = at::MemoryFormat::Contiguous);
  /// Also fixes whether autograd computes gradients of the parameters.
  void set_requires_grad(bool on);

 protected:
  /// Return the slot that holds the live tensor: the reference stays valid, and follows to(). A parameter becomes a
  /// leaf that requires gradients. A name given twice within a module, or one with a dot, is an InternalError. A
  /// parameter with an empty name bears the name of its module: `class_token`, not `class_token.weight`.
  at::Tensor& register_parameter(std::string name, at::Tensor value);
  at::Tensor& register_buffer(std::string name, at::Tensor value);
  template <class Child>
  std::shared_ptr<Child> register_child(std::string name, std::shared_ptr<Child> child) {
    check_name(name);
    children_.emplace_back(std::move(name), child);
    return child;
  }

 private:
  void check_name(const std::string& name, bool may_be_empty = false) const;
  void collect(const std::string& prefix, std::vector<NamedTensor>* parameters,
               std::vector<NamedTensor>* buffers) const;
  void collect_modules(const std::string& prefix, std::vector<std::pair<std::string, Module*>>* modules);
  std::vector<std::pair<std::string, std::unique_ptr<at::Tensor>>> parameters_;
  std::vector<std::pair<std::string, std::unique_ptr<at::Tensor>>> buffers_;
  std::vector<std::pair<std::string, std::shared_ptr<Module>>> children_;
  bool training_ = true;
};

/// A module that makes one tensor of another.
class Block : public Module {
 public:
  virtual at::Tensor forward(const at::Tensor& input) = 0;
};

}  // namespace sage
