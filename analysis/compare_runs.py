"""Table and plot over the runs of launch/compare.sh.

    python analysis/compare_runs.py runs/quickstart [--seeds 3] [--methods top,random] [--labels clean]

Reads, for each run folder <method>_<labels>_seed<k>, its metrics.json and subset_indices/, prints a table, and writes it
to table.txt and a plot to plot.png in the same folder. A run that is not there is shown as missing and left out of every
mean; nothing is filled in.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import statistics

METHODS = {
    "top": "SAGE, keep: top",
    "filter": "SAGE, keep: filter",
    "by_loss": "filter by the loss",
    "confident": "filter, confident counting",
    "strata": "filter, then by strata",
    "farthest": "filter, then farthest first",
    "facility": "filter, then facility location",
    "facility_by_loss": "filter by the loss, then facility location",
    "clusters": "filter, 4 directions a class",
    "full": "filter, full gradients",
    "last_block": "filter, gradients of the last block",
    "random": "class-balanced random",
    "all": "all data",
}
LABELS = {"clean": "clean labels", "wrong20": "20 % wrong labels", "wrong40": "40 % wrong labels"}


@dataclasses.dataclass
class Run:
    """The figures of one run folder."""

    accuracy: float  # of the test split after the last step, in [0, 1]
    total_seconds: float  # training, evaluation and selection, the scoring network's own training included
    selection_seconds: float
    back_propagated: int  # examples, over all ranks and steps, those of the scoring network included
    kept: int | None  # examples of the last selection; None: no selection, all examples are trained on
    wrong_kept: int | None  # of those, examples whose label was made wrong; None where no label was
    wrong_total: int


def read_run(folder: pathlib.Path) -> Run | None:
    """The run in `folder`, or None if it is not there or did not come to its end."""
    metrics_path = folder / "metrics.json"
    if not metrics_path.is_file():
        return None
    metrics = json.loads(metrics_path.read_text())
    summary = metrics["summary"]
    if not summary.get("final_test"):
        return None
    last = metrics["selections"][-1] if metrics["selections"] else None
    wrong_total = int(summary.get("corrupted_labels", 0))
    return Run(
        accuracy=summary["final_test"]["accuracy"],
        total_seconds=summary["total_seconds"],
        selection_seconds=summary["selection_seconds"],
        back_propagated=summary["examples_seen"],
        kept=last["kept"] if last else None,
        wrong_kept=(last["wrong_labels_kept"] if last else wrong_total) if wrong_total else None,
        wrong_total=wrong_total,
    )


@dataclasses.dataclass
class Row:
    """One line of the table: a method on one kind of labels, over the seeds that ran."""

    labels: str
    method: str
    runs: list[Run]
    missing_seeds: list[int]


def collect(folder: pathlib.Path, seeds: int, methods: list[str], labels: list[str]) -> list[Row]:
    rows = []
    for kind in labels:
        for method in methods:
            row = Row(kind, method, [], [])
            for seed in range(1, seeds + 1):
                run = read_run(folder / f"{method}_{kind}_seed{seed}")
                if run is None:
                    row.missing_seeds.append(seed)
                else:
                    row.runs.append(run)
            rows.append(row)
    return rows


def mean_and_spread(values: list[float], form: str) -> str:
    """Mean, and sample standard deviation where there are at least two values."""
    if not values:
        return "missing"
    mean = form.format(statistics.mean(values))
    return f"{mean} ± {form.format(statistics.stdev(values))}" if len(values) > 1 else mean


def cells(row: Row) -> list[str]:
    wrong = "-"
    if row.runs and row.runs[0].wrong_total:
        picked = statistics.mean(run.wrong_kept for run in row.runs)
        wrong = f"{picked:.0f} of {statistics.mean(run.wrong_total for run in row.runs):.0f}"
    count = len(row.runs)
    kept = "missing" if not row.runs else "all" if row.runs[0].kept is None else str(row.runs[0].kept)
    return [
        LABELS[row.labels],
        METHODS[row.method],
        kept,
        f"{count} of {count + len(row.missing_seeds)}",
        mean_and_spread([100 * run.accuracy for run in row.runs], "{:.2f}"),
        mean_and_spread([run.total_seconds for run in row.runs], "{:.1f}"),
        mean_and_spread([run.selection_seconds for run in row.runs], "{:.1f}"),
        f"{statistics.mean(run.back_propagated for run in row.runs):.0f}" if row.runs else "missing",
        wrong,
    ]


HEADINGS = ["labels", "trained on", "kept", "runs", "test accuracy %", "total s", "selection s", "back-propagated", "wrong picked"]


def table(rows: list[Row]) -> str:
    lines = [HEADINGS] + [cells(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    text.insert(1, "-" * len(max(text, key=len)))
    missing = [f"{row.method}_{row.labels}_seed{seed}" for row in rows for seed in row.missing_seeds]
    text += [
        "",
        "Mean ± standard deviation over the seeds. Seconds and back-propagated examples (a mean too) hold the training of",
        "the network that scores; total s holds selection s. wrong picked: examples with a wrong label among those",
        "trained on, of all wrong ones (means).",
    ]
    if missing:
        text.append("MISSING, and so in no mean: " + ", ".join(missing))
    return "\n".join(text) + "\n"


def plot(rows: list[Row], path: pathlib.Path, title: str) -> None:
    """Accuracy of each run above, mean seconds below; clean labels left, wrong ones right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = {"top": "#0072b2", "filter": "#009e73", "random": "#e69f00", "all": "#767676"}
    names = {"top": "SAGE\ntop", "filter": "SAGE\nfilter", "random": "random", "all": "all\ndata"}
    names |= {method: method.replace("_", "\n") for method in METHODS if method not in names}
    colours |= {method: "#cc79a7" for method in METHODS if method not in colours}  # variants of the filter
    kinds = list(dict.fromkeys(row.labels for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    figure, axes = plt.subplots(2, len(kinds), figsize=(1 + 4 * len(kinds), 6.5), sharey="row", squeeze=False,
                                layout="constrained")
    for column, labels in enumerate(kinds):
        accuracy, seconds = axes[0][column], axes[1][column]
        for place, row in enumerate(r for r in rows if r.labels == labels):
            if not row.runs:
                accuracy.text(place, 0.5, "missing", rotation=90, ha="center", va="center",
                              transform=accuracy.get_xaxis_transform())
                continue
            values = [100 * run.accuracy for run in row.runs]
            accuracy.scatter([place] * len(values), values, color=colours[row.method], alpha=0.55, zorder=3)
            accuracy.hlines(statistics.mean(values), place - 0.3, place + 0.3, color=colours[row.method], linewidth=2.5)
            selecting = statistics.mean(run.selection_seconds for run in row.runs)
            total = statistics.mean(run.total_seconds for run in row.runs)
            seconds.bar(place, total - selecting, color=colours[row.method])
            seconds.bar(place, selecting, bottom=total - selecting, color=colours[row.method], alpha=0.45, hatch="///")
        for axis in (accuracy, seconds):
            axis.set_xticks(range(len(methods)), [names[method] for method in methods])
            axis.set_xlim(-0.6, len(methods) - 0.4)
            axis.grid(axis="y", alpha=0.3)
        accuracy.set_title(LABELS[labels])
    axes[0][0].set_ylabel("test accuracy, %\n(points: seeds, line: mean)")
    axes[1][0].set_ylabel("seconds, mean\n(hatched: selection)")
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def title_of(folder: pathlib.Path) -> str:
    """What the runs have in common, from the configuration of the first one."""
    for path in sorted(folder.glob("*/config.json")):
        config = json.loads(path.read_text())["config"]
        length = f"{config['training']['steps']} steps" if config["training"]["steps"] else f"{config['training']['epochs']} epochs"
        kept = f"{100 * config['selection']['fraction']:g} % kept"
        return f"{config['data']['name']}, {config['model']['name']}, {kept}, {length}"
    return folder.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="where the run folders are")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to this are expected")
    parser.add_argument("--methods", default="top,filter,random,all", help="of " + ",".join(METHODS))
    parser.add_argument("--labels", default="clean,wrong20", help="of " + ",".join(LABELS))
    arguments = parser.parse_args()
    rows = collect(arguments.folder, arguments.seeds, arguments.methods.split(","), arguments.labels.split(","))
    text = table(rows)
    (arguments.folder / "table.txt").write_text(text)
    plot(rows, arguments.folder / "plot.png", title_of(arguments.folder))
    print(text)
    print(f"plot:        {arguments.folder / 'plot.png'}")
    print(f"table:       {arguments.folder / 'table.txt'}")
    print(f"run folders: {arguments.folder}/<method>_<labels>_seed<k>/ (each has a README.txt)")


if __name__ == "__main__":
    main()
