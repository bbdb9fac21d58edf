#include "launch/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "core/config.h"
#include "core/error.h"
#include "launch/data_commands.h"
#include "launch/standalone.h"
#include "launch/version.h"
#include "training/commands.h"
#include "training/features.h"

namespace sage {
namespace {

/// `train CONFIG.yaml a.b=1` and `train a.b=1`: a first argument with a `=` is an override already.
ConfigSource to_source(const std::vector<std::string>& arguments) {
  const bool has_file = !arguments.empty() && (arguments.front().find('=') == std::string::npos ||
                                               std::filesystem::is_regular_file(arguments.front()));
  if (!has_file) return {"", arguments};
  return {arguments.front(), {arguments.begin() + 1, arguments.end()}};
}

void add_config_arguments(CLI::App* command, std::vector<std::string>& arguments) {
  command->add_option("config", arguments, "CONFIG.yaml, then any number of key=value (see `sage config list`)");
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

  std::vector<std::string> arguments;
  TrainOptions train;
  auto* train_command = app.add_subcommand("train", "train on what is selected, and leave a run folder");
  add_config_arguments(train_command, arguments);
  train_command->add_option("--resume", train.resume,
                            "go on from a run folder (its newest whole checkpoint) or a checkpoint");
  train_command->add_flag("--overwrite", train.overwrite, "replace the run that output_dir holds");
  train_command->add_flag("--profile", train.profile, "write a trace of the phases for each rank (output.profile)");
  train_command->add_flag("--dry-run", train.dry_run, "print the plan (sizes, shards, steps, memory) and stop");

  std::string checkpoint;
  bool overwrite = false, profile = false;
  auto* select_command = app.add_subcommand("select", "only choose: write ids, scores and classes for any trainer");
  add_config_arguments(select_command, arguments);
  select_command->add_option("--checkpoint", checkpoint, "weights of the network that scores");
  select_command->add_flag("--overwrite", overwrite, "replace the run that output_dir holds");
  select_command->add_flag("--profile", profile, "write a trace of the phases for each rank (output.profile)");

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
  for (const char* verb : {"verify", "info", "fetch"}) {
    const bool fetch = std::string_view(verb) == "fetch";
    auto* command =
        data_command->add_subcommand(verb, std::string_view(verb) == "verify" ? "read every record and check it"
                                           : fetch ? "download the official files, with checksums"
                                                   : "sizes, classes, mean and deviation");
    command->add_option("name", data.name, "data set, for example cifar10")->required();
    command->add_option("--path", data.path, fetch ? "where its folder is made" : "its folder, or the folder above it");
    command->add_option("--labels", data.labels, "cifar100: fine or coarse");
    command->add_flag("--allow-partial", data.allow_partial, "accept fewer records than the official files hold");
    if (fetch) command->add_option("--url", data.url, "mirror to download from (file:// works)");
  }

  auto* config_command = app.add_subcommand("config", "show configurations and keys");
  config_command->require_subcommand(1);
  auto* config_show = config_command->add_subcommand("show", "the resolved configuration as YAML");
  add_config_arguments(config_show, arguments);
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
  if (*train_command) {
    train.command_line.assign(argv, argv + argc);
    return train_command_main(runtime, to_source(arguments), train);
  }
  if (*select_command) {
    return select_command_main(runtime, to_source(arguments), {checkpoint, overwrite, profile, {argv, argv + argc}});
  }
  if (*evaluate_command) return evaluate_command_main(runtime, checkpoint, evaluate_overrides);
  if (*features_command) return features_command_main(runtime, features);
  if (*data_command) {
    if (runtime.size() > 1) throw ConfigError("`sage data` works alone: start it without mpirun or srun");
    return run_data_command(data_command->get_subcommands().front()->get_name(), data);
  }
  if (*config_show && runtime.rank() == 0) fmt::print("{}", to_yaml(to_source(arguments).load()));
  if (*config_list && runtime.rank() == 0) show_keys();
  if (app.get_subcommands().empty() && runtime.rank() == 0) fmt::print("{}", app.help());
  return 0;
}

}  // namespace sage
