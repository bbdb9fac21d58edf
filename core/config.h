// The whole configuration, with its defaults, on one page. core/config_keys.cpp gives every key its meaning, unit and
// range; core/config.cpp reads YAML and overrides into it. Names in YAML are the names here, with dots between levels.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace sage {

struct DeviceConfig {
  std::string type = "auto";   // auto | cpu | cuda; `device: cuda` is short for `device.type: cuda`
  bool allow_sharing = false;  // several ranks on one GPU
  std::int64_t threads = 0;    // compute threads per rank; 0: cores of the node / ranks on the node
};

struct DistributedConfig {
  double deadline_seconds = 600.0;      // a collective that takes longer ends the job
  std::int64_t agreement_interval = 1;  // steps between agreements on signals and failures
  std::int64_t hash_interval = 100;     // steps between comparisons of the parameters of all ranks; 0: never
};

struct DataConfig {
  std::string name = "digits";
  std::string path;             // empty: SAGE_DATA_DIR, then the user's cache
  std::string labels = "fine";  // fine | coarse (cifar100)
  bool allow_partial = false;
  std::int64_t workers = 1;   // loader threads per rank; 0: in the training thread
  std::int64_t prefetch = 2;  // batches prepared ahead by the workers
  bool share_on_node = true;  // ranks of a node hold the images once
  double validation_fraction = 0.0;
  double corrupt_labels = 0.0;
  std::string corrupt_kind = "symmetric";  // symmetric | pair | human
  std::string human_labels;                // human: file of labels, one byte for each training example
  double minority_downsample = 0.0;        // part of the examples of the smaller half of the classes that is dropped
  double long_tail = 1.0;                  // smallest class / largest class; 1: as they are
  std::int64_t image_size = 0;             // side that images of a folder are brought to; 0: the data set's own
  std::string packed;                      // file that `sage data pack` wrote, in place of the folder
  std::string corrupt_images = "fatal";    // fatal | skip
  struct Augment {
    std::int64_t crop = 0;  // reflect padding in pixels before a random crop; 0: none
    bool flip = false;
    bool random_resized_crop = false;
    double min_scale = 0.08;             // random_resized_crop: smallest part of the area
    std::int64_t randaugment = 0;        // operations for each image; 0: none
    double randaugment_magnitude = 9.0;  // of 30
    double erasing = 0.0;                // probability of erasing a rectangle
    struct CutMix {
      bool enabled = false;
      double alpha = 1.0;
      double probability = 0.5;  // of a batch
    } cutmix;
    struct MixUp {
      bool enabled = false;
      double alpha = 0.2;
      double probability = 1.0;
    } mixup;
  } augment;
};

struct ModelConfig {
  std::string name = "cnn";
  std::int64_t width = 0;       // 0: the architecture's own
  std::string stem = "auto";    // auto | cifar | imagenet
  std::string pretrained = {};  // safetensors file of weights to start from
};

struct TrainingConfig {
  std::int64_t epochs = 30;
  std::int64_t steps = 0;                // > 0 overrides epochs
  std::int64_t batch_size = 128;         // global
  std::int64_t batch_size_per_rank = 0;  // > 0: batch_size = this x ranks
  std::string optimizer = "sgd";         // sgd | adam | adamw
  double lr = 0.1;
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 5e-4;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  std::string scheduler = "cosine";  // cosine | step | multistep | constant
  double lr_warmup_epochs = 0.0;
  double min_lr = 0.0;
  std::int64_t step_size = 30;                // epochs (step)
  std::vector<std::int64_t> milestones = {};  // epochs (multistep)
  double gamma = 0.1;
  double label_smoothing = 0.0;
  std::string loss = "cross_entropy";  // cross_entropy | focal | class_balanced_focal | ldam
  double focal_gamma = 1.0;
  double class_balance_beta = 0.9999;
  double ldam_margin = 0.5;         // largest margin
  std::string lr_scaling = "none";  // none | linear | sqrt, by the number of ranks
  bool sync_batch_norm = true;
  bool channels_last = true;
  std::string precision = "float32";  // float32 | bf16 | fp16 (cuda, with a loss scaler)
  double loss_scale = 65536.0;        // fp16: where the scaler starts
  double clip_norm = 0.0;             // > 0: gradients are scaled down to this norm
  std::int64_t accumulate = 1;        // forward and backward passes that a step's batch is split into
  bool cuda_graph = false;            // record the step once and replay it (cuda)
  std::string non_finite = "skip";    // skip | stop
  std::int64_t non_finite_limit = 5;  // skip: stop after so many in a row
  bool reinitialize_after_selection = false;
  std::int64_t evaluate_interval = 1;  // epochs
  std::int64_t bucket_mib = 4;         // gradient all-reduce buckets
};

struct SelectionConfig {
  std::string method = "sage";  // names in selection/registry
  double fraction = 0.05;
  bool per_class = true;
  std::string scoring = "agreement";    // agreement | gradient_norm
  std::string keep = "top";             // top | filter | coverage
  std::string coverage = "stratified";  // stratified | farthest_first | facility_location
  std::int64_t clusters = 1;            // directions of a class; agreement is with the nearest
  struct Filter {
    double drop = -1.0;            // fraction cut off, or -1: `auto`, found from the data
    double gate = 0.05;            // auto: no cut where the estimated noise is below this
    std::string count = "either";  // auto: either | chance | confident
    std::string by = "agreement";  // agreement | small_loss | confident_learning: what is least trusted
  } filter;
  struct Sketch {
    std::string method = "fd";            // fd | random_projection
    std::int64_t size = 256;              // rows (ell); 0: `auto`
    double alpha = 1.0;                   // part of the rows that a shrink takes from, the lowest; 1: from all
    double buffer = 2.0;                  // buffer rows / size, 2 to 4
    double epsilon = 0.01;                // auto: grow while certificate > epsilon x squared norm of all gradients
    std::int64_t max_size = 1024;         // auto: never above
    std::string projection = "gaussian";  // random_projection: gaussian | rademacher | sparse
    double density = -1.0;                // sparse: part of the entries that is not 0, or -1: 1 / sqrt(D)
    std::string projection_precision = "float32";  // float32 | bf16: of S g alone
  } sketch;
  struct Gradient {
    std::vector<std::string> scope = {"classifier"};  // classifier | full | parameter-name patterns
    std::int64_t chunk_size = 32;
  } gradient;
  std::int64_t batch_size = 64;
  std::string mode = "iterative";  // iterative | single | none
  bool no_warmup = false;
  std::int64_t warmup_epochs = 10;
  std::int64_t refresh_epochs = 50;
  std::string scores = "auto";              // cached | recomputed | auto
  std::string cache_precision = "float32";  // float32 | bf16: of what is cached
  std::int64_t memory_limit_mib = 4096;     // auto: cached below this, per rank
  std::int64_t shards = 0;                  // 0: from N and the sketch size
  std::string compression = "auto";         // auto | cpu | gpu
  std::string scorer = "current";           // current | proxy
  struct Proxy {
    std::string model;  // empty: the same as model.name
    std::int64_t steps = 0;
  } proxy;
  struct Uncertainty {
    std::string score = "least_confidence";  // least_confidence | entropy | margin
  } uncertainty;
  struct GradMatch {
    double lambda = 0.5;      // weight of ||w||^2
    std::int64_t batch = 1;   // examples of an atom; above 1: random mini-batches are chosen whole
    double tolerance = 1e-4;  // stop where the squared residual is below this part of the squared target
  } gradmatch;
  struct Craig {
    std::string features = "residual";  // residual | gradient
  } craig;
  struct Glister {
    double step = 0.1;  // along the mean gradient of those chosen so far
  } glister;
  struct Submodular {
    std::string function = "facility_location";  // facility_location | graph_cut
    std::string features = "feature";            // feature | gradient
    double graph_cut_lambda = 0.5;
  } submodular;
  struct Ccs {
    double hardest = 0.1;        // part of the candidates, the hardest, that is dropped first
    std::int64_t strata = 50;    // bins of equal width over the scores
    std::string score = "el2n";  // el2n | grand | forgetting
  } ccs;
  struct Early {
    std::int64_t models = 1;  // el2n, grand: networks that the score is averaged over
  } early;
  struct Crest {
    double train_fraction = 0.1;   // part of the steps of full training
    double check_threshold = 0.1;  // tau
    double interval_factor = 1.0;  // h
    double subset_factor = 5.0;    // b: random sets for each step between checks
    double random_set = 0.01;      // r, as a part of the examples
    bool drop_learned = true;
    double learned_loss = 0.1;        // alpha
    std::int64_t drop_interval = 20;  // T2, steps
    double min_remaining = 0.8;       // floor of the remaining set, as a part of the examples
    std::string greedy = "lazy";      // lazy | stochastic
    std::string compat = "paper";     // paper | release
    std::string hessian = "auto";     // auto | double_backward | forward_over_reverse
  } crest;
};

/// Progressive data dropout: which examples of a batch are trained on.
struct DropoutConfig {
  std::string mode = "none";             // none | dbpd | smrd | srd | psmrd | apd | infobatch
  std::int64_t start_revision = -1;      // epoch from which on everything is trained on; -1: the last one
  double threshold = 0.3;                // 0: hard is what is misclassified
  std::string hard_rule = "auto";        // auto | true_class | either
  std::string score_in = "eval";         // eval | train
  std::string score_precision = "auto";  // auto (training.precision) | float32 | bf16
  double gamma = 0.95;                   // srd: kept part of epoch e is gamma^e
  std::string quota = "proportional";    // psmrd: proportional | none
  double ema_alpha = 0.1;                // apd
  double epsilon = 0.01;                 // apd
  bool accumulate_kept = false;          // gather what is kept into full training batches
  std::string balance = "weight";        // weight | redistribute: ranks that keep different numbers
  double prune = 0.5;                    // infobatch: probability
  double anneal = 0.125;                 // infobatch: part of the epochs, the last, that use everything
};

struct OutputConfig {
  bool tensorboard = true;
  std::int64_t log_interval = 50;   // steps
  std::int64_t save_interval = 10;  // epochs between checkpoints
  double save_minutes = 15.0;       // > 0: also a checkpoint inside an epoch after so long
  std::int64_t save_steps = 0;      // > 0: also a checkpoint every so many steps
  std::int64_t keep_checkpoints = 3;
  bool profile = false;              // write a trace of the phases
  std::int64_t profile_steps = 200;  // of so many training steps; everything else is always in it
};

struct Config {
  std::uint64_t seed = 0;
  std::string output_dir;  // empty: runs/<data>_<model>_<method>_<time>
  DeviceConfig device;
  DistributedConfig distributed;
  DataConfig data;
  ModelConfig model;
  TrainingConfig training;
  SelectionConfig selection;
  DropoutConfig dropout;
  OutputConfig output;
};

/// Defaults, then the YAML file (may be empty), then overrides `dotted.key=value` in order. Throws ConfigError naming
/// file, line and key, what was expected, and the nearest valid name for an unknown one.
Config load_config(const std::filesystem::path& yaml_file, std::span<const std::string> overrides);
/// The same from YAML text; `source` stands for the file in messages.
Config parse_config(const std::string& yaml_text, const std::string& source, std::span<const std::string> overrides);

/// The whole resolved configuration as YAML, readable by load_config.
std::string to_yaml(const Config& config);
/// As JSON text, nested as in YAML.
std::string to_json(const Config& config);

/// One row of `sage config list`.
struct ConfigKeyInfo {
  std::string name, type, default_value, unit, meaning;
};
std::vector<ConfigKeyInfo> list_config_keys();

}  // namespace sage
