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
  std::string corrupt_kind = "symmetric";  // symmetric | pair
  struct Augment {
    std::int64_t crop = 0;  // reflect padding in pixels before a random crop; 0: none
    bool flip = false;
  } augment;
};

struct ModelConfig {
  std::string name = "cnn";
  std::int64_t width = 0;  // 0: the architecture's own
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
  std::string scoring = "agreement";  // agreement | gradient_norm
  std::string keep = "top";           // top | filter
  struct Filter {
    double drop = -1.0;  // fraction cut off, or -1: `auto`, found from the data
    double gate = 0.03;  // auto: no cut where the estimated noise is below this
  } filter;
  struct Sketch {
    std::string method = "fd";     // fd | random_projection
    std::int64_t size = 256;       // rows (ell); 0: `auto`
    double buffer = 2.0;           // buffer rows / size, 2 to 4
    double epsilon = 0.01;         // auto: grow while certificate > epsilon x squared norm of all gradients
    std::int64_t max_size = 1024;  // auto: never above
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
  std::string scores = "auto";           // cached | recomputed | auto
  std::int64_t memory_limit_mib = 4096;  // auto: cached below this, per rank
  std::int64_t shards = 0;               // 0: from N and the sketch size
  std::string compression = "auto";      // auto | cpu | gpu
  std::string scorer = "current";        // current | proxy
  struct Proxy {
    std::string model;  // empty: the same as model.name
    std::int64_t steps = 0;
  } proxy;
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
