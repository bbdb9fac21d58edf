// Every command line of the programs whose flags are taken over, and what it has to mean: the whole resolved
// configuration, so that a flag can neither be lost nor set something beside. `$x` stands for the values of a loop.
#include "launch/flags.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>

#include "core/error.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

using testing::contains;
using Texts = std::vector<std::string>;

Texts words_of(const std::string& line) {
  std::istringstream stream(line);
  Texts words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

/// What `sage train LINE` (or `sage crest LINE`) works with.
ConfigSource source_of(const std::string& line, bool is_crest = false) {
  CLI::App app("", "sage");
  CLI::App* command = app.add_subcommand(is_crest ? "crest" : "train", "");
  std::string resume;
  command->add_option("--resume", resume, "");
  const ConfigArguments arguments(*command, &resume);
  Texts words = words_of(line);
  words.insert(words.begin(), command->get_name());
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the end
  app.parse(words);
  return arguments.source(is_crest);
}

std::string resolved(const std::string& line, bool is_crest = false) {
  return to_yaml(source_of(line, is_crest).load());
}

/// `settings`: key=value, on top of the program's own defaults.
std::string expected(const Texts& base, const std::string& settings) {
  Texts all = base;
  for (const auto& word : words_of(settings)) all.push_back(word);
  return to_yaml(parse_config("", "expected", all));
}

std::string error_of(const std::string& line, bool is_crest = false) {
  return testing::message_of<ConfigError>([&] { source_of(line, is_crest).load(); });
}

struct Line {
  std::string arguments;
  std::string settings;
  Texts values = {""};  ///< of `$x`, in both
};

std::string with_value(std::string text, const std::string& value) {
  for (auto at = text.find("$x"); at != std::string::npos; at = text.find("$x")) text.replace(at, 2, value);
  return text;
}

void expect_all(const std::vector<Line>& lines, const Texts& base, bool is_crest = false) {
  for (const Line& line : lines) {
    for (const auto& value : line.values) {
      const std::string arguments = with_value(line.arguments, value);
      EXPECT_EQ(resolved(arguments, is_crest), expected(base, with_value(line.settings, value))) << arguments;
    }
  }
}

const Texts photos{"data.augment.crop=4", "data.augment.flip=true"};

Texts joined(const Texts& a, const Texts& b) {
  Texts both = a;
  both.insert(both.end(), b.begin(), b.end());
  return both;
}

const Texts sage_base = joined(
    photos, {"data.name=cifar100", "model.name=resnext29_32x4d", "training.epochs=200", "output.save_interval=20"});

TEST(Flags, EveryLineOfSagesReadme) {
  expect_all(
      {
          // Scaling experiments
          {"--subset_fraction $x --output_dir results/frac_$x",
           "selection.fraction=$x output_dir=results/frac_$x",
           {"0.01", "0.05", "0.1", "0.25"}},
          {"--dataset cifar10 --epochs 100", "data.name=cifar10 training.epochs=100"},
          {"--dataset cifar100 --epochs 200", ""},
          {"--dataset tiny_imagenet --epochs 150", "data.name=tiny_imagenet training.epochs=150"},
          // Checkpointing and resuming
          {"--epochs 400 --save_interval 20 --output_dir results/long_training",
           "training.epochs=400 output.save_interval=20 output_dir=results/long_training"},
          {"--single_selection --epochs 400 --save_interval 50",
           "selection.mode=single training.epochs=400 output.save_interval=50"},
          // Quick start
          {"--dataset cifar100 --subset_fraction 0.05 --epochs 200 --model resnext --output_dir "
           "./results/cifar100_sage",
           "model.name=resnext output_dir=./results/cifar100_sage"},
          {"--dataset cifar10 --subset_fraction 0.1", "data.name=cifar10 selection.fraction=0.1"},
          {"--dataset tiny_imagenet --subset_fraction 0.05", "data.name=tiny_imagenet"},
          {"--selection_method $x --subset_fraction 0.05",
           "selection.method=$x",
           {"sage", "gradmatch", "random", "uncertainty", "diversity"}},
          // Advanced training modes
          {"--single_selection --subset_fraction 0.05", "selection.mode=single"},
          {"--no_warmup --subset_fraction 0.05", "selection.no_warmup=true"},
          {"--no_selection", "selection.mode=none"},
          {"--cutmix --cutmix_alpha 1.0 --cutmix_prob 0.5", "data.augment.cutmix.enabled=true"},
          // Training mode experiments
          {"--dataset cifar100 --subset_fraction 0.05 --epochs 200", ""},
          {"--single_selection --subset_fraction 0.05 --epochs 200", "selection.mode=single"},
          {"--no_warmup --subset_fraction 0.05 --epochs 200", "selection.no_warmup=true"},
          {"--no_selection --epochs 200", "selection.mode=none"},
          // Selection methods, design choices
          {"--selection_method sage --scoring_method $x", "selection.scoring=$x", {"agreement", "gradient_norm"}},
          {"--fd_method fd --output_dir results/fd", "output_dir=results/fd"},
          {"--fd_method random_projection --output_dir results/random",
           "selection.sketch.method=random_projection output_dir=results/random"},
          {"--selection_method sage --scoring_method agreement --output_dir results/sage_agreement",
           "output_dir=results/sage_agreement"},
          {"--selection_method sage --scoring_method gradient_norm --output_dir results/sage_gradnorm",
           "selection.scoring=gradient_norm output_dir=results/sage_gradnorm"},
          {"--sketch_size $x --output_dir results/sketch_$x",
           "selection.sketch.size=$x output_dir=results/sketch_$x",
           {"64", "128", "256", "512", "1024"}},
          // CutMix
          {"--cutmix --cutmix_alpha $x --cutmix_prob 0.5",
           "data.augment.cutmix.enabled=true data.augment.cutmix.alpha=$x",
           {"0.2", "1.0", "2.0"}},
          {"--cutmix --cutmix_prob $x --output_dir results/cutmix_prob_$x",
           "data.augment.cutmix.enabled=true data.augment.cutmix.probability=$x output_dir=results/cutmix_prob_$x",
           {"0.2", "0.4", "0.6", "0.8", "1.0"}},
          // Robustness
          {"--corrupt_labels $x --output_dir results/corrupt_$x",
           "data.corrupt_labels=$x output_dir=results/corrupt_$x",
           {"0.0", "0.1", "0.2", "0.3", "0.4"}},
          {"--minority_downsample $x --output_dir results/downsample_$x",
           "data.minority_downsample=$x output_dir=results/downsample_$x",
           {"0.0", "0.2", "0.4", "0.6", "0.8"}},
          // Troubleshooting
          {"--batch_size 64 --batch_size_fd 16 --chunk_size_grad 8",
           "training.batch_size=64 selection.batch_size=16 selection.gradient.chunk_size=8"},
          {"--compression_schedule cpu", "selection.compression=cpu"},
          {"--single_selection", "selection.mode=single"},
          {"--amp", "training.precision=bf16"},
          {"--refresh_epochs 100", "selection.refresh_epochs=100"},
          {"--device cpu", "device.type=cpu"},
          // Options that its reference lists and no line above uses
          {"--data_path ./data --per_class --warmup_epochs 10", "data.path=./data"},
          {"--lr 0.1 --optimizer $x --weight_decay 5e-4", "training.optimizer=$x", {"sgd", "adam", "adamw"}},
          {"--scheduler $x", "training.scheduler=$x", {"cosine", "step"}},
          {"--scheduler none", "training.scheduler=constant"},
          {"--tensorboard --log_interval 50 --seed 42", "seed=42"},
          {"--compression_schedule gpu --device cuda", "selection.compression=gpu device=cuda"},
          // What its analysis notebook starts
          {"--dataset cifar100 --model resnext --epochs 100 --batch_size 128 --lr 0.1 --subset_fraction 0.05 "
           "--sketch_size 256 --seed 42 --selection_method gradmatch --scoring_method gradient_norm --output_dir "
           "../results/design_choices/scoring_methods/GradMatch-Norm",
           "model.name=resnext training.epochs=100 seed=42 selection.method=gradmatch selection.scoring=gradient_norm "
           "output_dir=../results/design_choices/scoring_methods/GradMatch-Norm"},
      },
      sage_base);
  EXPECT_EQ(resolved("--dataset imagenet"),
            expected({},
                     "data.name=imagenet model.name=resnext29_32x4d training.epochs=200 output.save_interval=20 "
                     "data.augment.random_resized_crop=true data.augment.flip=true data.image_size=224"));
}

TEST(Flags, ResumedRunsKeepTheirOwnConfiguration) {
  const std::string own = to_json(parse_config("", "run", Texts{"data.name=digits", "training.epochs=7", "seed=5"}));
  const std::map<std::string, std::string> lines{
      {"--resume results/long_training/checkpoint_epoch_100.pt", ""},
      {"--resume results/long_training/checkpoint_epoch_200.pt", ""},
      {"--resume results/long_training/checkpoint_epoch_300.pt", ""},
      {"--resume ./results/experiment/checkpoint_epoch_50.pt", ""},
      {"--resume ./results/experiment/checkpoint_epoch_100.pt", ""},
      {"--resume ./checkpoint.pt --output_dir ./results/resumed", "output_dir=./results/resumed"},
      {"--resume ./checkpoint.pt --dataset cifar100 --model resnext", "data.name=cifar100 model.name=resnext"}};
  for (const auto& [line, settings] : lines) {
    EXPECT_EQ(to_yaml(source_of(line).load_over(own, "checkpoint")),
              expected({"data.name=digits", "training.epochs=7", "seed=5"}, settings))
        << line;
  }
}

const Texts crest_base =
    joined(photos, {"data.name=cifar10", "model.name=resnet20", "selection.method=crest", "selection.fraction=0.1",
                    "selection.no_warmup=true", "selection.refresh_epochs=1", "training.epochs=200",
                    "training.weight_decay=1e-4", "training.scheduler=multistep", "training.milestones=[120, 170]",
                    "training.lr_warmup_epochs=20"});

TEST(Flags, EveryOptionOfCrestsReadme) {
  const std::vector<Line> lines{
      {"", ""},
      {"--dataset cifar100 --arch resnet18", "data.name=cifar100 model.name=resnet18"},
      {"--dataset tinyimagenet --arch resnet50", "data.name=tiny_imagenet model.name=resnet50"},
      {"--data_dir ./data --seed 0", "data.path=./data"},
      {"--train_frac $x --check_thresh_factor 0.05",
       "selection.crest.train_fraction=$x selection.fraction=$x selection.crest.check_threshold=0.05",
       {"0.1", "0.2"}},
      {"--selection_method random", "selection.method=random"},
      {"--epochs 100", "training.epochs=100 training.milestones=[60,85] training.lr_warmup_epochs=10"},
      {"--batch_size 64 --lr 0.05", "training.batch_size=64 training.lr=0.05"},
  };
  expect_all(lines, crest_base, /*is_crest=*/true);
  EXPECT_EQ(resolved("--selection_method crest"), expected(crest_base, ""));
  EXPECT_EQ(resolved("--selection_method crest --dataset tinyimagenet --arch resnet50 --train_frac 0.3"),
            expected(crest_base,
                     "data.name=tiny_imagenet model.name=resnet50 selection.crest.train_fraction=0.3 "
                     "selection.fraction=0.3"));
}

const Texts dropout_base = joined(
    photos, {"data.name=cifar10", "model.name=mobilenet_v2", "training.epochs=200", "training.batch_size_per_rank=32",
             "training.optimizer=adamw", "training.lr=3e-4", "training.weight_decay=0.01", "training.scheduler=step",
             "training.step_size=1", "training.gamma=0.98", "dropout.threshold=0.3", "selection.mode=none"});

TEST(Flags, EveryLineOfTheAdditionsToProgressiveDataDropout) {
  const std::string p_smrd =
      "--model efficientnet_b0 --mode train_with_stratified --epoch 200 --dataset cifar100 "
      "--batch_size 64 --start_revision 199 --threshold 0.3 --learning_rate $x --task "
      "classification --save_path results/p_smrd";
  const std::string apd =
      "--model efficientnet_b0 --mode train_with_adaptive_dropout --epoch 200 --dataset cifar100 "
      "--batch_size 64 --start_revision 199 --threshold 0.3 --learning_rate $x --scheduler_type "
      "cosine --ema_alpha 0.1 --epsilon 0.01 --task classification --save_path results/apd";
  const std::string common =
      "model.name=efficientnet_b0 data.name=cifar100 training.batch_size_per_rank=64 "
      "dropout.start_revision=199 training.lr=$x ";
  const std::string weights = (std::filesystem::path("/data") / "weights" / "efficientnet_b0.safetensors").string();
  setenv("SAGE_DATA_DIR", "/data", 1);
  expect_all(
      {
          // On one GPU and, under torchrun, on four: here mpirun says how many.
          {"--model mobilenet_v2 --mode train_with_revision --epoch 30 --dataset cifar10 --batch_size 32 --task "
           "classification",
           "dropout.mode=dbpd training.epochs=30"},
          {p_smrd, common + "dropout.mode=psmrd output_dir=results/p_smrd", {"3e-4", "1.2e-3"}},
          {apd, common + "dropout.mode=apd training.scheduler=cosine output_dir=results/apd", {"3e-4", "1.2e-3"}},
          {"--scheduler_type $x --mode train_with_adaptive_dropout",
           "dropout.mode=apd training.scheduler=$x",
           {"step", "cosine"}},
          // Combined
          {"--model efficientnet_b0 --pretrained --mode train_with_stratified --epoch 200 --dataset cifar100 "
           "--long_tail --batch_size 64 --start_revision 199 --threshold 0.3 --learning_rate $x --task longtail "
           "--save_path results/p_smrd_longtail_ddp",
           common +
               "dropout.mode=psmrd data.long_tail=0.01 training.loss=class_balanced_focal "
               "output_dir=results/p_smrd_longtail_ddp model.pretrained=" +
               weights,
           {"1.2e-3"}},
          {"--model efficientnet_b0 --pretrained --mode train_with_adaptive_dropout --epoch 200 --dataset cifar100 "
           "--batch_size 64 --start_revision 199 --threshold 0.3 --learning_rate $x --scheduler_type cosine "
           "--ema_alpha 0.1 --epsilon 0.01 --task classification --save_path results/apd_ddp_cosine",
           common + "dropout.mode=apd training.scheduler=cosine output_dir=results/apd_ddp_cosine model.pretrained=" +
               weights,
           {"1.2e-3"}},
          {"--pretrained mine.safetensors --mode baseline", "model.pretrained=mine.safetensors"},
          {"--mode train_with_random", "dropout.mode=smrd"},
          {"--mode train_with_percentage", "dropout.mode=srd"},
          {"--mode $x", "dropout.mode=$x", {"dbpd", "smrd", "srd", "psmrd", "apd", "infobatch", "none"}},
          {"--ema_alpha 0.2 --epsilon 0.05 --mode apd", "dropout.mode=apd dropout.ema_alpha=0.2 dropout.epsilon=0.05"},
          // A subset that is trained on so
          {"--mode dbpd --subset_fraction 0.25", "dropout.mode=dbpd selection.mode=iterative selection.fraction=0.25"},
          {"--mode dbpd --single_selection", "dropout.mode=dbpd selection.mode=single"},
      },
      dropout_base);
}

class FlagOrder : public testing::TemporaryFolder {};

TEST_F(FlagOrder, TheFileLiesBelowAndTheLaterOnTheLineWins) {
  const std::string file = (folder_ / "mine.yaml").string();
  testing::put_bytes(file, "training:\n  epochs: 3\n  lr: 0.5\n");
  EXPECT_EQ(resolved(file + " --lr 0.25"), expected({}, "training.epochs=3 training.lr=0.25"))
      << "with a file the rest is the program's own";
  EXPECT_EQ(resolved("--lr 0.25 " + file + " training.lr=0.125"), expected({}, "training.epochs=3 training.lr=0.125"));
  EXPECT_EQ(
      resolved("training.lr=0.125 --lr 0.25 data.name=digits"),
      expected({"model.name=resnext29_32x4d", "training.epochs=200", "output.save_interval=20"}, "training.lr=0.25"));
  EXPECT_EQ(resolved("--lr 0.5 --epochs 3 --lr 0.25"), expected(sage_base, "training.lr=0.25 training.epochs=3"));
  EXPECT_EQ(resolved("--no_warmup training.epochs=3 --tensorboard seed=4"),
            expected(sage_base, "selection.no_warmup=true training.epochs=3 seed=4"));
  EXPECT_EQ(resolved("training.lr=0.5 seed=3"), expected({}, "training.lr=0.5 seed=3")) << "no flag, no other defaults";
  // The file wins over the defaults of CREST, those of its schedule included.
  EXPECT_EQ(resolved(file, true), expected(crest_base,
                                           "training.epochs=3 training.lr=0.5 training.milestones=[2,3] "
                                           "training.lr_warmup_epochs=0.3"));
  testing::put_bytes(file, "training:\n  milestones: [5, 9]\n");
  EXPECT_EQ(resolved(file, true), expected(crest_base, "training.milestones=[5,9]"));
  EXPECT_EQ(resolved("--pretrained seed=3 --mode dbpd model.pretrained=x"),
            expected(dropout_base, "dropout.mode=dbpd seed=3 model.pretrained=x"))
      << "a setting behind --pretrained is not its value";
  EXPECT_EQ(source_of("--output_dir a:b#c").load().output_dir, "a:b#c") << "no YAML";
  EXPECT_EQ(source_of("--output_dir=results/x").load().output_dir, "results/x");
}

/// The batch of each rank and "no selection" would win over other keys: they are taken for granted only where neither
/// the file nor the line speaks of these.
TEST_F(FlagOrder, AModeLeavesBatchAndSelectionOfTheFileAndTheLineAsTheyAre) {
  const std::string file = (folder_ / "mine.yaml").string();
  const auto with_file = [&](const std::string& text, const std::string& line) {
    testing::put_bytes(file, text);
    return resolved(file + " " + line);
  };
  const std::string batch = "dropout.mode=dbpd training.batch_size=48 training.batch_size_per_rank=0";
  EXPECT_EQ(with_file("training:\n  batch_size: 48\n", "--mode dbpd"), expected(dropout_base, batch));
  EXPECT_EQ(with_file("training.batch_size: 48\n", "--mode dbpd"), expected(dropout_base, batch));
  EXPECT_EQ(resolved("training.batch_size=48 --mode dbpd"), expected(dropout_base, batch));
  EXPECT_EQ(resolved("--mode dbpd training.batch_size=48"), expected(dropout_base, batch));
  EXPECT_EQ(with_file("training:\n  batch_size_per_rank: 8\n", "--mode dbpd"),
            expected(dropout_base, "dropout.mode=dbpd training.batch_size_per_rank=8"));
  EXPECT_EQ(with_file("training:\n  batch_size: 48\n", "--mode dbpd --batch_size 16"),
            expected(dropout_base, "dropout.mode=dbpd training.batch_size=48 training.batch_size_per_rank=16"))
      << "the flag is of each rank's batch, and lies above the file";

  const std::string subset = "dropout.mode=dbpd selection.mode=iterative selection.fraction=0.25";
  EXPECT_EQ(with_file("selection:\n  fraction: 0.25\n", "--mode dbpd"), expected(dropout_base, subset));
  EXPECT_EQ(resolved("--mode dbpd selection.fraction=0.25"), expected(dropout_base, subset));
  EXPECT_EQ(resolved("selection.fraction=0.25 --mode dbpd"), expected(dropout_base, subset));
  EXPECT_EQ(resolved("--mode dbpd --batch_size_fd 16"),
            expected(dropout_base, "dropout.mode=dbpd selection.mode=iterative selection.batch_size=16"));
  EXPECT_EQ(with_file("selection:\n  mode: none\n", "--mode dbpd --subset_fraction 0.25"),
            expected(dropout_base, "dropout.mode=dbpd selection.fraction=0.25"))
      << "the file's own word counts";
  EXPECT_EQ(with_file("seed: 4\n", "--mode dbpd"), expected(dropout_base, "dropout.mode=dbpd seed=4"))
      << "a file that says nothing of either";
}

TEST(Flags, ErrorsNameTheFlagAndTheKey) {
  EXPECT_EQ(error_of("--epochs ten"), "--epochs ten: training.epochs is `ten`, expected an integer in [1, 1000000]");
  EXPECT_EQ(error_of("--scheduler foo"),
            "--scheduler is `foo`, expected one of cosine, step, none (it sets training.scheduler)");
  EXPECT_TRUE(contains(error_of("--mode train_with_revison"), "did you mean train_with_revision?"));
  EXPECT_TRUE(contains(error_of("--fd_method df"), "--fd_method df: selection.sketch.method is `df`"));
  EXPECT_EQ(error_of("--subset_fractoin 0.05"),
            "unknown option --subset_fractoin (did you mean --subset_fraction?); `sage train --help` shows all");
  EXPECT_TRUE(contains(error_of("--subset-fraction=0.05"), "did you mean --subset_fraction?"));
  EXPECT_TRUE(contains(error_of("--train_fraction 0.1", true), "did you mean --train_frac?"));
  EXPECT_TRUE(contains(error_of("--tensorboard=false"), "--tensorboard takes no value"));
  EXPECT_EQ(error_of("--threshold 1.5"), "--threshold 1.5: dropout.threshold is `1.5`, expected a number in [0, 1)");
  EXPECT_EQ(error_of("--lr 0.001 training.min_lr=0.1"),
            "training.min_lr (0.1) is above training.lr (0.001) (training.lr was set by `--lr 0.001`)");
  EXPECT_TRUE(contains(error_of("--corrupt_labels 0.2 data.corrupt_kind=human data.human_labels=x"),
                       "data.corrupt_labels was set by `--corrupt_labels 0.2`"));
}

TEST(Flags, ContradictionsNameBothFlags) {
  const std::pair<const char*, Texts> cases[] = {
      {"--no_selection --single_selection", {"--no_selection and --single_selection exclude each other"}},
      {"--no_warmup --no_selection", {"--no_selection and --no_warmup exclude each other"}},
      {"--no_warmup --warmup_epochs 5", {"--no_warmup and --warmup_epochs exclude each other"}},
      {"--resume x.pt --pretrained", {"--resume and --pretrained exclude each other"}},
      {"--mode dbpd --selection_method crest", {"--selection_method crest and --mode exclude each other"}},
  };
  for (const auto& [line, words] : cases) {
    for (const auto& word : words) EXPECT_TRUE(contains(error_of(line), word)) << error_of(line);
  }
  EXPECT_TRUE(contains(error_of("--mode dbpd", true), "`sage crest` and --mode exclude each other"));
  EXPECT_NO_THROW(source_of("--no_warmup --warmup_epochs 0"));
  EXPECT_NO_THROW(source_of("--no_selection selection.mode=single"));
}

TEST(Flags, PretrainedWithoutAValueSaysWhatItTakes) {
  setenv("SAGE_DATA_DIR", "/no/such/data", 1);
  const ConfigSource bare = source_of("--model efficientnet_b0 --pretrained --mode dbpd");
  const std::string message = testing::message_of<ConfigError>([&] { ConfigArguments::check_pretrained(bare); });
  EXPECT_TRUE(contains(message, "/no/such/data/weights/efficientnet_b0.safetensors (model.pretrained)"));
  EXPECT_TRUE(contains(message, "--pretrained FILE"));
  EXPECT_NO_THROW(ConfigArguments::check_pretrained(source_of("--pretrained mine.safetensors")));
}

TEST(Flags, EveryRowSetsKeysThatThereAre) {
  std::set<std::string> keys;
  for (const auto& key : list_config_keys()) keys.insert(key.name);
  std::set<std::string_view> names;
  for (const Flag& flag : config_flags()) {
    EXPECT_TRUE(names.insert(flag.name).second) << flag.name;
    EXPECT_FALSE(flag.sets.empty() && flag.choices.empty()) << flag.name;
    std::vector<FlagSetting> all = flag.sets;
    all.insert(all.end(), flag.sets_with_mode.begin(), flag.sets_with_mode.end());
    for (const auto& choice : flag.choices) all.insert(all.end(), choice.sets.begin(), choice.sets.end());
    for (const auto& set : all) EXPECT_TRUE(keys.contains(std::string(set.key))) << flag.name << ": " << set.key;
  }
}

}  // namespace
}  // namespace sage
