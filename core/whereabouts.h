// Where this process stands, for whoever has to name it from another thread or from a signal handler: messages of
// collectives that miss their deadline, of crashes, of signals. Lock-free; set by the thread that trains.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace sage::whereabouts {

/// Optimizer steps done so far in the run + 1; 0: not in a step.
void set_step(std::int64_t step) noexcept;
/// What is going on, in a word or two. `activity` must live as long as the program (a literal).
void set_activity(const char* activity) noexcept;
/// The collective that this rank is in, or null. A literal.
void set_collective(const char* name) noexcept;

/// "step 120, training, in all-reduce (sum)"; parts that are not set are left out.
std::string text();
/// The same, cut to `size` bytes with the closing zero; async-signal-safe. Returns its length.
std::size_t write_to(char* buffer, std::size_t size) noexcept;

}  // namespace sage::whereabouts
