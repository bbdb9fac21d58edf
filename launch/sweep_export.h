// What a sweep came to, as files and as a table for people. A run that is missing is shown as missing; nothing is
// filled.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "launch/sweep.h"

namespace sage {

/// Over the seeds of a variant. `deviation`: of the sample, where there are at least two.
struct Spread {
  std::int64_t count = 0;
  double mean = 0.0;
  std::optional<double> deviation;
};
Spread spread_of(const std::vector<double>& values);

struct VariantSummary {
  std::string group, variant;
  std::vector<std::int64_t> missing_seeds;
  std::vector<const RunFigures*> runs;  ///< of the seeds that are finished
  Spread accuracy, f1_macro;            ///< in [0, 1]
  Spread total_seconds, cpu_seconds, selection_seconds, effective_epochs;
  Spread host_peak_bytes, device_peak_bytes;  ///< of the rank that took most
};

/// One for each group and variant, in the order of the study.
std::vector<VariantSummary> summarize(const Sweep& sweep);

/// summary_table.csv, detailed_results.csv, all_results.json and summary_table.tex in sweep.out. Each is written whole.
/// Throws EnvironmentError.
void write_tables(const Sweep& sweep);

/// The summary for a terminal, with what is missing and what is hard to compare.
std::string table_text(const Sweep& sweep);

}  // namespace sage
