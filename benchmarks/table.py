"""The table of benchmarks/run.sh: joins the JSON lines of programs and peers by row and prints Markdown.

    table.py describe --build FOLDER     machine, versions and revision as JSON
    table.py failed NAME STATUS LOG      the JSON line of a program that failed
    table.py table RESULTS NAME...       the table of these benchmarks
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
from typing import Any

project = pathlib.Path(__file__).resolve().parents[1]

Line = dict[str, Any]


@dataclasses.dataclass
class Row:
    """One comparison, over all rounds."""

    name: str
    what: str = ""
    peer: str = ""
    ours_value: float | None = None
    peer_value: float | None = None
    unit: str = "seconds"
    ratio: float | None = None
    target: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)
    not_run: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or no ratio."""
        limit = parse_target(self.target)
        if limit is None or self.ratio is None:
            return None
        relation, value = limit
        return self.ratio <= value if relation == "<=" else self.ratio >= value


def parse_target(target: str) -> tuple[str, float] | None:
    """"<= 1.5" as ("<=", 1.5); None for the empty string."""
    if not target:
        return None
    match = re.fullmatch(r"(<=|>=) *([0-9.]+)x?", target.strip())
    if match is None:
        raise ValueError(f'a target is "<= NUMBER" or ">= NUMBER", not "{target}"')
    return match.group(1), float(match.group(2))


def read_lines(path: pathlib.Path) -> list[Line]:
    """The JSON lines of a file. Anything else that a program printed is an error that names the line."""
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number} is not JSON: {text[:200]}") from error
        if not isinstance(line, dict) or not isinstance(line.get("row"), str):
            raise ValueError(f'{path}:{number} has no "row": {text[:200]}')
        lines.append(line)
    return lines


def value_of(line: Line, whose: str) -> tuple[float, str] | None:
    """What `whose` ("ours" or "peer") took, and its unit."""
    for unit in ("seconds", "bytes"):
        if f"{whose}_{unit}" in line:
            return float(line[f"{whose}_{unit}"]), unit
    return None


def ratio_of(line: Line) -> float | None:
    """As the program says, else ours / peer, or for a target (or a direction) ">=" peer / ours: how many times faster."""
    if "ratio" in line:
        return float(line["ratio"])
    ours, peer = value_of(line, "ours"), value_of(line, "peer")
    if ours is None or peer is None:
        return None
    limit = parse_target(line.get("target", ""))
    direction = limit[0] if limit is not None else line.get("direction", "<=")
    return peer[0] / ours[0] if direction == ">=" else ours[0] / peer[0]


def round_of(path: pathlib.Path) -> int:
    """Of a file NAME[.ranksP][.peer].roundN.jsonl."""
    match = re.search(r"\.round(\d+)\.jsonl$", path.name)
    if match is None:
        raise ValueError(f"{path} does not name its round")
    return int(match.group(1))


def join(rounds: dict[int, list[Line]]) -> list[Row]:
    """One row per name, in order of appearance. Within a round the lines of program and peer become one; over the rounds
    the medians are taken, of the ratios as well: program and peer of one round saw the same machine."""
    merged: dict[str, dict[int, Line]] = {}
    for number in sorted(rounds):
        for line in rounds[number]:
            target = merged.setdefault(line["row"], {}).setdefault(number, {"notes": []})
            for key, value in line.items():
                if key == "note":
                    if value and value not in target["notes"]:
                        target["notes"].append(value)
                else:
                    target.setdefault(key, value)
    return [summarise(name, list(of_round.values())) for name, of_round in merged.items()]


def summarise(name: str, lines: list[Line]) -> Row:
    """The medians of a row over its rounds."""
    first = lines[0]
    row = Row(name, first.get("what", ""), first.get("peer", ""), target=first.get("target", ""), notes=first["notes"])
    row.not_run = "; ".join(dict.fromkeys(line["not_run"] for line in lines if "not_run" in line))
    for whose in ("ours", "peer"):
        found = [value for value in (value_of(line, whose) for line in lines) if value is not None]
        if found:
            setattr(row, f"{whose}_value", statistics.median(value for value, _ in found))
            row.unit = found[0][1]
    ratios = [ratio for ratio in (ratio_of(line) for line in lines) if ratio is not None]
    if ratios:
        row.ratio = statistics.median(ratios)
        if len(ratios) > 1:
            row.notes = [*row.notes, f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} rounds"]
    elif not row.not_run and (row.target or row.ours_value is None):
        row.not_run = "only one side of the comparison was measured"
    return row


def readable(value: float | None, unit: str) -> str:
    """1.23 ms, 4.5 MiB, or a dash."""
    if value is None:
        return "-"
    steps = [(1.0, "s"), (1e-3, "ms"), (1e-6, "us")] if unit == "seconds" else [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")]
    for step, name in steps:
        if abs(value) >= step:
            return f"{value / step:.3g} {name}"
    step, name = steps[-1]
    return f"{value / step:.3g} {name}"


def table(rows: list[Row]) -> str:
    """The rows as Markdown; those that could not be run follow with the reason."""
    lines = ["| row | what | ours | against | peer | ratio | target | met | note |", "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        if row.not_run and row.ratio is None:
            continue
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        met = {True: "yes", False: "**no**", None: "-"}[row.met]
        cells = [row.name, row.what, readable(row.ours_value, row.unit), row.peer or "-", readable(row.peer_value, row.unit),
                 ratio, row.target or "-", met, "; ".join([*row.notes, *([row.not_run] if row.not_run else [])])]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    missing = [row for row in rows if row.not_run and row.ratio is None]
    if missing:
        lines += ["", "Not run:", ""]
        lines += [f"- {row.name}: {row.not_run}" for row in missing]
    return "\n".join(lines)


def output_of(*command: str) -> str:
    """The first line that a command prints, or an empty string if there is no such command."""
    try:
        result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return (result.stdout.splitlines() or [""])[0].strip() if result.returncode == 0 else ""


def first_match(pattern: str, path: pathlib.Path) -> str:
    """Group 1 of the first line of a file that matches, or an empty string."""
    if not path.is_file():
        return ""
    match = re.search(pattern, path.read_text(), re.MULTILINE)
    return match.group(1).strip() if match else ""


def describe(build: pathlib.Path) -> dict[str, str]:
    """What a figure belongs to."""
    import torch  # here alone: printing a table needs none

    memory = int(first_match(r"^MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo")) or 0) / 2**20
    compiler = first_match(r"^CMAKE_CXX_COMPILER:[^=]*=(.*)$", build / "CMakeCache.txt")
    revision = output_of("git", "rev-parse", "--short", "HEAD") or "unknown"
    if output_of("git", "status", "--porcelain"):
        revision += " with changes"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": revision,
        "machine": first_match(r"^model name\s*:\s*(.*)$", pathlib.Path("/proc/cpuinfo")) or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "LibTorch": torch.__version__,
        "MPI": output_of("mpirun", "--version") or "unknown",
        "compiler": output_of(compiler or "c++", "--version") or "unknown",
        "build": first_match(r"^CMAKE_BUILD_TYPE:[^=]*=(.*)$", build / "CMakeCache.txt") or "unknown",
        "threads": f"{os.environ.get('BENCHMARK_THREADS') or os.cpu_count()} without ranks, 1 for each rank",
    }


def failed(name: str, status: int, log: pathlib.Path) -> Line:
    """The line of a program that failed."""
    said = [text.strip() for text in log.read_text(errors="replace").splitlines() if text.strip()] if log.is_file() else []
    reason = "it ran out of time" if status == 124 else f"exit status {status}"
    return {"row": name, "not_run": reason + (f": {said[-1][:300]}" if said else "")}


def report(results: pathlib.Path, names: list[str]) -> str:
    """Heading and table of the benchmarks `names` in the folder of run.sh."""
    rounds: dict[int, list[Line]] = {}
    for name in names:
        for path in sorted(results.glob(f"{name}.*.jsonl"), key=lambda p: (round_of(p), p.name.count(".peer."), p.name)):
            rounds.setdefault(round_of(path), []).extend(read_lines(path))
    machine = json.loads((results / "machine.json").read_text())
    heading = "; ".join(f"{key}: {value}" for key, value in machine.items())
    return f"{heading}\n\n{table(join(rounds))}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    action = actions.add_parser("describe")
    action.add_argument("--build", type=pathlib.Path, required=True)
    action = actions.add_parser("failed")
    action.add_argument("name")
    action.add_argument("status", type=int)
    action.add_argument("log", type=pathlib.Path)
    action = actions.add_parser("table")
    action.add_argument("results", type=pathlib.Path)
    action.add_argument("names", nargs="+")
    arguments = parser.parse_args()
    if arguments.action == "describe":
        print(json.dumps(describe(arguments.build), indent=1))
    elif arguments.action == "failed":
        print(json.dumps(failed(arguments.name, arguments.status, arguments.log)))
    else:
        print(report(arguments.results, arguments.names), end="")


if __name__ == "__main__":
    main()
