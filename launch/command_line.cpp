#include "launch/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <functional>

#include "core/config.h"
#include "core/error.h"
#include "launch/data_commands.h"
#include "launch/flags.h"
#include "launch/standalone.h"
#include "launch/version.h"
#include "training/commands.h"
#include "training/features.h"

namespace sage {
namespace {

/// `sage train` and `sage crest`: the same but for whose defaults lie below the configuration.
struct TrainCommand {
  TrainCommand(CLI::App& app, const char* name, const char* what, bool crest)
      : is_crest(crest), command(app.add_subcommand(name, what)), arguments(*command, &options.resume) {
    command
        ->add_option("--resume", options.resume,
                     "go on from a run folder (its newest whole checkpoint) or a checkpoint")
        ->group(std::string(selection_mode_group));
    command->add_flag("--overwrite", options.overwrite, "replace the run that output_dir holds");
    command->add_flag("--profile", options.profile, "write a trace of the phases for each rank (output.profile)");
    command->add_flag("--dry-run", options.dry_run, "print the plan (sizes, shards, steps, memory) and stop");
  }
  bool is_crest;
  TrainOptions options;
  CLI::App* command;
  ConfigArguments arguments;
};

/// `sage config show [train | crest | select]`, with the arguments of that command.
struct ShowCommand {
  ShowCommand(CLI::App* app, bool crest) : is_crest(crest), command(app), arguments(*command, &resume) {
    command->add_option("--resume", resume, "the configuration of this run folder or checkpoint")
        ->group(std::string(selection_mode_group));
  }
  bool is_crest;
  std::string resume;
  CLI::App* command;
  ConfigArguments arguments;
};

/// An error on a key that a flag has set names the flag too.
int naming_flags(const ConfigSource& source, const std::function<int()>& run) {
  try {
    return run();
  } catch (const ConfigError& error) {
    throw ConfigError(with_flags(error.what(), source.settings), error.where());
  } catch (const DataError& error) {
    throw DataError(with_flags(error.what(), source.settings), error.where());
  } catch (const CheckpointError& error) {
    throw CheckpointError(with_flags(error.what(), source.settings), error.where());
  }
}

void show_keys() {
  std::string group;
  for (const auto& key : list_config_keys()) {
    const std::string top = key.name.substr(0, key.name.find('.'));
    if (top != group) fmt::print("\n");
    group = top;
    fmt::print("{:<42} {}{}\n{:<42}   {} (default {})\n", key.name, key.type,
               key.unit.empty() ? "" : fmt::format(" [{}]", key.unit), "", key.meaning, key.default_value);
  }
}

}  // namespace

int run_command_line(Runtime& runtime, int argc, char** argv) {
  CLI::App app("Trains networks on the part of the data that matters. Alone, under mpirun or under srun.", "sage");
  app.require_subcommand(0, 1);
  bool version = false;
  app.add_flag("--version", version, "versions of sage, LibTorch, CUDA, NCCL and MPI");

  TrainCommand train(app, "train", "train on what is selected, and leave a run folder", false);
  TrainCommand crest(app, "crest", "train on mini-batch coresets (CREST), with the defaults of its own program", true);

  SelectOptions select;
  auto* select_command = app.add_subcommand("select", "only choose: write ids, scores and classes for any trainer");
  const ConfigArguments select_arguments(*select_command);
  select_command->add_option("--checkpoint", select.checkpoint, "weights of the network that scores");
  select_command->add_flag("--overwrite", select.overwrite, "replace the run that output_dir holds");
  select_command->add_flag("--profile", select.profile, "write a trace of the phases for each rank (output.profile)");

  std::string checkpoint;
  std::vector<std::string> evaluate_overrides;
  auto* evaluate_command = app.add_subcommand("evaluate", "accuracy of a checkpoint on the test split");
  evaluate_command->add_option("checkpoint", checkpoint, "checkpoint file or run folder")->required();
  evaluate_command->add_option("overrides", evaluate_overrides, "key=value, for example data.path=...");

  FeaturesOptions features;
  auto* features_command = app.add_subcommand("features", "what the network sees in each example, as safetensors");
  features_command->add_option("checkpoint", features.checkpoint, "checkpoint file or run folder")->required();
  features_command->add_option("overrides", features.overrides, "key=value, for example data.path=...");
  features_command->add_option("--split", features.split, "train (default) or test");
  features_command->add_option("--subset", features.subset, "epoch_N_indices.json that says what was kept");
  features_command->add_option("--out", features.out, "folder (default: features in the run folder)");
  features_command->add_flag("--overwrite", features.overwrite, "replace files that are there");

  DataArguments data;
  auto* data_command = app.add_subcommand("data", "look at, check and download data sets");
  data_command->require_subcommand(1);
  constexpr std::pair<const char*, const char*> verbs[] = {
      {"verify", "read every record and check it"},
      {"info", "sizes, classes, mean and deviation"},
      {"fetch", "download the official files, with checksums"},
      {"pack", "write a data set into one file (data.packed), which ranks map into memory"}};
  for (const auto& [verb, meaning] : verbs) {
    const bool fetch = std::string_view(verb) == "fetch", pack = std::string_view(verb) == "pack";
    auto* command = data_command->add_subcommand(verb, meaning);
    command->add_option("name", data.name, fetch || pack ? "data set, for example cifar10" : "data set, or packed file")
        ->required();
    command->add_option("--path", data.path, fetch ? "where its folder is made" : "its folder, or the folder above it");
    command->add_option("--labels", data.labels, "cifar100: fine or coarse");
    command->add_flag("--allow-partial", data.allow_partial, "accept fewer records than the official files hold");
    if (!fetch)
      command->add_option("--size", data.image_size, "folders of images: side they are brought to, in pixels");
    if (pack) {
      command->add_option("--out", data.out, "file to write")->required();
      auto* decoded = command->add_flag("--decoded", data.decoded, "records are decoded images (the default)");
      command->add_flag("--jpeg", data.as_files, "records are the files as they are")->excludes(decoded);
      command->add_flag("--skip-corrupt", data.skip_corrupt, "leave out images that do not decode");
    }
    if (fetch) command->add_option("--url", data.url, "mirror to download from (file:// works)");
  }

  auto* config_command = app.add_subcommand("config", "show configurations and keys");
  config_command->require_subcommand(1);
  auto* config_show = config_command->add_subcommand("show", "the resolved configuration as YAML");
  const ShowCommand show(config_show, false);
  const ShowCommand show_train(config_show->add_subcommand("train", "as `sage train` would take it"), false);
  const ShowCommand show_crest(config_show->add_subcommand("crest", "as `sage crest` would take it"), true);
  const ShowCommand show_select(config_show->add_subcommand("select", "as `sage select` would take it"), false);
  auto* config_list = config_command->add_subcommand("list", "every key with its type, unit, meaning and default");

  add_standalone_commands(app);  // for the help: main() runs them before MPI starts

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& wanted) {  // --help
    return runtime.rank() == 0 ? app.exit(wanted) : 0;
  } catch (const CLI::ParseError& error) {
    throw ConfigError(fmt::format("{}; see `sage --help`", error.what()));
  }

  if (version) {
    if (runtime.rank() == 0) fmt::print("{}", version_text());
    return 0;
  }
  for (TrainCommand* one : {&train, &crest}) {
    if (!*one->command) continue;
    one->options.command_line.assign(argv, argv + argc);
    const ConfigSource source = one->arguments.source(one->is_crest);
    return naming_flags(source, [&] {
      ConfigArguments::check_pretrained(source);
      return train_command_main(runtime, source, one->options);
    });
  }
  if (*select_command) {
    select.command_line.assign(argv, argv + argc);
    const ConfigSource source = select_arguments.source();
    return naming_flags(source, [&] {
      ConfigArguments::check_pretrained(source);
      return select_command_main(runtime, source, select);
    });
  }
  if (*evaluate_command) return evaluate_command_main(runtime, checkpoint, evaluate_overrides);
  if (*features_command) return features_command_main(runtime, features);
  if (*data_command) {
    if (runtime.size() > 1) throw ConfigError("`sage data` works alone: start it without mpirun or srun");
    return run_data_command(data_command->get_subcommands().front()->get_name(), data);
  }
  for (const ShowCommand* one : {&show_train, &show_crest, &show_select, &show}) {
    if (!*one->command) continue;
    const ConfigSource source = one->arguments.source(one->is_crest);
    const std::string yaml = to_yaml(resolve_config(source, one->resume));
    if (runtime.rank() == 0) fmt::print("{}", yaml);
    return 0;
  }
  if (*config_list && runtime.rank() == 0) show_keys();
  if (app.get_subcommands().empty() && runtime.rank() == 0) fmt::print("{}", app.help());
  return 0;
}

}  // namespace sage
