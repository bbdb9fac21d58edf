"""Counts single GoogleTest tests in ctest's log: one line, for test.sh.

    python tools/count_tests.py build/cuda/Testing/Temporary/LastTest.log
"""

import pathlib
import re
import sys


def count(log: str) -> tuple[int, int, int]:
    """(passed, failed, programs) over all GoogleTest programs whose output is in `log`.

    A program under mpirun prints its summary from one rank or from several; each summary counts, since each rank ran
    the tests.
    """
    passed = sum(int(n) for n in re.findall(r"\[  PASSED  \] (\d+) tests?\.", log))
    failed = sum(int(n) for n in re.findall(r"\[  FAILED  \] (\d+) tests?, listed below", log))
    programs = len(re.findall(r"\[==========\] \d+ tests? from .* ran\.", log))
    return passed, failed, programs


def main() -> None:
    log = pathlib.Path(sys.argv[1]).read_text(errors="replace")
    passed, failed, programs = count(log)
    print(f"{passed} tests passed, {failed} failed, in {programs} runs of test programs")


if __name__ == "__main__":
    main()
