#include "core/config_keys.h"

#include <algorithm>
#include <numeric>

#include "core/config_table.h"

namespace sage {
namespace {

using namespace config_table;

void add_general(Table& t, Config& c) {
  t.keys.push_back({"seed", "integer >= 0", "", "every random stream of the run derives from it", false,
                    [&c](const Scalars& s) { c.seed = parse_number<std::uint64_t>(s[0], {}, "an integer >= 0"); },
                    [&c] { return Json(c.seed); }});
  t.text("output_dir", c.output_dir, "the run folder itself; empty: runs/<data>_<model>_<method>_seed<seed>");
  t.choice("device.type", c.device.type, {"auto", "cpu", "cuda"},
           "where to compute; auto: cuda where there is a GPU. `device: cuda` is short for it");
  t.flag("device.allow_sharing", c.device.allow_sharing, "let several ranks use one GPU (NCCL >= 2.30)");
  t.integer("device.threads", c.device.threads, {0, 1024}, "threads",
            "compute threads of a rank; 0: cores of the node / ranks on it");
}

void add_distributed(Table& t, DistributedConfig& c) {
  t.number("distributed.deadline_seconds", c.deadline_seconds, {.low = 0, .high = 86400, .above_low = true}, "s",
           "a collective that a rank waits in for longer ends the job; longer than the longest time that ranks may be "
           "apart (rank 0 writing a checkpoint, a slow disk)");
  t.integer("distributed.agreement_interval", c.agreement_interval, {1, 1e6}, "steps",
            "steps between two agreements of all ranks on signals (SIGTERM, SIGUSR1)");
  t.integer("distributed.hash_interval", c.hash_interval, {0, 1e9}, "steps",
            "steps between comparisons of all ranks' parameters, by hash; 0: never");
}

void add_data(Table& t, DataConfig& c) {
  t.text(
      "data.name", c.name,
      "data set: digits, mnist, fashion_mnist, cifar10, cifar100, tiny_imagenet, imagenet, caltech256, image_folder");
  t.text("data.path", c.path,
         "folder of the data set, or the folder above it; empty: SAGE_DATA_DIR, then the user's cache");
  t.choice("data.labels", c.labels, {"fine", "coarse"}, "which labels of CIFAR-100");
  t.flag("data.allow_partial", c.allow_partial, "accept files that hold fewer records than the official ones");
  t.integer("data.workers", c.workers, {0, 64}, "threads",
            "threads of a rank that prepare batches; 0: the training thread does");
  t.integer("data.prefetch", c.prefetch, {1, 64}, "batches", "batches that the workers prepare ahead");
  t.flag("data.share_on_node", c.share_on_node,
         "keep the images once in the memory of a node, whatever the number of ranks on it");
  t.number("data.validation_fraction", c.validation_fraction, {.low = 0, .high = 1, .below_high = true}, "",
           "part of the training split held out, class by class, to choose the best model; 0: the test split is "
           "evaluated and nothing is chosen by it but best_model");
  t.number("data.corrupt_labels", c.corrupt_labels, {0, 1}, "",
           "part of the training labels that is made wrong, for robustness experiments");
  t.choice("data.corrupt_kind", c.corrupt_kind, {"symmetric", "pair", "human"},
           "wrong labels: any other class, the next class, or those of people (data.human_labels)");
  t.text("data.human_labels", c.human_labels,
         "human: file of labels, one byte for each training example in the official order (CIFAR-N)");
  t.number("data.minority_downsample", c.minority_downsample, {.low = 0, .high = 1, .below_high = true}, "",
           "probability with which each example of the smaller half of the classes is dropped");
  t.number("data.long_tail", c.long_tail, {.low = 0, .high = 1, .above_low = true}, "",
           "examples of the smallest class / of the largest, falling exponentially between them; 1: as they are");
  t.integer("data.image_size", c.image_size, {0, 4096}, "pixels",
            "side of the square that images of a folder are brought to; 0: the data set's own (64 for tiny_imagenet, "
            "224 for the others)");
  t.text("data.packed", c.packed, "a file that `sage data pack` wrote, read in place of the folder");
  t.choice("data.corrupt_images", c.corrupt_images, {"fatal", "skip"},
           "an image that does not decode ends the run, or is left out, named and counted");
  t.integer("data.augment.crop", c.augment.crop, {0, 64}, "pixels",
            "reflect padding before a random crop to the original size; 0: none");
  t.flag("data.augment.flip", c.augment.flip, "flip half of the training images left to right");
  t.flag("data.augment.random_resized_crop", c.augment.random_resized_crop,
         "a random part of the image, of random aspect ratio, brought to the image's size");
  t.number("data.augment.min_scale", c.augment.min_scale, {.low = 0, .high = 1, .above_low = true}, "",
           "random_resized_crop: smallest part of the image's area");
  t.integer("data.augment.randaugment", c.augment.randaugment, {0, 16}, "operations",
            "RandAugment: operations for each image; 0: none");
  t.number("data.augment.randaugment_magnitude", c.augment.randaugment_magnitude, {0, 30}, "of 30",
           "RandAugment: strength of the operations");
  t.number("data.augment.erasing", c.augment.erasing, {0, 1}, "", "probability that a rectangle of an image is erased");
  t.flag("data.augment.cutmix.enabled", c.augment.cutmix.enabled,
         "paste a rectangle of another image of the batch, and mix the labels by area");
  t.number("data.augment.cutmix.alpha", c.augment.cutmix.alpha, above(0), "", "cutmix: of the Beta distribution");
  t.number("data.augment.cutmix.probability", c.augment.cutmix.probability, {0, 1}, "",
           "cutmix: of a batch being mixed");
  t.flag("data.augment.mixup.enabled", c.augment.mixup.enabled, "mix pairs of images of the batch, and their labels");
  t.number("data.augment.mixup.alpha", c.augment.mixup.alpha, above(0), "", "mixup: of the Beta distribution");
  t.number("data.augment.mixup.probability", c.augment.mixup.probability, {0, 1}, "", "mixup: of a batch being mixed");
}

void add_model(Table& t, ModelConfig& c) {
  t.text("model.name", c.name,
         "network: cnn, mlp, resnet20, resnet18, resnet34, resnet50, resnext50_32x4d, resnext29_32x4d (alias resnext), "
         "resnext29_2x64d, resnext29_4x64d, resnext29_8x64d, mobilenet_v2, efficientnet_b0, vit_b_16, vit_tiny");
  t.integer("model.width", c.width, at_least(0), "units", "features of cnn and mlp; 0: the network's own");
  t.choice("model.stem", c.stem, {"auto", "cifar", "imagenet"},
           "first layers of resnet18 to resnext50_32x4d, mobilenet_v2 and efficientnet_b0. cifar: 3x3 of stride 1, no "
           "pooling; imagenet: torchvision's; auto: cifar for residual networks on images under 96 pixels");
  t.text("model.pretrained", c.pretrained,
         "safetensors file of weights that the run's network starts from (a proxy never does), with torchvision's "
         "names; a classifier for another number of classes is left out");
}

void add_training(Table& t, TrainingConfig& c) {
  t.integer("training.epochs", c.epochs, {1, 1e6}, "epochs", "passes over the examples that are trained on");
  t.integer("training.steps", c.steps, {0, 1e8}, "steps", "above 0: train for so many steps, whatever epochs says");
  t.integer("training.batch_size", c.batch_size, {1, 1e9}, "examples", "global batch, split over the ranks");
  t.integer("training.batch_size_per_rank", c.batch_size_per_rank, {0, 1e8}, "examples",
            "above 0: the global batch is this times the number of ranks");
  t.choice("training.optimizer", c.optimizer, {"sgd", "adam", "adamw"}, "optimizer");
  t.number("training.lr", c.lr, above(0), "", "learning rate after warm-up");
  t.number("training.momentum", c.momentum, {.low = 0, .high = 1, .below_high = true}, "", "momentum of sgd");
  t.flag("training.nesterov", c.nesterov, "Nesterov momentum for sgd");
  t.number("training.weight_decay", c.weight_decay, at_least(0), "", "L2 penalty (sgd, adam) or decay (adamw)");
  t.number("training.beta1", c.beta1, {.low = 0, .high = 1, .below_high = true}, "", "adam: decay of the first moment");
  t.number("training.beta2", c.beta2, {.low = 0, .high = 1, .below_high = true}, "",
           "adam: decay of the second moment");
  t.number("training.epsilon", c.epsilon, above(0), "", "adam: added to the denominator");
  t.choice("training.scheduler", c.scheduler, {"cosine", "step", "multistep", "constant"}, "learning rate over time");
  t.number("training.lr_warmup_epochs", c.lr_warmup_epochs, at_least(0), "epochs",
           "linear warm-up of the learning rate");
  t.number("training.min_lr", c.min_lr, at_least(0), "", "where cosine ends");
  t.integer("training.step_size", c.step_size, {1, 1e6}, "epochs", "step: epochs between two decays");
  t.integers("training.milestones", c.milestones, at_least(1), "epochs", "multistep: when to decay");
  t.number("training.gamma", c.gamma, {.low = 0, .high = 1, .above_low = true}, "",
           "step, multistep: factor of a decay");
  t.number("training.label_smoothing", c.label_smoothing, {.low = 0, .high = 1, .below_high = true}, "",
           "mass of the target spread over all classes");
  t.choice("training.loss", c.loss, {"cross_entropy", "focal", "class_balanced_focal", "ldam"}, "what is minimised");
  t.number("training.focal_gamma", c.focal_gamma, at_least(0), "", "focal losses: exponent of 1 - p");
  t.number("training.class_balance_beta", c.class_balance_beta, {.low = 0, .high = 1, .below_high = true}, "",
           "class_balanced_focal: class c weighs (1 - beta) / (1 - beta^n_c)");
  t.number("training.ldam_margin", c.ldam_margin, above(0), "", "ldam: margin of the smallest class");
  t.choice("training.lr_scaling", c.lr_scaling, {"none", "linear", "sqrt"},
           "multiply the learning rate by the number of ranks, or its square root");
  t.flag("training.sync_batch_norm", c.sync_batch_norm, "batch statistics over all ranks");
  t.flag("training.channels_last", c.channels_last, "memory order that convolutions prefer");
  t.choice(
      "training.precision", c.precision, {"float32", "bf16", "fp16"},
      "of matrix products and convolutions in training steps and evaluation (autocast; weights stay float32); fp16 "
      "only on cuda, with a loss scaler");
  t.number("training.loss_scale", c.loss_scale, {.low = 1, .high = 16777216}, "", "fp16: where the loss scaler starts");
  t.number("training.clip_norm", c.clip_norm, at_least(0), "",
           "above 0: gradients of a larger Euclidean norm (over all parameters) are scaled down to it");
  t.integer("training.accumulate", c.accumulate, {1, 65536}, "passes",
            "forward and backward passes that the batch of a step is split into, to fit into memory");
  t.flag("training.cuda_graph", c.cuda_graph, "record the training step once as a CUDA graph and replay it (one rank)");
  t.choice("training.non_finite", c.non_finite, {"skip", "stop"},
           "what a loss or gradient that is not finite does: all ranks skip the step and count it, or stop at once");
  t.integer("training.non_finite_limit", c.non_finite_limit, {1, 1e6}, "steps",
            "skip: stop after so many skipped steps in a row");
  t.flag("training.reinitialize_after_selection", c.reinitialize_after_selection,
         "start from fresh weights after the first selection, so that no method profits from a warm-up");
  t.integer("training.evaluate_interval", c.evaluate_interval, at_least(1), "epochs", "epochs between evaluations");
  t.integer("training.bucket_mib", c.bucket_mib, {1, 1024}, "MiB", "gradients that are reduced together");
}

void add_selection(Table& t, SelectionConfig& c) {
  t.text("selection.method", c.method,
         "how examples are chosen: sage, random, full, uncertainty, diversity (k_center), gradmatch, craig, glister, "
         "el2n, grand, forgetting, herding, submodular, ccs, crest");
  t.number("selection.fraction", c.fraction, {.low = 0, .high = 1, .above_low = true}, "", "part of the examples kept");
  t.flag("selection.per_class", c.per_class, "a consensus and a quota for each class, or one for all");
  t.choice("selection.scoring", c.scoring, {"agreement", "gradient_norm"},
           "score: cosine of projected gradient and consensus, or the gradient's norm");
  t.choice(
      "selection.keep", c.keep, {"top", "filter", "coverage"},
      "keep the highest scores (the paper), or cut off the disagreeing tail and draw class-balanced from the rest: "
      "at random, or so that what is drawn covers it");
  t.choice("selection.coverage", c.coverage, {"stratified", "farthest_first", "facility_location"},
           "coverage: evenly over the scores, or by the directions of projected gradients");
  t.integer("selection.clusters", c.clusters, {1, 256}, "directions",
            "consensus directions of each class (spherical k-means); agreement is with the nearest");
  t.number_or_auto("selection.filter.drop", c.filter.drop, {.low = 0, .high = 1, .below_high = true}, "",
                   "filter, coverage: part that is cut off; auto: found from the data by counting doubtful labels");
  t.number("selection.filter.gate", c.filter.gate, {0, 1}, "",
           "filter: auto cuts nothing where the estimated part of wrong labels is below this");
  t.choice(
      "selection.filter.count", c.filter.count, {"either", "chance", "confident"},
      "auto: doubtful is a label less probable than 1 / classes (chance), one that confident counting contradicts, or "
      "either");
  t.choice(
      "selection.filter.by", c.filter.by, {"agreement", "small_loss", "confident_learning"},
      "which labels of a class are cut off: those of the lowest score, the largest loss, or the lowest margin over "
      "another class");
  t.choice("selection.sketch.method", c.sketch.method, {"fd", "random_projection"},
           "Frequent Directions or a random projection");
  t.integer_or_auto("selection.sketch.size", c.sketch.size, {2, 65536}, "rows",
                    "rows of the sketch (ell); auto: grows until the certificate is below sketch.epsilon");
  t.number("selection.sketch.alpha", c.sketch.alpha, {.low = 0, .high = 1, .above_low = true}, "",
           "part of the sketch's rows that shrinking takes from, the lowest (alpha-FD); 1: all, plain Frequent "
           "Directions");
  t.number("selection.sketch.buffer", c.sketch.buffer, {2, 4}, "x size",
           "rows of the sketch's buffer: more is more accurate and takes more memory");
  t.number("selection.sketch.epsilon", c.sketch.epsilon, {.low = 0, .high = 1, .above_low = true}, "",
           "auto: largest error bound, as part of the squared norm of all gradients");
  t.integer("selection.sketch.max_size", c.sketch.max_size, {2, 65536}, "rows", "auto: never more rows than this");
  t.choice("selection.sketch.projection", c.sketch.projection, {"gaussian", "rademacher", "sparse"},
           "random_projection: entries normal, +-1, or mostly 0 and else +-1, brought to the same variance");
  t.number_or_auto("selection.sketch.density", c.sketch.density, {.low = 0, .high = 1, .above_low = true}, "",
                   "sparse: part of the entries that is not 0 (Achlioptas: 0.3333); auto: 1 / sqrt(D)");
  t.choice("selection.sketch.projection_precision", c.sketch.projection_precision, {"float32", "bf16"},
           "of the products S g (rows, Gram matrices and sketches stay float32)");
  t.texts("selection.gradient.scope", c.gradient.scope,
          "whose gradients: classifier (last layer), full, or patterns of parameter names");
  t.integer("selection.gradient.chunk_size", c.gradient.chunk_size, {1, 1e6}, "examples",
            "examples whose gradients are computed together");
  t.integer("selection.batch_size", c.batch_size, {1, 1e6}, "examples", "examples in a forward pass of selection");
  t.choice("selection.mode", c.mode, {"iterative", "single", "none"},
           "select again every refresh_epochs, select once, or train on everything");
  t.flag("selection.no_warmup", c.no_warmup, "select before the first epoch");
  t.integer("selection.warmup_epochs", c.warmup_epochs, {0, 1e6}, "epochs", "epochs on all data before selecting");
  t.integer("selection.refresh_epochs", c.refresh_epochs, {1, 1e6}, "epochs", "epochs between selections");
  t.choice("selection.scores", c.scores, {"auto", "cached", "recomputed"},
           "keep projected gradients between the passes, or compute them again in constant memory");
  t.choice("selection.cache_precision", c.cache_precision, {"float32", "bf16"},
           "of the features or projected gradients that are kept between the passes");
  t.integer("selection.memory_limit_mib", c.memory_limit_mib, {1, 1e9}, "MiB",
            "auto: cached where what is kept per rank stays below this; craig, submodular: the largest kernel");
  t.integer("selection.shards", c.shards, {0, 65536}, "shards",
            "logical shards that are sketched apart (a power of two); 0: from the number of examples and the sketch "
            "size. Fixes the result whatever the number of ranks");
  t.choice("selection.compression", c.compression, {"auto", "cpu", "gpu"}, "where sketches are kept and shrunk");
  t.choice("selection.scorer", c.scorer, {"current", "proxy"},
           "which network scores: the one in training, or one trained on all data for proxy.steps");
  t.text("selection.proxy.model", c.proxy.model, "proxy: its network; empty: the same as model.name");
  t.integer("selection.proxy.steps", c.proxy.steps, {0, 1e8}, "steps", "proxy: training steps on all data");
  t.choice("selection.uncertainty.score", c.uncertainty.score, {"least_confidence", "entropy", "margin"},
           "uncertainty: what is sorted by");
  t.number("selection.gradmatch.lambda", c.gradmatch.lambda, at_least(0), "", "gradmatch: weight of ||w||^2");
  t.number("selection.gradmatch.tolerance", c.gradmatch.tolerance, at_least(0), "",
           "gradmatch: stop where the squared residual falls below this part of the squared target");
  t.integer("selection.gradmatch.batch", c.gradmatch.batch, {1, 1e6}, "examples",
            "gradmatch: above 1, random mini-batches of so many are chosen whole and share a weight (GradMatch-PB)");
  t.choice("selection.craig.features", c.craig.features, {"residual", "gradient"},
           "craig: distances between softmax - onehot, or between gradients of the classifier");
  t.number("selection.glister.step", c.glister.step, above(0), "",
           "glister: length of the step along the mean gradient of those chosen so far");
  t.choice("selection.submodular.function", c.submodular.function, {"facility_location", "graph_cut"},
           "submodular: what is maximised");
  t.choice("selection.submodular.features", c.submodular.features, {"feature", "gradient"},
           "submodular: cosine similarity of features, or of gradients of the classifier");
  t.number("selection.submodular.graph_cut_lambda", c.submodular.graph_cut_lambda, at_least(0), "",
           "graph_cut: weight of the similarity among those chosen");
  t.number("selection.ccs.hardest", c.ccs.hardest, {.low = 0, .high = 1, .below_high = true}, "",
           "ccs: part of the candidates, the hardest, that is dropped first (beta)");
  t.integer("selection.ccs.strata", c.ccs.strata, {1, 100000}, "bins", "ccs: bins of equal width over the scores");
  t.choice("selection.ccs.score", c.ccs.score, {"el2n", "grand", "forgetting"}, "ccs: what difficulty is");
  t.integer("selection.early.models", c.early.models, {1, 100}, "networks",
            "el2n, grand with scorer=proxy: networks of different seeds that the score is averaged over");
}

void add_crest(Table& t, SelectionConfig::Crest& c) {
  t.number("selection.crest.train_fraction", c.train_fraction, {.low = 0, .high = 1, .above_low = true}, "",
           "crest: training steps, as a part of those of full training");
  t.number("selection.crest.check_threshold", c.check_threshold, above(0), "x loss",
           "crest: select again where the quadratic model is off by more than this part of the loss (tau)");
  t.number("selection.crest.interval_factor", c.interval_factor, above(0), "",
           "crest: steps between checks are this times ||H_0|| / ||H_t|| (h)");
  t.number("selection.crest.subset_factor", c.subset_factor, above(0), "",
           "crest: random sets of a selection are this times the steps between checks (b)");
  t.number("selection.crest.random_set", c.random_set, {.low = 0, .high = 1, .above_low = true}, "",
           "crest: size of a random set, as a part of the examples (r)");
  t.flag("selection.crest.drop_learned", c.drop_learned, "crest: leave learned examples out of selections");
  t.number("selection.crest.learned_loss", c.learned_loss, at_least(0), "",
           "crest: an example whose losses are all at or below this is learned (alpha)");
  t.integer("selection.crest.drop_interval", c.drop_interval, at_least(1), "steps",
            "crest: steps between exclusions of learned examples (T2)");
  t.number(
      "selection.crest.min_remaining", c.min_remaining, {0, 1}, "",
      "crest: part of the examples that is never excluded; of each class never fewer than a random set takes of it");
  t.choice("selection.crest.greedy", c.greedy, {"lazy", "stochastic"},
           "crest: how facility location is maximised; stochastic: among 2.3 n / k candidates drawn at each step "
           "(epsilon 0.1)");
  t.choice(
      "selection.crest.compat", c.compat, {"paper", "release"},
      "crest: as in the paper, or as in the authors' released code where the two differ (training/crest/README.md)");
  t.choice("selection.crest.hessian", c.hessian, {"auto", "double_backward", "forward_over_reverse"},
           "crest: how Hessian-vector products are computed; auto: double_backward");
}

void add_dropout(Table& t, DropoutConfig& c) {
  t.choice("dropout.mode", c.mode, {"none", "dbpd", "smrd", "srd", "psmrd", "apd", "infobatch"},
           "progressive data dropout: which examples of each batch are trained on");
  t.integer("dropout.start_revision", c.start_revision, {-1, 1e6}, "epoch",
            "epoch (from 0) from which on everything is trained on; -1: the last one (infobatch: by dropout.anneal)");
  t.number("dropout.threshold", c.threshold, {.low = 0, .high = 1, .below_high = true}, "",
           "an example is hard where the probability of its class is below this; 0: where it is misclassified");
  t.choice("dropout.hard_rule", c.hard_rule, {"auto", "true_class", "either"},
           "hard by the threshold alone, or also where misclassified; auto: either for psmrd and apd, else true_class");
  t.choice("dropout.score_in", c.score_in, {"eval", "train"},
           "mode of the scoring forward pass (train moves the batch statistics, as the published code does)");
  t.choice("dropout.score_precision", c.score_precision, {"auto", "float32", "bf16"},
           "of the scoring forward pass; auto: training.precision");
  t.number("dropout.gamma", c.gamma, {.low = 0, .high = 1, .above_low = true}, "",
           "srd: the part gamma^epoch of each batch is kept");
  t.choice("dropout.quota", c.quota, {"proportional", "none"},
           "psmrd: split the batch's budget over its classes, or take each class's hard examples");
  t.number("dropout.ema_alpha", c.ema_alpha, {.low = 0, .high = 1, .above_low = true}, "",
           "apd: weight of an epoch's measured difficulty");
  t.number("dropout.epsilon", c.epsilon, above(0), "", "apd: added to the difficulty of a class");
  t.flag("dropout.accumulate_kept", c.accumulate_kept,
         "gather what several batches keep into full training batches, which are dealt out evenly");
  t.choice("dropout.balance", c.balance, {"weight", "redistribute"},
           "ranks that keep different numbers: weigh their losses, or give each as many examples");
  t.number("dropout.prune", c.prune, {.low = 0, .high = 1, .below_high = true}, "",
           "infobatch: probability of leaving out an example of less than the mean loss");
  t.number("dropout.anneal", c.anneal, {0, 1}, "", "infobatch: part of the epochs, the last, that use everything");
}

void add_output(Table& t, OutputConfig& c) {
  t.flag("output.tensorboard", c.tensorboard, "write TensorBoard event files");
  t.integer("output.log_interval", c.log_interval, at_least(1), "steps", "steps between lines in a batch log");
  t.integer("output.save_interval", c.save_interval, at_least(1), "epochs", "epochs between checkpoints");
  t.number("output.save_minutes", c.save_minutes, at_least(0), "minutes",
           "above 0: also a checkpoint inside an epoch where the last one is so old");
  t.integer("output.save_steps", c.save_steps, {0, 1e9}, "steps", "above 0: also a checkpoint every so many steps");
  t.integer("output.keep_checkpoints", c.keep_checkpoints, {2, 1e6}, "files",
            "newest checkpoints that are kept; older ones are removed");
  t.flag("output.profile", c.profile, "write a trace of the phases for chrome://tracing or Perfetto, for each rank");
  t.integer("output.profile_steps", c.profile_steps, {1, 1e6}, "steps",
            "training steps in the trace; as many of proxies");
}

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

}  // namespace

std::vector<ConfigKey> config_keys(Config& config) {
  Table table;
  add_general(table, config);
  add_distributed(table, config.distributed);
  add_data(table, config.data);
  add_model(table, config.model);
  add_training(table, config.training);
  add_selection(table, config.selection);
  add_crest(table, config.selection.crest);
  add_dropout(table, config.dropout);
  add_output(table, config.output);
  return table.keys;
}

std::string nearest_name(const std::string& name, const std::vector<std::string>& names) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(3, name.size() / 2);
  for (const auto& candidate : names) {
    // A bare last part (`lr`) is nearest to the key that ends in it (`training.lr`).
    const std::string last = candidate.substr(candidate.rfind('.') + 1);
    std::size_t distance = std::min(edit_distance(name, candidate), edit_distance(name, last) + 1);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace sage
