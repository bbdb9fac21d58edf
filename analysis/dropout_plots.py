"""Plots of progressive data dropout over the epochs of one run.

    python analysis/dropout_plots.py runs/cifar10_resnet20_full_apd_seed0 [--output plots.png] [--classes 20]

Reads metrics.json of a run folder and draws what there is: the part that was kept of all examples and of
each class, and, of mode `apd`, the difficulty and the proportion of each class. With more than --classes classes the ones
that differ most from the mean at the end are named and the others drawn in grey. Writes dropout.png into the folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys


@dataclasses.dataclass
class Panel:
    """One plot: a line for each class, by epoch; None where an epoch has no value."""

    title: str
    epochs: list[int]
    lines: list[list[float | None]]  # of each class
    overall: list[float | None] | None = None
    logarithmic: bool = False


class NothingToPlot(Exception):
    """The folder holds no run with dropout."""


def read_panels(folder: pathlib.Path) -> list[Panel]:
    """What the run in `folder` has to show. Raises NothingToPlot with the reason where there is nothing."""
    path = folder / "metrics.json"
    if not path.is_file():
        raise NothingToPlot(f"{path} does not exist: give the folder of a run that ended an epoch")
    epochs = [epoch for epoch in json.loads(path.read_text())["epochs"] if epoch.get("dropout")]
    if not epochs:
        raise NothingToPlot(f"{path} tells of no epoch with dropout: give a run with dropout.mode other than none")
    panels = []
    parts = [epoch["dropout"] for epoch in epochs]
    numbers = [epoch["epoch"] for epoch in epochs]
    kept_classes = max(len(part["kept_fraction_of_class"]) for part in parts)
    kept = [
        [part["kept_fraction_of_class"][c] if part["kept_fraction_of_class"] else None for part in parts]
        for c in range(kept_classes)
    ]
    panels.append(Panel("part of the examples that was kept", numbers, kept, [part["kept_fraction"] for part in parts], True))
    for key, title in (("difficulty", "difficulty (moving average of the hard part)"), ("proportion", "proportion of what is kept")):
        with_values = [(number, part[key]) for number, part in zip(numbers, parts) if part[key]]
        if with_values:
            lines = [list(line) for line in zip(*(values for _, values in with_values))]
            panels.append(Panel(title, [number for number, _ in with_values], lines))
    return panels


def class_names(folder: pathlib.Path, count: int) -> list[str]:
    """Those that the run tells, else numbers."""
    names = json.loads((folder / "metrics.json").read_text()).get("class_names", [])
    return names if len(names) == count else [str(c) for c in range(count)]


def outstanding(panel: Panel, most: int) -> set[int]:
    """The classes to name: all, or the `most` whose last value lies furthest from the mean."""
    last = {c: values[-1] for c, line in enumerate(panel.lines) if (values := [v for v in line if v is not None])}
    if len(last) <= most:
        return set(last)
    mean = sum(last.values()) / len(last)
    return set(sorted(last, key=lambda c: -abs(last[c] - mean))[:most])


def draw(panels: list[Panel], names: list[str], output: pathlib.Path, most: int) -> None:
    """Writes the plots as one picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels) + 1.5, 4.5), squeeze=False, layout="constrained")
    colours = pyplot.get_cmap("tab10" if len(names) <= 10 else "tab20")
    entries = {}  # of the legend, which stands once
    for axis, panel in zip(axes[0], panels):
        named = outstanding(panel, most)
        for c in sorted(range(len(panel.lines)), key=lambda c: c in named):  # those in grey first
            values = [float("nan") if value is None else value for value in panel.lines[c]]
            if c in named:
                axis.plot(panel.epochs, values, color=colours(c % colours.N), linewidth=1.2, label=names[c])
            else:
                axis.plot(panel.epochs, values, color="lightgrey", linewidth=0.6)
        if panel.overall is not None:
            values = [float("nan") if value is None else value for value in panel.overall]
            axis.plot(panel.epochs, values, color="black", linewidth=2.2, label="all")
        axis.set_xlabel("epoch")
        axis.set_ylabel(panel.title)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        if panel.logarithmic and any(value for line in panel.lines for value in line):
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        entries |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(output, dpi=120)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="of a run with dropout")
    parser.add_argument("--output", type=pathlib.Path, help="picture to write; FOLDER/dropout.png by default")
    parser.add_argument("--classes", type=int, default=20, help="classes that are named, at most")
    arguments = parser.parse_args()
    try:
        panels = read_panels(arguments.folder)
    except NothingToPlot as error:
        print(error, file=sys.stderr)
        return 1
    output = arguments.output or arguments.folder / "dropout.png"
    count = max(len(panel.lines) for panel in panels)
    draw(panels, class_names(arguments.folder, count), output, arguments.classes)
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
