// The table of flags. Sources: the README of SAGE's program, that of CREST, and the additions to Progressive Data
// Dropout; names, values and defaults are theirs.
#include "launch/flags.h"

namespace sage {
namespace {

using enum FlagValue;

constexpr std::string_view data = "Dataset Options", selection = selection_group, modes = selection_mode_group,
                           training = "Training Hyperparameters", augmentation = "Training Augmentation",
                           logging = "Logging & Monitoring", advanced = "Advanced Options", crest = "CREST Options",
                           dropout = "Progressive Data Dropout Options";

std::vector<Flag> dataset_flags() {
  return {
      {"dataset",
       data,
       required,
       {{"data.name", "$"}},
       {{"tinyimagenet", {{"data.name", "tiny_imagenet"}}}},
       "data set: cifar10, cifar100, tiny_imagenet, imagenet, ... (data.name)"},
      {"data_path", data, required, {{"data.path", "$"}}, {}, "its folder, or the folder above it (data.path)"},
      {"data_dir", data, required, {{"data.path", "$"}}, {}, "the same"},
      {"long_tail",
       data,
       none,
       {{"data.long_tail", "0.01"}},
       {},
       "classes fall exponentially to a hundredth of the largest (data.long_tail=0.01)"},
  };
}

std::vector<Flag> selection_flags() {
  return {
      {"per_class",
       selection,
       none,
       {{"selection.per_class", "true"}},
       {},
       "a consensus and a quota for each class (selection.per_class=true)"},
      {"subset_fraction",
       selection,
       required,
       {{"selection.fraction", "$"}},
       {},
       "part of the examples kept (selection.fraction)"},
      {"sketch_size",
       selection,
       required,
       {{"selection.sketch.size", "$"}},
       {},
       "rows of the Frequent Directions sketch (selection.sketch.size)"},
      {"selection_method",
       selection,
       required,
       {{"selection.method", "$"}},
       {},
       "sage, gradmatch, random, uncertainty, diversity, crest, ... (selection.method)"},
      {"fd_method",
       selection,
       required,
       {{"selection.sketch.method", "$"}},
       {},
       "fd or random_projection (selection.sketch.method)"},
      {"scoring_method",
       selection,
       required,
       {{"selection.scoring", "$"}},
       {},
       "agreement or gradient_norm (selection.scoring)"},
  };
}

std::vector<Flag> mode_flags() {
  return {
      {"single_selection",
       modes,
       none,
       {{"selection.mode", "single"}},
       {},
       "select once, train to the end (selection.mode=single)"},
      {"no_warmup",
       modes,
       none,
       {{"selection.no_warmup", "true"}},
       {},
       "select before the first epoch (selection.no_warmup=true)"},
      {"no_selection", modes, none, {{"selection.mode", "none"}}, {}, "train on all data (selection.mode=none)"},
      {"warmup_epochs",
       modes,
       required,
       {{"selection.warmup_epochs", "$"}},
       {},
       "epochs on all data before the first selection (selection.warmup_epochs)"},
      {"refresh_epochs",
       modes,
       required,
       {{"selection.refresh_epochs", "$"}},
       {},
       "epochs between selections (selection.refresh_epochs)"},
  };
}

std::vector<Flag> training_flags() {
  const std::vector<FlagSetting> per_rank = {{"training.batch_size_per_rank", "$"}};
  return {
      {"model", training, required, {{"model.name", "$"}}, {}, "network, for example resnext (model.name)"},
      {"arch", training, required, {{"model.name", "$"}}, {}, "the same"},
      {"pretrained",
       training,
       optional,
       {{"model.pretrained", "$"}},
       {},
       "safetensors file of weights to start from; without a value weights/<model>.safetensors in the folder of the "
       "data sets (model.pretrained)"},
      {"epochs", training, required, {{"training.epochs", "$"}}, {}, "epochs (training.epochs)"},
      {"epoch", training, required, {{"training.epochs", "$"}}, {}, "the same"},
      {"batch_size",
       training,
       required,
       {{"training.batch_size", "$"}, {"training.batch_size_per_rank", "0"}},
       {},
       "examples in a step, over all ranks (training.batch_size); with --mode of each rank "
       "(training.batch_size_per_rank)",
       per_rank},
      {"lr", training, required, {{"training.lr", "$"}}, {}, "learning rate (training.lr)"},
      {"learning_rate", training, required, {{"training.lr", "$"}}, {}, "the same"},
      {"optimizer", training, required, {{"training.optimizer", "$"}}, {}, "sgd, adam or adamw (training.optimizer)"},
      {"scheduler",
       training,
       required,
       {},
       {{"cosine", {{"training.scheduler", "cosine"}}},
        {"step", {{"training.scheduler", "step"}}},
        {"none", {{"training.scheduler", "constant"}}}},
       "cosine, step or none (training.scheduler; none is constant)"},
      {"weight_decay", training, required, {{"training.weight_decay", "$"}}, {}, "(training.weight_decay)"},
      {"seed", training, required, {{"seed", "$"}}, {}, "of every random draw (seed)"},
  };
}

std::vector<Flag> augmentation_flags() {
  return {
      {"cutmix",
       augmentation,
       none,
       {{"data.augment.cutmix.enabled", "true"}},
       {},
       "mix images and labels by rectangles (data.augment.cutmix.enabled=true)"},
      {"cutmix_alpha",
       augmentation,
       required,
       {{"data.augment.cutmix.alpha", "$"}},
       {},
       "of the Beta distribution (data.augment.cutmix.alpha)"},
      {"cutmix_prob",
       augmentation,
       required,
       {{"data.augment.cutmix.probability", "$"}},
       {},
       "of a batch being mixed (data.augment.cutmix.probability)"},
  };
}

std::vector<Flag> logging_flags() {
  return {
      {"output_dir", logging, required, {{"output_dir", "$"}}, {}, "the run folder (output_dir)"},
      {"save_path", logging, required, {{"output_dir", "$"}}, {}, "the same"},
      {"tensorboard",
       logging,
       none,
       {{"output.tensorboard", "true"}},
       {},
       "write TensorBoard event files (output.tensorboard=true, the default)"},
      {"log_interval",
       logging,
       required,
       {{"output.log_interval", "$"}},
       {},
       "steps between lines in a batch log (output.log_interval)"},
      {"save_interval",
       logging,
       required,
       {{"output.save_interval", "$"}},
       {},
       "epochs between checkpoints (output.save_interval)"},
  };
}

std::vector<Flag> advanced_flags() {
  return {
      {"compression_schedule",
       advanced,
       required,
       {{"selection.compression", "$"}},
       {},
       "cpu or gpu: where sketches are kept and shrunk (selection.compression)"},
      {"amp",
       advanced,
       none,
       {{"training.precision", "bf16"}},
       {},
       "16-bit matrix products and convolutions (training.precision=bf16)"},
      {"corrupt_labels",
       advanced,
       required,
       {{"data.corrupt_labels", "$"}},
       {},
       "part of the training labels made wrong (data.corrupt_labels)"},
      {"minority_downsample",
       advanced,
       required,
       {{"data.minority_downsample", "$"}},
       {},
       "probability of dropping an example of the smaller half of the classes (data.minority_downsample)"},
      {"batch_size_fd",
       advanced,
       required,
       {{"selection.batch_size", "$"}},
       {},
       "examples in a forward pass of the selection (selection.batch_size)"},
      {"chunk_size_grad",
       advanced,
       required,
       {{"selection.gradient.chunk_size", "$"}},
       {},
       "examples whose gradients are computed together (selection.gradient.chunk_size)"},
      {"device", advanced, required, {{"device.type", "$"}}, {}, "cuda, cpu or auto (device.type)"},
  };
}

std::vector<Flag> crest_flags() {
  return {
      // With another method under `sage crest` the same budget: a subset of this part in each epoch.
      {"train_frac",
       crest,
       required,
       {{"selection.crest.train_fraction", "$"}, {"selection.fraction", "$"}},
       {},
       "training steps, as a part of those of full training (selection.crest.train_fraction, selection.fraction)"},
      {"check_thresh_factor",
       crest,
       required,
       {{"selection.crest.check_threshold", "$"}},
       {},
       "select again where the model of the loss is off by more than this part (selection.crest.check_threshold)"},
  };
}

std::vector<Flag> dropout_flags() {
  const auto mode = [](std::string_view given, std::string_view value) {
    return FlagChoice{given, {{"dropout.mode", value}}};
  };
  return {
      {"mode",
       dropout,
       required,
       {},
       {mode("baseline", "none"), mode("train_with_revision", "dbpd"), mode("train_with_random", "smrd"),
        mode("train_with_percentage", "srd"), mode("train_with_stratified", "psmrd"),
        mode("train_with_adaptive_dropout", "apd"), mode("dbpd", "dbpd"), mode("smrd", "smrd"), mode("srd", "srd"),
        mode("psmrd", "psmrd"), mode("apd", "apd"), mode("infobatch", "infobatch"), mode("none", "none")},
       "baseline, train_with_revision (dbpd), train_with_random (smrd), train_with_percentage (srd), "
       "train_with_stratified (psmrd), train_with_adaptive_dropout (apd), infobatch (dropout.mode)"},
      {"task",
       dropout,
       required,
       {},
       {{"classification", {{"training.loss", "cross_entropy"}}},
        {"longtail", {{"training.loss", "class_balanced_focal"}}}},
       "classification, or longtail: class-balanced focal loss (training.loss)"},
      {"start_revision",
       dropout,
       required,
       {{"dropout.start_revision", "$"}},
       {},
       "epoch from which on everything is trained on (dropout.start_revision)"},
      {"threshold",
       dropout,
       required,
       {{"dropout.threshold", "$"}},
       {},
       "hard is what has less probability of its class (dropout.threshold)"},
      {"ema_alpha",
       dropout,
       required,
       {{"dropout.ema_alpha", "$"}},
       {},
       "apd: weight of an epoch's difficulty (dropout.ema_alpha)"},
      {"epsilon",
       dropout,
       required,
       {{"dropout.epsilon", "$"}},
       {},
       "apd: added to the difficulty of a class (dropout.epsilon)"},
      {"scheduler_type",
       dropout,
       required,
       {},
       {{"step", {{"training.scheduler", "step"}, {"training.step_size", "1"}, {"training.gamma", "0.98"}}},
        {"cosine", {{"training.scheduler", "cosine"}}}},
       "step (x0.98 an epoch) or cosine (training.scheduler)"},
  };
}

std::vector<Flag> all_flags() {
  std::vector<Flag> all;
  for (auto group : {dataset_flags(), selection_flags(), mode_flags(), training_flags(), augmentation_flags(),
                     logging_flags(), advanced_flags(), crest_flags(), dropout_flags()}) {
    all.insert(all.end(), group.begin(), group.end());
  }
  return all;
}

}  // namespace

std::span<const Flag> config_flags() {
  static const std::vector<Flag> flags = all_flags();
  return flags;
}

}  // namespace sage
