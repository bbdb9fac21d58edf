"""Pictures of the design choices: what each variant gives, and what it costs in time and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import COLOURS, label, mean_and_deviation, number_of, several_groups, style
from analysis.study import Run, Study

MEASURES: list[tuple[str, Callable[[Run], float]]] = [
    ("test accuracy, %", lambda run: 100 * run.accuracy),
    ("selection, s", lambda run: run.selection_seconds),
    ("whole run, s", lambda run: run.total_seconds),
    ("peak memory\nof a rank, MiB", lambda run: run.summary["host_peak_bytes"] / 2**20),
]


def variants(study: Study | None) -> Figure | None:
    """Accuracy, times and memory of each variant: a point for each seed, a line at the mean."""
    if study is None:
        return None
    rows = study.variants()
    figure = Figure(figsize=(11, 1.5 + 0.32 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(MEASURES), sharey=True)
    for axes, (name, measure) in zip(panels, MEASURES, strict=True):
        for place, (group, variant) in enumerate(rows):
            values = [measure(run) for run in study.of(group, variant)]
            if not values:
                axes.text(0.5, place, "missing", transform=axes.get_yaxis_transform(), ha="center", va="center",
                          fontsize=8, color="#a00000")
                continue
            axes.scatter(values, [place] * len(values), s=18, color=COLOURS[0], alpha=0.6, linewidths=0, zorder=3)
            axes.plot([mean_and_deviation(values)[0]], [place], "|", color="#000000", markersize=14, markeredgewidth=2)
        axes.set_xlabel(name, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.margins(x=0.12)
        axes.grid(alpha=0.25, linewidth=0.6)
    named = several_groups(study)
    panels[0].set_yticks(range(len(rows)), [label(group, variant, named) for group, variant in rows], fontsize=8)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle("points: seeds, line: their mean", fontsize=8, color="#555555")
    return figure


def sketch_rows(run: Run) -> tuple[float, bool] | None:
    """Rows of the sketch of the last selection, and whether `auto` found them."""
    configured = number_of(run, "selection.sketch.size")
    if configured is not None and configured > 0:
        return configured, False
    return (float(run.subset["sketch_rows"]), True) if run.subset and run.subset["sketch_rows"] else None


def certificate(run: Run) -> float | None:
    return run.last_selection["relative_certificate"] if run.last_selection else None


def by_sketch_size(study: Study | None) -> Figure | None:
    """Accuracy, selection time, memory and certificate against the rows of the sketch; `auto` apart from the line."""
    if study is None:
        return None
    given: dict[float, list[Run]] = {}
    automatic: list[tuple[float, Run]] = []
    for run in study.runs:
        rows, is_automatic = sketch_rows(run) or (None, False)
        if rows is not None and is_automatic:
            automatic.append((rows, run))
        elif rows is not None:
            given.setdefault(rows, []).append(run)
    if len(given) < 2:
        return None
    shown: list[tuple[str, Callable[[Run], float | None]]] = [
        MEASURES[0], MEASURES[1], MEASURES[3], ("error bound of the sketch /\nlargest eigenvalue", certificate)]
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    for axes, (name, measure) in zip(figure.subplots(2, 2).flat, shown, strict=True):
        values = {x: [v for run in given[x] if (v := measure(run)) is not None] for x in sorted(given)}
        points = [(x, *mean_and_deviation(found)) for x, found in values.items() if found]
        axes.errorbar([x for x, _, _ in points], [m for _, m, _ in points], [d for _, _, d in points], capsize=3,
                      label="rows as given (mean ± deviation over seeds)", **style(0))
        pairs = [(rows, v) for rows, run in automatic if (v := measure(run)) is not None]
        if pairs:
            axes.plot(*zip(*pairs, strict=True), "s", markersize=7, markerfacecolor="none", color=COLOURS[4],
                      label="rows as `auto` finds them (each seed)")
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(given), [f"{x:g}" for x in sorted(given)])
        axes.minorticks_off()
        axes.set_xlabel("rows of the sketch")
        axes.set_ylabel(name)
        axes.grid(alpha=0.25, linewidth=0.6)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8,
                  frameon=False)
    return figure


def trade_off_of(axes: Axes, study: Study) -> None:
    there = [(group, variant) for group, variant in study.variants() if study.of(group, variant)]
    for place, (group, variant) in enumerate(there):
        runs = study.of(group, variant)
        x, dx = mean_and_deviation([run.selection_seconds for run in runs])
        y, dy = mean_and_deviation([100 * run.accuracy for run in runs])
        axes.errorbar([x], [y], [dy], [dx], capsize=2, markersize=6, elinewidth=0.9,
                      label=label(group, variant, several_groups(study)), **{**style(place), "linestyle": "none"})
    axes.set_xlabel("selection, s", fontsize=9)
    axes.set_ylabel("test accuracy, %", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def trade_offs(studies: Mapping[str, Study | None]) -> Figure | None:
    """Accuracy against the time of selection, a panel for each study (mean ± deviation over seeds)."""
    if not any(studies.values()):
        return None
    height = -(-len(studies) // 2)
    figure = Figure(figsize=(11.5, 0.3 + 2.9 * height), layout="constrained")
    panels = figure.subplots(height, 2, squeeze=False).flat
    for axes, (name, study) in zip(panels, studies.items(), strict=False):
        axes.set_title(name, fontsize=10)
        if study is None:
            axes.text(0.5, 0.5, "missing", ha="center", va="center", color="#a00000", transform=axes.transAxes)
            axes.set_xticks([])
            axes.set_yticks([])
        else:
            trade_off_of(axes, study)
    for axes in figure.axes[len(studies):]:
        axes.set_axis_off()
    return figure
