#include "training/resume.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <regex>

#include "core/error.h"
#include "training/folder_lock.h"

namespace sage {
namespace {

namespace fs = std::filesystem;

/// Newest first.
std::vector<std::pair<CheckpointName, fs::path>> list_checkpoints(const fs::path& folder) {
  std::vector<std::pair<CheckpointName, fs::path>> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (const auto name = parse_checkpoint_name(entry.path())) found.emplace_back(*name, entry.path());
  }
  std::sort(found.begin(), found.end(), std::greater<>());
  return found;
}

/// Throws CheckpointError unless the file is whole and holds all that a run needs.
TrainingState read_complete(const fs::path& path) {
  TrainingState state = read_checkpoint(path);
  if (state.learner.optimizer.empty()) {
    throw CheckpointError(fmt::format(
        "{} holds weights only; resume from a checkpoint_epoch_N.safetensors or from the run folder", path.string()));
  }
  return state;
}

ResumePoint newest_of(const fs::path& folder) {
  std::error_code error;
  const fs::path inside = folder / "checkpoints";
  const fs::path where = fs::is_directory(inside, error) ? inside : folder;
  ResumePoint point;
  for (const auto& [name, path] : list_checkpoints(where)) {
    try {
      point.state = read_complete(path);
      point.path = path;
      return point;
    } catch (const CheckpointError& failure) {
      point.notes.push_back(fmt::format("passed over a checkpoint: {}", failure.what()));
    }
  }
  refuse_if_in_use(folder);  // it may have none yet
  if (point.notes.empty()) {
    throw CheckpointError(
        fmt::format("{} holds no checkpoint (checkpoint_epoch_N.safetensors) to resume from; start anew "
                    "with --overwrite or another output_dir",
                    where.string()));
  }
  throw CheckpointError(fmt::format("{} holds no whole checkpoint to resume from:\n  {}", where.string(),
                                    fmt::join(point.notes, "\n  ")));
}

}  // namespace

CheckpointName checkpoint_name(const TrainingState& state) {
  CheckpointName name{state.position.epoch, {}};
  if (!state.is_between_epochs()) name.step = state.all_steps();
  return name;
}

std::filesystem::path best_model_path(const std::filesystem::path& folder) { return folder / "best_model.safetensors"; }

fs::path checkpoint_path(const fs::path& folder, const CheckpointName& name) {
  const std::string step = name.step ? fmt::format("_step_{}", *name.step) : "";
  return folder / fmt::format("checkpoint_epoch_{}{}.safetensors", name.epoch, step);
}

std::optional<CheckpointName> parse_checkpoint_name(const fs::path& path) {
  static const std::regex pattern(R"(checkpoint_epoch_(\d{1,18})(?:_step_(\d{1,18}))?\.safetensors)");
  std::smatch match;
  const std::string text = path.filename().string();
  if (!std::regex_match(text, match, pattern)) return {};
  CheckpointName name{std::stoll(match[1]), {}};
  if (match[2].matched) name.step = std::stoll(match[2]);
  return name;
}

fs::path find_checkpoint(const fs::path& path, std::vector<std::string>& notes) {
  std::error_code error;
  if (fs::exists(path, error)) return path;
  std::vector<fs::path> names{path.filename()};
  if (path.extension() != ".safetensors") {
    fs::path renamed = path.filename();
    if (path.extension() == ".pt") renamed.replace_extension();
    renamed += ".safetensors";
    names.push_back(renamed);
  }
  std::vector<std::string> looked_for;
  for (const fs::path& folder : {path.parent_path(), path.parent_path() / "checkpoints"}) {
    for (const fs::path& name : names) {
      const fs::path candidate = folder / name;
      if (fs::is_regular_file(candidate, error)) {
        notes.push_back(fmt::format("{} does not exist; taking {}", path.string(), candidate.string()));
        return candidate;
      }
      looked_for.push_back(candidate.string());
    }
  }
  throw CheckpointError(fmt::format("there is no run folder or checkpoint {} (looked for {})", path.string(),
                                    fmt::join(looked_for, ", ")));
}

ResumePoint find_resume_point(const fs::path& from) {
  std::vector<std::string> notes;
  const fs::path path = find_checkpoint(from, notes);
  std::error_code error;
  if (fs::is_directory(path, error)) return newest_of(path);
  return {path, read_complete(path), std::move(notes)};
}

std::vector<fs::path> remove_old_checkpoints(const fs::path& folder, std::int64_t keep) {
  require(keep >= 2, "remove_old_checkpoints: at least two are kept, since the newest may turn out damaged");
  std::vector<fs::path> removed;
  std::int64_t seen = 0;
  for (const auto& [name, path] : list_checkpoints(folder)) {
    if (seen++ < keep) continue;
    std::error_code error;
    if (fs::remove(path, error)) removed.push_back(path);
  }
  return removed;
}

std::string describe(const TrainingState& state, std::int64_t proxy_steps) {
  if (state.proxy && !state.proxy->optimizer.empty()) {
    return fmt::format("in the proxy's training, step {} of {}", state.proxy_position.step, proxy_steps);
  }
  return fmt::format("after epoch {}, step {}{}", state.position.epoch, state.position.step,
                     state.has_begun_selection() ? ", in the selection" : "");
}

std::filesystem::path run_folder_of(const std::filesystem::path& checkpoint) {
  const auto folder = std::filesystem::absolute(checkpoint).parent_path();
  return folder.filename() == "checkpoints" ? folder.parent_path() : folder;
}

}  // namespace sage
