#include "launch/sweep_export.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/bounded_json.h"
#include "core/files.h"
#include "training/run_folder.h"

namespace sage {
namespace {

using json = nlohmann::ordered_json;
constexpr double mebibyte = 1024.0 * 1024.0;

/// A field of CSV: quoted where it has to be (RFC 4180).
std::string csv(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

std::string latex(const std::string& text) {
  std::string escaped;
  for (char c : text) {
    if (c == '\\') {
      escaped += "\\textbackslash{}";
    } else if (c == '~' || c == '^') {
      escaped += fmt::format("\\{}{{}}", c);
    } else {
      if (std::string_view("#$%&_{}").find(c) != std::string_view::npos) escaped += '\\';
      escaped += c;
    }
  }
  return escaped;
}

std::string csv_spread(const Spread& spread, double scale) {
  if (spread.count == 0) return ",";
  return fmt::format("{},{}", scale * spread.mean,
                     spread.deviation ? fmt::format("{}", scale * *spread.deviation) : std::string());
}

/// "81.20 ± 0.31", "81.20", or "missing".
std::string shown(const Spread& spread, double scale, int digits, const char* plus_minus) {
  if (spread.count == 0) return "missing";
  const std::string mean = fmt::format("{:.{}f}", scale * spread.mean, digits);
  if (!spread.deviation) return mean;
  return fmt::format("{}{}{:.{}f}", mean, plus_minus, scale * *spread.deviation, digits);
}

std::string summary_csv(const std::vector<VariantSummary>& rows) {
  std::string text =
      "group,variant,runs,missing,accuracy_mean,accuracy_deviation,f1_macro_mean,f1_macro_deviation,"
      "effective_epochs_mean,effective_epochs_deviation,total_seconds_mean,total_seconds_deviation,cpu_seconds_mean,"
      "cpu_seconds_deviation,selection_seconds_mean,selection_seconds_deviation,host_peak_mib_mean,"
      "host_peak_mib_deviation,device_peak_mib_mean,device_peak_mib_deviation\n";
  for (const VariantSummary& row : rows) {
    text += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{}\n", csv(row.group), csv(row.variant), row.runs.size(),
                        row.missing_seeds.size(), csv_spread(row.accuracy, 1), csv_spread(row.f1_macro, 1),
                        csv_spread(row.effective_epochs, 1), csv_spread(row.total_seconds, 1),
                        csv_spread(row.cpu_seconds, 1), csv_spread(row.selection_seconds, 1),
                        csv_spread(row.host_peak_bytes, 1 / mebibyte), csv_spread(row.device_peak_bytes, 1 / mebibyte));
  }
  return text;
}

template <class Number>
std::string optional_text(const std::optional<Number>& value) {
  return value ? fmt::format("{}", *value) : std::string();
}

std::string detailed_csv(const Sweep& sweep) {
  std::string text =
      "name,group,variant,seed,status,accuracy,f1_macro,loss,effective_epochs,total_seconds,cpu_seconds,selection_"
      "seconds,steps,examples_seen,kept,"
      "relative_certificate,wrong_labels,wrong_labels_kept,host_peak_bytes,device_peak_bytes,ranks,revision\n";
  for (const SweepRun& run : sweep.runs) {
    text += fmt::format("{},{},{},{},{},", csv(run.run.name), csv(run.run.group), csv(run.run.variant), run.run.seed,
                        to_string(run.state.status));
    if (const auto& f = run.state.figures) {
      text += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", f->accuracy,
                          optional_text(f->f1_macro), f->loss, f->effective_epochs, f->total_seconds,
                          optional_text(f->cpu_seconds), f->selection_seconds, f->steps, f->examples_seen,
                          optional_text(f->kept), optional_text(f->relative_certificate),
                          optional_text(f->wrong_labels), optional_text(f->wrong_labels_kept), f->host_peak_bytes,
                          f->device_peak_bytes, f->ranks, csv(f->revision));
    } else {
      text += ",,,,,,,,,,,,,,,,\n";
    }
  }
  return text;
}

/// Test accuracies by epoch of a finished run, as its metrics.json has them.
json curve_of(const SweepRun& run) {
  const std::string text = read_file(run.folder / "metrics.json");
  const json metrics = parse_json<json>(text, {.bytes = text.size(), .values = std::size_t{64} << 20});
  json curve = json::array();
  for (const json& epoch : metrics.at("epochs")) {
    if (epoch.at("test").is_null()) continue;
    curve.push_back({{"epoch", epoch.at("epoch")},
                     {"steps", epoch.at("steps")},
                     {"examples_seen", epoch.at("examples_seen")},
                     {"accuracy", epoch.at("test").at("accuracy")}});
  }
  return curve;
}

json run_json(const SweepRun& run) {
  json choices = json::object();
  for (const auto& [axis, choice] : run.run.choices) choices[axis] = choice;
  json one{{"name", run.run.name},
           {"group", run.run.group},
           {"variant", run.run.variant},
           {"choices", choices},
           {"seed", run.run.seed},
           {"folder", run.run.name},
           {"status", to_string(run.state.status)},
           {"reason", run.state.reason},
           {"result", nullptr}};
  if (const auto& f = run.state.figures) {
    const auto optional = [](const auto& value) { return value ? json(*value) : json(nullptr); };
    one["result"] = {{"accuracy", f->accuracy},
                     {"loss", std::isfinite(f->loss) ? json(f->loss) : json(nullptr)},
                     {"f1_macro", optional(f->f1_macro)},
                     {"effective_epochs", f->effective_epochs},
                     {"total_seconds", f->total_seconds},
                     {"cpu_seconds", optional(f->cpu_seconds)},
                     {"selection_seconds", f->selection_seconds},
                     {"steps", f->steps},
                     {"examples_seen", f->examples_seen},
                     {"kept", optional(f->kept)},
                     {"relative_certificate", optional(f->relative_certificate)},
                     {"wrong_labels", optional(f->wrong_labels)},
                     {"wrong_labels_kept", optional(f->wrong_labels_kept)},
                     {"host_peak_bytes", f->host_peak_bytes},
                     {"device_peak_bytes", f->device_peak_bytes},
                     {"ranks", f->ranks},
                     {"revision", f->revision},
                     {"warnings", f->warnings},
                     {"curve", curve_of(run)}};
  }
  return one;
}

std::string latex_table(const Sweep& sweep, const std::vector<VariantSummary>& rows) {
  const bool has_device = std::ranges::any_of(rows, [](const auto& row) { return row.device_peak_bytes.mean > 0; });
  std::string text = fmt::format(
      "% {}: mean and sample standard deviation over the seeds. Needs \\usepackage{{booktabs}}.\n"
      "\\begin{{tabular}}{{lrrrrrrrr{}}}\n\\toprule\n"
      "Variant & Runs & Test accuracy (\\%) & F1 (\\%) & Effective epochs & Total (s) & CPU (s) & Selection (s) & "
      "Memory per rank (MiB){} \\\\\n",
      latex(sweep.study.title), has_device ? "r" : "", has_device ? " & GPU memory (MiB)" : "");
  std::string group;
  for (const VariantSummary& row : rows) {
    if (row.group != group) {
      text += fmt::format("\\midrule\n\\multicolumn{{{}}}{{l}}{{\\emph{{{}}}}} \\\\\n", has_device ? 10 : 9,
                          latex(row.group));
    }
    group = row.group;
    text += fmt::format("{} & {} of {} & {} & {} & {} & {} & {} & {} & {}", latex(row.variant), row.runs.size(),
                        row.runs.size() + row.missing_seeds.size(), shown(row.accuracy, 100, 2, " $\\pm$ "),
                        shown(row.f1_macro, 100, 2, " $\\pm$ "), shown(row.effective_epochs, 1, 2, " $\\pm$ "),
                        shown(row.total_seconds, 1, 1, " $\\pm$ "), shown(row.cpu_seconds, 1, 1, " $\\pm$ "),
                        shown(row.selection_seconds, 1, 1, " $\\pm$ "),
                        shown(row.host_peak_bytes, 1 / mebibyte, 0, " $\\pm$ "));
    if (has_device) text += " & " + shown(row.device_peak_bytes, 1 / mebibyte, 0, " $\\pm$ ");
    text += " \\\\\n";
  }
  return text + "\\bottomrule\n\\end{tabular}\n";
}

}  // namespace

Spread spread_of(const std::vector<double>& values) {
  Spread spread;
  spread.count = static_cast<std::int64_t>(values.size());
  if (values.empty()) return spread;
  const auto count = static_cast<double>(values.size());
  for (double value : values) spread.mean += value / count;
  if (values.size() < 2) return spread;
  double squares = 0.0;
  for (double value : values) squares += (value - spread.mean) * (value - spread.mean);
  spread.deviation = std::sqrt(squares / (count - 1.0));
  return spread;
}

std::vector<VariantSummary> summarize(const Sweep& sweep) {
  std::vector<VariantSummary> rows;
  for (const SweepRun& run : sweep.runs) {
    auto row = std::ranges::find_if(
        rows, [&](const auto& r) { return r.group == run.run.group && r.variant == run.run.variant; });
    if (row == rows.end()) {
      row = rows.emplace(rows.end());
      row->group = run.run.group;
      row->variant = run.run.variant;
    }
    if (run.state.figures) {
      row->runs.push_back(&*run.state.figures);
    } else {
      row->missing_seeds.push_back(run.run.seed);
    }
  }
  for (VariantSummary& row : rows) {
    const auto over = [&](auto member) {
      std::vector<double> values;
      for (const RunFigures* figures : row.runs) values.push_back(static_cast<double>(figures->*member));
      return spread_of(values);
    };
    const auto known = [&](auto member) {
      std::vector<double> values;
      for (const RunFigures* figures : row.runs) {
        if (figures->*member) values.push_back(*(figures->*member));
      }
      return spread_of(values);
    };
    row.accuracy = over(&RunFigures::accuracy);
    row.f1_macro = known(&RunFigures::f1_macro);
    row.effective_epochs = over(&RunFigures::effective_epochs);
    row.total_seconds = over(&RunFigures::total_seconds);
    row.cpu_seconds = known(&RunFigures::cpu_seconds);
    row.selection_seconds = over(&RunFigures::selection_seconds);
    row.host_peak_bytes = over(&RunFigures::host_peak_bytes);
    row.device_peak_bytes = over(&RunFigures::device_peak_bytes);
  }
  return rows;
}

void write_tables(const Sweep& sweep) {
  const auto rows = summarize(sweep);
  write_file(sweep.out / "summary_table.csv", summary_csv(rows));
  write_file(sweep.out / "detailed_results.csv", detailed_csv(sweep));
  write_file(sweep.out / "summary_table.tex", latex_table(sweep, rows));
  json runs = json::array();
  for (const SweepRun& run : sweep.runs) runs.push_back(run_json(run));
  const json all{
      {"study", sweep.study.name}, {"title", sweep.study.title}, {"revision", git_revision()}, {"runs", runs}};
  write_file(sweep.out / "all_results.json", all.dump(1) + "\n");
}

std::string table_text(const Sweep& sweep) {
  std::vector<std::vector<std::string>> lines = {{"group", "variant", "runs", "test accuracy %", "F1 %",
                                                  "effective epochs", "total s", "CPU s", "selection s",
                                                  "MiB per rank"}};
  std::vector<std::string> missing, warnings;
  for (const VariantSummary& row : summarize(sweep)) {
    lines.push_back({row.group, row.variant,
                     fmt::format("{} of {}", row.runs.size(), row.runs.size() + row.missing_seeds.size()),
                     shown(row.accuracy, 100, 2, " ± "), shown(row.f1_macro, 100, 2, " ± "),
                     shown(row.effective_epochs, 1, 2, " ± "), shown(row.total_seconds, 1, 1, " ± "),
                     shown(row.cpu_seconds, 1, 1, " ± "), shown(row.selection_seconds, 1, 1, " ± "),
                     shown(row.host_peak_bytes, 1 / mebibyte, 0, " ± ")});
  }
  for (const SweepRun& run : sweep.runs) {
    if (!run.state.figures)
      missing.push_back(fmt::format("{} ({}{})", run.run.name, to_string(run.state.status),
                                    run.state.status == RunStatus::foreign ? ": " + run.state.reason : std::string()));
    if (!run.state.figures) continue;
    for (const auto& warning : run.state.figures->warnings) warnings.push_back(run.run.name + ": " + warning);
  }
  // Columns are counted in characters; a ± is one, and two bytes.
  const auto width_of = [](const std::string& cell) {
    return std::ranges::count_if(cell, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; });
  };
  std::string text;
  for (const auto& line : lines) {
    std::string out;
    for (std::size_t column = 0; column < line.size(); ++column) {
      std::ptrdiff_t width = 0;
      for (const auto& other : lines) width = std::max(width, width_of(other[column]));
      out += line[column] + std::string(static_cast<std::size_t>(width - width_of(line[column]) + 2), ' ');
    }
    out.erase(out.find_last_not_of(' ') + 1);
    text += out + '\n';
  }
  text += "\nMean ± standard deviation over the seeds that are finished.\n";
  constexpr std::size_t most_listed = 20;
  const auto list = [&](const char* title, const std::vector<std::string>& items) {
    if (items.empty()) return;
    text += fmt::format("{} ({}):\n", title, items.size());
    for (std::size_t i = 0; i < std::min(items.size(), most_listed); ++i) text += "  " + items[i] + '\n';
    if (items.size() > most_listed) text += fmt::format("  and {} more\n", items.size() - most_listed);
  };
  list("MISSING, and so in no mean", missing);
  list("Take care", warnings);
  return text;
}

}  // namespace sage
