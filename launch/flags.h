// The options that users of SAGE's, CREST's and Progressive Data Dropout's own programs have in their fingers, as
// aliases of configuration keys: one table, and what a command line that uses them means.
#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/config_source.h"

namespace sage {

/// A key that a flag sets; the value `$` stands for the one that is given.
struct FlagSetting {
  std::string_view key, value;
};

/// What one of a flag's values means, where it is more than the value itself.
struct FlagChoice {
  std::string_view given;
  std::vector<FlagSetting> sets;
};

enum class FlagValue { required, none, optional };

struct Flag {
  std::string_view name;  ///< without the leading --
  std::string_view group;
  FlagValue value = FlagValue::required;
  std::vector<FlagSetting> sets;    ///< for every value; for those of `choices` in their place
  std::vector<FlagChoice> choices;  ///< with empty `sets` no other value is taken
  std::string_view meaning;
  std::vector<FlagSetting> sets_with_mode = {};  ///< in the place of `sets` where --mode is given
};

/// The groups of the flags that have to do with selections.
inline constexpr std::string_view selection_group = "SAGE Configuration";
inline constexpr std::string_view selection_mode_group = "Selection & Training Modes";

/// In the order in which --help shows them, group by group.
std::span<const Flag> config_flags();

/// Whose defaults lie below the configuration file.
enum class Recipe {
  none,     ///< the program's own
  sage,     ///< SAGE's program: where its flags are used without a configuration file
  crest,    ///< `sage crest`, or --selection_method crest
  dropout,  ///< --mode
};

/// `CONFIG.yaml key=value ... --flag value ...` of one command, in the order in which they are typed.
class ConfigArguments {
 public:
  /// Adds the positional arguments, and with `flags` all flags, to `command`, which must outlive this object.
  /// `resume`: the value of the command's --resume, if it has one.
  explicit ConfigArguments(CLI::App& command, const std::string* resume = nullptr);

  /// After parsing. Throws ConfigError for an unknown flag (with the nearest one), a value that a flag does not know,
  /// flags that contradict each other. `is_crest`: the command is `sage crest`.
  ConfigSource source(bool is_crest = false) const;

  /// Throws ConfigError that says what to give unless the weights that --pretrained without a value means are there.
  static void check_pretrained(const ConfigSource& source);

 private:
  struct Given {
    const Flag* flag;  ///< null: a positional argument
    std::string value;
  };
  std::vector<Given> in_order() const;
  void refuse_unknown() const;

  CLI::App& command_;
  const std::string* resume_;
  CLI::Option* positional_;
  std::vector<std::pair<CLI::Option*, const Flag*>> options_;
  // What CLI11 writes into, one for each option; the addresses must not change.
  std::vector<std::unique_ptr<std::vector<std::string>>> values_;
};

}  // namespace sage
