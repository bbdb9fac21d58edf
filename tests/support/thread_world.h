// Ranks as threads of one process: for tests that go from one number of ranks to another, which a job under mpirun
// cannot.
#pragma once
#include <ATen/ops/cat.h>
#include <ATen/ops/maximum.h>

#include <barrier>
#include <exception>
#include <functional>
#include <thread>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <vector>

#include "core/error.h"
#include "distributed/communicator.h"

namespace sage::testing {

/// Runs body(communicator) on `ranks` threads and rethrows the error of the lowest rank that failed. A body that throws
/// on one rank alone while others wait for it would hang.
class ThreadWorld {
 public:
  static void run(int ranks, const std::function<void(Communicator&)>& body) {
    ThreadWorld world(ranks);
    std::vector<std::exception_ptr> errors(static_cast<std::size_t>(ranks));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        try {
          Member member(world, rank);
          body(member);
        } catch (...) {
          errors[static_cast<std::size_t>(rank)] = std::current_exception();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& error : errors) {
      if (error) std::rethrow_exception(error);
    }
  }

 private:
  using Tensors = std::vector<at::Tensor>;

  explicit ThreadWorld(int ranks) : size(ranks), meeting(ranks), posts(static_cast<std::size_t>(ranks)) {}

  class Member : public Communicator {
   public:
    Member(ThreadWorld& world, int rank) : world_(world), rank_(rank) {}
    int rank() const override { return rank_; }
    int size() const override { return world_.size; }
    at::Device device() const override { return at::kCPU; }

    void all_reduce_sum(at::Tensor tensor) override {
      reduce(std::move(tensor), [](at::Tensor& sum, const at::Tensor& next) { sum.add_(next); });
    }
    void all_reduce_max(at::Tensor tensor) override {
      reduce(std::move(tensor), [](at::Tensor& most, const at::Tensor& next) { most.copy_(at::maximum(most, next)); });
    }
    void broadcast(at::Tensor tensor, int root) override {
      meet({tensor}, [&](const std::vector<Tensors>& posts) {
        if (root != rank_) tensor.copy_(posts[static_cast<std::size_t>(root)][0]);
      });
    }
    at::Tensor all_gather_rows(const at::Tensor& rows) override {
      Tensors all;
      meet({rows}, [&](const std::vector<Tensors>& posts) {
        for (const Tensors& post : posts) all.push_back(post[0].clone());
      });
      return at::cat(all);
    }
    void exchange(int partner, const at::Tensor& send, at::Tensor receive) override {
      Tensors to(static_cast<std::size_t>(size())), from(to.size());
      if (partner >= 0) {
        to[static_cast<std::size_t>(partner)] = send;
        from[static_cast<std::size_t>(partner)] = std::move(receive);
      }
      exchange_all(to, from);
    }
    void exchange_all(std::span<const at::Tensor> to, std::span<at::Tensor> from) override {
      for (int r = 0; r < size(); ++r) {
        const at::Tensor& sent = to[static_cast<std::size_t>(r)];
        if (sent.defined() && r != rank_) traffic_.bytes_sent += static_cast<std::int64_t>(sent.nbytes());
      }
      meet({to.begin(), to.end()}, [&](const std::vector<Tensors>& posts) {
        for (std::size_t r = 0; r < posts.size(); ++r) {
          const at::Tensor& sent = posts[r][static_cast<std::size_t>(rank_)];
          require(sent.defined() == from[r].defined(), "exchange: one side sends what the other does not receive");
          if (!sent.defined()) continue;
          require(sent.sizes() == from[r].sizes() && sent.scalar_type() == from[r].scalar_type(),
                  "exchange: what is sent is not what is received");
          from[r].copy_(sent);
        }
      });
    }
    void barrier() override { world_.meeting.arrive_and_wait(); }
    Traffic traffic() const override { return traffic_; }
    void reset_traffic() override { traffic_ = {}; }
    c10::intrusive_ptr<c10d::ProcessGroup> process_group() const override { return {}; }

   private:
    /// ALL ranks: shows `mine` to all and looks at what all show.
    void meet(Tensors mine, const std::function<void(const std::vector<Tensors>&)>& look) {
      world_.posts[static_cast<std::size_t>(rank_)] = std::move(mine);
      world_.meeting.arrive_and_wait();
      std::exception_ptr error;
      try {
        look(world_.posts);
      } catch (...) {
        error = std::current_exception();
      }
      world_.meeting.arrive_and_wait();
      if (error) std::rethrow_exception(error);
    }
    template <class Combine>
    void reduce(at::Tensor tensor, const Combine& combine) {
      at::Tensor result;
      meet({tensor}, [&](const std::vector<Tensors>& posts) {
        result = posts[0][0].clone();
        for (std::size_t r = 1; r < posts.size(); ++r) combine(result, posts[r][0]);
      });
      // Nobody looks any more.
      tensor.copy_(result);
    }

    ThreadWorld& world_;
    int rank_;
    Traffic traffic_;
  };

  int size;
  std::barrier<> meeting;
  std::vector<Tensors> posts;
};

}  // namespace sage::testing
