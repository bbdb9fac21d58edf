#include "launch/run_state.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/bounded_json.h"
#include "core/error.h"
#include "core/files.h"
#include "core/text.h"
#include "training/folder_lock.h"
#include "training/resume.h"
#include "training/run_folder.h"

namespace sage {
namespace {

using json = nlohmann::ordered_json;
namespace fs = std::filesystem;

json read_json(const fs::path& path) {
  const std::string text = read_file(path);
  return parse_json<json>(text, {.bytes = text.size(), .values = std::size_t{64} << 20});
}

/// The first keys that differ, with both values; empty if none does. output_dir is left out.
std::string difference(const json& there, const json& here, const std::string& prefix, int& count) {
  std::string text;
  const auto add = [&](const std::string& line) {
    if (++count <= 3) text += (text.empty() ? "" : "; ") + line;
  };
  for (const auto& [key, value] : here.items()) {
    const std::string name = prefix + key;
    if (name == "output_dir") continue;
    if (!there.contains(key)) {
      add(fmt::format("{} is missing there", name));
    } else if (value.is_object() && there.at(key).is_object()) {
      const std::string below = difference(there.at(key), value, name + ".", count);
      if (!below.empty()) text += (text.empty() ? "" : "; ") + below;
    } else if (there.at(key) != value) {
      add(fmt::format("{} is {} there and {} here", name, excerpt(there.at(key).dump()), excerpt(value.dump())));
    }
  }
  for (const auto& [key, value] : there.items()) {
    if (!here.contains(key)) add(fmt::format("{} is unknown here", excerpt(prefix + key)));
  }
  return text;
}

std::optional<std::int64_t> optional_count(const json& from, const char* key) {
  const auto found = from.find(key);
  if (found == from.end() || found->is_null()) return std::nullopt;
  return whole_number(*found, key);
}

std::int64_t rounded(const json& value) { return static_cast<std::int64_t>(value.get<double>()); }

RunFigures to_figures(const json& metrics, const json& run) {
  const json& summary = metrics.at("summary");
  RunFigures figures;
  figures.accuracy = summary.at("final_test").at("accuracy").get<double>();
  const json& loss = summary.at("final_test").at("loss");
  figures.loss = loss.is_null() ? std::numeric_limits<double>::quiet_NaN() : loss.get<double>();
  figures.total_seconds = summary.at("total_seconds").get<double>();
  figures.selection_seconds = summary.at("selection_seconds").get<double>();
  if (summary.contains("cpu_seconds")) figures.cpu_seconds = summary.at("cpu_seconds").get<double>();
  figures.effective_epochs = summary.at("effective_epochs").get<double>();
  if (const auto f1 = summary.at("final_test").find("f1_macro");
      f1 != summary.at("final_test").end() && f1->is_number()) {
    figures.f1_macro = f1->get<double>();
  }
  figures.steps = whole_number(summary.at("steps"), "steps");
  figures.examples_seen = whole_number(summary.at("examples_seen"), "examples_seen");
  figures.host_peak_bytes = whole_number(summary.at("host_peak_bytes"), "host_peak_bytes");
  figures.device_peak_bytes = whole_number(summary.at("device_peak_bytes"), "device_peak_bytes");
  if (const auto wrong = summary.find("corrupted_labels"); wrong != summary.end() && rounded(*wrong) > 0) {
    figures.wrong_labels = rounded(*wrong);
  }
  const json& selections = metrics.at("selections");
  if (!selections.empty()) {
    figures.kept = optional_count(selections.back(), "kept");
    figures.wrong_labels_kept = optional_count(selections.back(), "wrong_labels_kept");
    const json& certificate = selections.back().at("relative_certificate");
    if (!certificate.is_null()) figures.relative_certificate = certificate.get<double>();
  }
  figures.ranks = whole_number(run.at("ranks"), "ranks");
  figures.revision = run.at("git_revision").get<std::string>();
  return figures;
}

bool has_checkpoint(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder / "checkpoints", error)) {
    if (parse_checkpoint_name(entry.path())) return true;
  }
  return false;
}

/// Throws Error, JsonError or json::exception on files that are not those of a run.
RunState look(const fs::path& folder, const Config& config, std::int64_t ranks) {
  RunState state;
  const json made = read_json(folder / "config.json");
  int count = 0;
  const std::string differs = difference(made.at("config"), json::parse(to_json(config)), "", count);
  const std::string revision = made.at("run").at("git_revision").get<std::string>();
  if (count > 0) {
    state.status = RunStatus::foreign;
    state.reason = fmt::format("it holds a run with another configuration: {}{}{}", differs,
                               count > 3 ? fmt::format("; and {} more", count - 3) : "",
                               revision == git_revision() ? ""
                                                          : fmt::format(" (made by version {}, this is {})",
                                                                        excerpt(revision), git_revision()));
    return state;
  }
  state.has_checkpoint = has_checkpoint(folder);
  state.status = RunStatus::incomplete;
  if (!fs::is_regular_file(folder / "metrics.json")) return state;
  const json metrics = read_json(folder / "metrics.json");
  const json& summary = metrics.at("summary");
  if (!summary.is_object()) throw JsonError("`summary` is not an object");
  const auto test = summary.find("final_test");
  if (!summary.contains("finished") || test == summary.end() || test->is_null()) return state;
  state.status = RunStatus::finished;
  state.figures = to_figures(metrics, made.at("run"));
  if (revision != git_revision()) {
    state.figures->warnings.push_back(fmt::format("made by version {}, this is {}", excerpt(revision), git_revision()));
  }
  if (state.figures->ranks != ranks) {
    state.figures->warnings.push_back(
        fmt::format("made with {} ranks, not {}: its times are not comparable", state.figures->ranks, ranks));
  }
  return state;
}

RunState foreign(const std::string& reason) {
  RunState state;
  state.status = RunStatus::foreign;
  state.reason = reason;
  return state;
}

}  // namespace

const char* to_string(RunStatus status) {
  switch (status) {
    case RunStatus::missing:
      return "missing";
    case RunStatus::incomplete:
      return "incomplete";
    case RunStatus::finished:
      return "finished";
    case RunStatus::running:
      return "running";
    case RunStatus::foreign:
      return "foreign";
  }
  return "unknown";
}

RunState look_at_run(const fs::path& folder, const Config& config, std::int64_t ranks) {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(folder, error))) return {};
  if (!fs::is_directory(folder, error)) return foreign("it is not a folder");
  if (fs::directory_iterator(folder, error) == fs::directory_iterator()) return {};
  if (!is_run_folder(folder)) return foreign("it is not empty and does not look like a run folder of sage");
  try {
    refuse_if_in_use(folder);
  } catch (const ConfigError& held) {
    RunState state;
    state.status = RunStatus::running;
    state.reason = held.what();
    return state;
  }
  // Stopped before its configuration was written: nothing of it counts.
  if (!fs::exists(folder / "config.json", error)) {
    RunState state;
    state.status = RunStatus::incomplete;
    return state;
  }
  try {
    return look(folder, config, ranks);
  } catch (const Error& failure) {
    return foreign(failure.what());
  } catch (const JsonError& failure) {
    return foreign(fmt::format("its config.json or metrics.json is damaged: {}", failure.what()));
  } catch (const json::exception& failure) {
    return foreign(
        fmt::format("its config.json or metrics.json is not one of this version ({})", excerpt(failure.what(), 200)));
  }
}

}  // namespace sage
