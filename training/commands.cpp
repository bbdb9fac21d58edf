#include "training/commands.h"

#include <cstdio>

#include "core/error.h"
#include "core/log.h"
#include "core/trace.h"
#include "data/registry.h"
#include "distributed/signals.h"
#include "models/registry.h"
#include "models/weights.h"
#include "training/data_changes.h"
#include "training/dropout/options.h"
#include "training/evaluation.h"
#include "training/experiment.h"
#include "training/job.h"
#include "training/optimizer.h"
#include "training/plan.h"
#include "training/resume.h"
#include "training/selection_schedule.h"
#include "training/trainer.h"

namespace sage {
namespace {

std::filesystem::path default_run_folder(const Config& config) {
  const std::string method = config.selection.mode == "none" ? "full" : config.selection.method;
  const std::string dropout = config.dropout.mode == "none" ? "" : "_" + config.dropout.mode;
  return std::filesystem::path("runs") /
         fmt::format("{}_{}_{}{}_seed{}", config.data.name, config.model.name, method, dropout, config.seed);
}

Config resolve(const ConfigSource& source, const ResumePoint* resume) {
  return resume != nullptr && source.file.empty() ? source.load_over(resume->state.config_json, resume->path.string())
                                                  : source.load();
}

/// Everything that a resume can be refused for, before anything is written. `network` is overwritten.
void check_resume(const ResumePoint& resume, const Experiment& experiment, Classifier& network) {
  const Config& config = experiment.config;
  check_checkpoint_fits(resume.state, resume.path, config.model.name, config.data.name, experiment.dataset.class_count);
  check_same_course(resume.state, resume.path, config, experiment.global_batch);
  check_examples(resume.state, resume.path, experiment.candidates);
  load_state(network, resume.state.learner.model);
  make_optimizer(network.named_parameters(), config.training)->load_state(resume.state.learner.optimizer);
}

/// ALL ranks. Each has looked for the checkpoint by itself; on a shared file system they may see different folders.
void expect_one_resume_point(const Job& job, const ResumePoint& resume, const std::string& place) {
  const auto name = fmt::format("{} {}", resume.path.filename().string(), place);
  const auto all = job.communicator->all_gather_strings(name);
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    throw CheckpointError(fmt::format(
        "rank {} finds another checkpoint to resume from ({}) than rank 0 ({}): name the file with --resume", rank,
        all[rank], all[0]));
  }
}

/// What goes on behind `resume` is done again.
void set_aside_after(const RunFolder& folder, const ResumePoint& resume) {
  for (const auto& path : folder.set_aside_after(checkpoint_name(resume.state))) {
    log::info("{} belongs to work that is done again: renamed to end in .abandoned", path.string());
  }
}

/// Rank 0 opens the folder and its log; ALL ranks throw if it fails.
std::optional<RunFolder> open_run_folder(const Job& job, const Config& config, const Experiment& experiment,
                                         OpenMode mode, const RunInfo& info) {
  std::optional<RunFolder> folder;
  job.communicator->all_or_none([&] {
    if (!job.is_lead()) return;
    folder = RunFolder::open(config.output_dir, mode);
    log::open_file(folder->log_file());
    folder->write_config(to_yaml(config), to_json(config), info);
    folder->write_data_changes(data_changes_json(experiment));
  });
  return folder;
}

/// What output.profile asks for, while it lives.
std::unique_ptr<trace::Recording> record_trace(const Config& config, int rank) {
  if (!config.output.profile) return nullptr;
  return std::make_unique<trace::Recording>(std::filesystem::path(config.output_dir) / "profile", rank,
                                            config.output.profile_steps);
}

void warn_of_fallbacks(const Config& config, at::Device device) {
  if (config.selection.compression == "gpu" && !device.is_cuda()) {
    log::warning("selection.compression is gpu, but this run computes on the CPU: sketches are kept there too");
  }
}

/// Where some of the settings come from that nobody gave.
void log_defaults(const ConfigSource& source) {
  if (source.defaults_of.empty()) return;
  log::info("what is not given is as in {} (docs/flags.md); config.yaml in the run folder holds all",
            source.defaults_of);
}

}  // namespace

void expect_one_configuration(const Job& job, const Config& config) {
  const auto all = job.communicator->all_gather_strings(to_yaml(config));
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] != all[0]) {
      throw ConfigError(fmt::format(
          "rank {} was started with another configuration than rank 0: give all ranks the same file and arguments",
          rank));
    }
  }
}

void settle_names(Config& config) {
  config.model.name = find_model(config.model.name).name;
  config.data.name = dataset_format(config.data.name).name;
}

Config resolve_config(const ConfigSource& source, const std::string& resume) {
  if (resume.empty() || !source.file.empty()) return source.load();
  const ResumePoint point = find_resume_point(resume);
  return resolve(source, &point);
}

int train_command_main(Runtime& runtime, const ConfigSource& source, const TrainOptions& options) {
  if (!options.resume.empty() && options.overwrite) throw ConfigError("--resume and --overwrite exclude each other");
  std::optional<ResumePoint> resume;
  if (!options.resume.empty()) resume = find_resume_point(options.resume);
  Config config = resolve(source, resume ? &*resume : nullptr);
  if (resume && !source.sets("output_dir") && (source.file.empty() || config.output_dir.empty())) {
    config.output_dir = run_folder_of(resume->path).string();
  }
  settle_names(config);
  if (resume) {  // at once: another data set need not even be there
    check_checkpoint_fits(resume->state, resume->path, config.model.name, config.data.name, resume->state.class_count);
  }
  if (config.output_dir.empty()) config.output_dir = default_run_folder(config).string();
  if (options.profile) config.output.profile = true;

  Job job(runtime, config.device, config.distributed);
  expect_one_configuration(job, config);
  warn_of_fallbacks(config, job.device);
  const auto experiment = prepare_experiment(config, job.device, *job.communicator);
  const auto network = make_network(*experiment, config.model.name, config.seed, *job.statistics);
  if (!resume && !config.model.pretrained.empty()) {  // what does not fit is refused before anything is written
    job.communicator->all_or_none([&] { load_pretrained(*network, config.model.pretrained); });
  }
  const Plan plan = make_plan(*experiment, *network, runtime.rank(), runtime.size());
  if (selects_at_all(config.selection) && plan.selection_epochs.empty()) {
    log::warning(
        "the run ends before the first selection (selection.warmup_epochs is {}): it trains on all data; shorten the "
        "warm-up or set selection.no_warmup=true",
        config.selection.warmup_epochs);
  }
  if (plan.crest && plan.total_steps <= plan.crest->steps_per_epoch) {
    log::warning(
        "the run is one short epoch of {} steps, which crest trains on all data: give it more (training.epochs is {})",
        plan.crest->steps_per_epoch, config.training.epochs);
  }
  if (const std::string warning = dropout_warning(config.dropout, plan.epochs); !warning.empty()) {
    log::warning("{}", warning);
  }
  std::string place;  // where it goes on
  if (resume) {
    place = describe(resume->state, config.selection.proxy.steps);
    expect_one_resume_point(job, *resume, place);
    job.communicator->all_or_none([&] { check_resume(*resume, *experiment, *network); });
  }
  if (options.dry_run) {
    if (job.is_lead()) fmt::print("{}", to_string(plan, *experiment, runtime.size()));
    return 0;
  }
  const OpenMode mode = resume ? OpenMode::resume : options.overwrite ? OpenMode::overwrite : OpenMode::fresh;
  const StopSignalWatch watch;  // before this a signal just ends the program: nothing was written
  auto folder = open_run_folder(job, config, *experiment, mode, job.info(options.command_line));
  log_defaults(source);
  log::info("{}", to_string(plan, *experiment, runtime.size()));
  if (resume) {
    for (const auto& note : resume->notes) log::info("{}", note);
    job.communicator->all_or_none([&] {
      if (folder) set_aside_after(*folder, *resume);
    });
    log::info("resuming from {} {}", resume->path.string(), place);
  }
  std::optional<TrainingState> resumed;
  if (resume) resumed = std::move(resume->state);
  const auto recording = record_trace(config, runtime.rank());
  Trainer trainer(*experiment, job, folder ? &*folder : nullptr, std::move(resumed));
  return static_cast<int>(trainer.run() == 0 ? ExitStatus::success : ExitStatus::stopped);
}

int select_command_main(Runtime& runtime, const ConfigSource& source, const SelectOptions& options) {
  Config config = source.load();
  settle_names(config);
  if (config.output_dir.empty()) config.output_dir = default_run_folder(config).string() + "_select";
  if (options.profile) config.output.profile = true;
  Job job(runtime, config.device, config.distributed);
  expect_one_configuration(job, config);
  warn_of_fallbacks(config, job.device);
  const auto experiment = prepare_experiment(config, job.device, *job.communicator);
  const auto network = options.checkpoint.empty()
                           ? make_starting_network(*experiment, config.seed, *job.communicator, *job.statistics)
                           : make_network(*experiment, config.model.name, config.seed, *job.statistics);
  if (is_crest(config.selection)) {
    throw ConfigError(
        "selection.method crest chooses mini-batches anew while it trains, and no subset: use `sage train`, or select "
        "with another method");
  }
  make_plan(*experiment, *network, runtime.rank(),
            runtime.size());  // refuses what cannot be done before a folder is made
  std::int64_t epoch = 0;
  if (!options.checkpoint.empty()) {
    job.communicator->all_or_none([&] {
      std::vector<std::string> notes;
      const auto path = find_checkpoint(options.checkpoint, notes);
      const TrainingState state = read_checkpoint(path);
      check_checkpoint_fits(state, path, config.model.name, config.data.name, experiment->dataset.class_count);
      load_state(*network, state.learner.model);
      epoch = state.position.epoch;
      for (const auto& note : notes) log::info("{}", note);
    });
  } else if (config.selection.scorer == "current" && config.model.pretrained.empty()) {
    log::warning(
        "neither --checkpoint, model.pretrained nor selection.scorer=proxy is given: a network with fresh weights "
        "scores");
  }
  auto folder = open_run_folder(job, config, *experiment, options.overwrite ? OpenMode::overwrite : OpenMode::fresh,
                                job.info(options.command_line));
  log_defaults(source);
  const auto recording = record_trace(config, runtime.rank());
  SubsetSelection selection(*experiment, job);
  const SubsetChoice choice = [&] {
    const trace::Span span("selection", trace::keeps_all());
    return selection.choose(*network, 1, epoch, {});
  }();
  if (folder) {
    folder->write_subset(choice.record, choice.table());
    Metrics metrics(folder->path());
    metrics.add(summarize(choice.record));
    metrics.set_summary("corrupted_labels", static_cast<double>(experiment->corrupted.size()));
    metrics.set_summary("unreadable_images", static_cast<double>(experiment->dataset.train.unreadable.size() +
                                                                 experiment->dataset.test.unreadable.size()));
    metrics.write();
    log::info("kept ids: {}", (folder->subsets() / fmt::format("epoch_{}_indices.json", epoch)).string());
  }
  return 0;
}

int evaluate_command_main(Runtime& runtime, const std::string& checkpoint, const std::vector<std::string>& overrides) {
  std::vector<std::string> notes;
  std::filesystem::path path = checkpoint;
  if (std::filesystem::is_directory(path / "checkpoints")) path = best_model_path(path / "checkpoints");
  path = find_checkpoint(path, notes);
  for (const auto& note : notes) log::info("{}", note);
  const TrainingState state = read_checkpoint(path);
  Config config = parse_config(state.config_json, path.string(), overrides);
  settle_names(config);
  Job job(runtime, config.device, config.distributed);
  expect_one_configuration(job, config);
  const auto experiment = prepare_experiment(config, job.device, *job.communicator);
  check_checkpoint_fits(state, path, config.model.name, config.data.name, experiment->dataset.class_count);
  const auto network = make_network(*experiment, config.model.name, config.seed, *job.statistics);
  job.communicator->all_or_none([&] { load_state(*network, state.learner.model); });
  const std::vector<std::int64_t> ids = experiment->dataset.test.readable_ids();
  const EvaluationReport report = evaluate(*network, *experiment->test_images, experiment->dataset.test.labels, ids,
                                           256, *job.communicator, config.training.precision);
  if (!job.is_lead()) return 0;
  fmt::print("checkpoint {} (epoch {})\ntest accuracy {:.2f} %  loss {:.4f}  F1 macro {:.4f}  examples {}\n",
             path.string(), state.position.epoch, 100 * report.mean.accuracy, report.mean.loss, report.mean.f1_macro,
             report.examples);
  for (std::size_t c = 0; c < report.mean.class_accuracy.size(); ++c) {
    fmt::print("  {:<24} {:6.2f} %\n", experiment->dataset.class_names[c], 100 * report.mean.class_accuracy[c]);
  }
  return 0;
}

}  // namespace sage
