#!/usr/bin/env bash
# Formatting and static checks, in seconds: clang-format 14, cppcheck, shellcheck, and whether all Python compiles.
# `tools/check.sh --fix` formats the C++ files in place first.
# shellcheck source=tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$project"

folders=(core data distributed models selection training launch cuda benchmarks)
mapfile -t sources < <(find "${folders[@]}" cmake tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | sort)
mapfile -t scripts < <({ ls ./*.sh .ci/run && find tools tests launch benchmarks containers -name '*.sh'; } | sort)
if [ ${#sources[@]} -eq 0 ]; then give_up "No source file found in $project."; fi

# Versions of clang-format disagree with each other: always 14, which Debian 12 has.
clang_format=$(command -v clang-format-14 || command -v clang-format) ||
  give_up "clang-format is not installed (Debian: clang-format; elsewhere: clang-format-14)."
case $("$clang_format" --version) in
  *" version 14."*) ;;
  *) give_up "$clang_format is $("$clang_format" --version), and the project is formatted with version 14 (clang-format-14)." ;;
esac

if [ "${1:-}" = --fix ]; then "$clang_format" -i "${sources[@]}"; fi

step "checking the formatting of ${#sources[@]} files (tools/check.sh --fix mends it)"
"$clang_format" --dry-run -Werror --ferror-limit=3 "${sources[@]}"

step "checking ${#scripts[@]} shell scripts"
for script in "${scripts[@]}"; do bash -n "$script"; done
shellcheck -x "${scripts[@]}"

step "checking that the Python files compile"
python3 - analysis tools tests benchmarks <<'PYTHON'
import pathlib, sys
for folder in sys.argv[1:]:
    for path in sorted(pathlib.Path(folder).rglob("*.py")):
        compile(path.read_text(), str(path), "exec")
PYTHON

step "looking for defects in the C++ files with cppcheck"
cppcheck --quiet --enable=warning,performance,portability --std=c++20 --language=c++ --inline-suppr --error-exitcode=1 \
  --suppressions-list=tools/cppcheck_suppressions.txt -j "$(nproc)" -I . "${folders[@]}"
say "tools/check.sh: nothing found."
