"""The pictures of a report. Each function gives a figure, or None where the runs hold nothing to show."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.study import Run, Study

# Okabe and Ito: told apart with every kind of colour blindness. Shape and line tell apart what shares a colour.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000", "#8a7a00"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
LINES = ["-", "--", "-.", ":"]

Style = dict[str, str]


def style(place: int) -> Style:
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[(place + place // len(COLOURS)) % len(MARKERS)],
            "linestyle": LINES[place // len(COLOURS) % len(LINES)]}


def finish_grid(figure: Figure, used: int, x_label: str, y_label: str) -> None:
    """Of a grid of alike panels: one legend, one label for each axis, nothing where there is no more to show."""
    for axes in figure.axes[used:]:
        axes.set_axis_off()
    figure.axes[0].legend(fontsize=8, frameon=False)
    figure.supxlabel(x_label, fontsize=9)
    figure.supylabel(y_label, fontsize=9)


def new(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def legend_beside(axes: Axes, count: int) -> None:
    if count > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False,
                    ncols=1 + (count - 1) // 24)


def label(group: str, variant: str, several_groups: bool) -> str:
    return f"{group}: {variant}" if several_groups else variant


def several_groups(study: Study) -> bool:
    return len({group for group, _ in study.variants()}) > 1


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def accuracy(study: Study) -> Figure | None:
    """Each run a point, each variant its mean; variants from top to bottom in the order of the study."""
    variants = study.variants()
    if len(variants) < 2:
        return None
    figure, axes = new(8, 1.2 + 0.27 * len(variants))
    for place, (group, variant) in enumerate(variants):
        values = [100 * run.accuracy for run in study.of(group, variant)]
        if not values:
            axes.text(0.02, place, "missing", transform=axes.get_yaxis_transform(), va="center", fontsize=8,
                      color="#a00000")
            continue
        axes.scatter(values, [place] * len(values), s=16, color=COLOURS[0], alpha=0.6, zorder=3, linewidths=0)
        axes.plot([statistics.mean(values)], [place], "|", color="#000000", markersize=13, markeredgewidth=2, zorder=4)
    named = several_groups(study)
    axes.set_yticks(range(len(variants)), [label(g, v, named) for g, v in variants], fontsize=8)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set_xlabel("test accuracy after the last step, % (points: seeds, line: mean)")
    return figure


def lines_against(study: Study, x_of: Callable[[Run], float | None]) -> dict[tuple[str, str], list[Run]]:
    """Runs by group and by their choices on all axes but the one that x follows: on a line, only seeds share an x."""
    lines: dict[tuple[str, str], list[Run]] = {}
    for group in dict.fromkeys(run.group for run in study.runs):
        runs = [run for run in study.runs if run.group == group]
        xs = {id(run): x_of(run) for run in runs}
        followed = set()
        if len(set(xs.values())) > 1:
            for axis in dict.fromkeys(name for run in runs for name in run.choices):
                by_choice: dict[str | None, set[float | None]] = {}
                for run in runs:
                    by_choice.setdefault(run.choices.get(axis), set()).add(xs[id(run)])
                if len(by_choice) > 1 and all(len(values) == 1 for values in by_choice.values()):
                    followed.add(axis)
        for run in runs:
            rest = [choice for axis, choice in run.choices.items() if axis not in followed]
            name = ", ".join(rest) if rest else group if run.choices else run.variant
            lines.setdefault((group, name), []).append(run)
    return lines


def against(study: Study, x_of: str, x_label: str, logarithmic: bool = False) -> Figure | None:
    """Accuracy of each line of lines_against it, against a number of the configuration (dotted key or `fraction`)."""
    figure, axes = new(8, 4.2)
    drawn, every_x = 0, set()
    for place, ((group, name), runs) in enumerate(lines_against(study, lambda run: number_of(run, x_of)).items()):
        by_x: dict[float, list[float]] = {}
        for run in runs:
            x = number_of(run, x_of)
            if x is not None:
                by_x.setdefault(x, []).append(100 * run.accuracy)
        if not by_x:
            continue
        xs = sorted(by_x)
        points = [mean_and_deviation(by_x[x]) for x in xs]
        axes.errorbar(xs, [m for m, _ in points], [d for _, d in points], capsize=3, markersize=5, linewidth=1.4,
                      label=label(group, name, several_groups(study)), **style(place))
        drawn += len(xs) > 1
        every_x |= {float(f"{x:.3g}") for x in xs}
    if not drawn:
        return None
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xticks(sorted(every_x), [f"{x:g}" for x in sorted(every_x)])
        axes.minorticks_off()
    axes.set_xlabel(x_label)
    axes.set_ylabel("test accuracy, %\n(mean ± deviation over seeds)")
    legend_beside(axes, len(axes.get_legend_handles_labels()[0]))
    return figure


def number_of(run: Run, key: str) -> float | None:
    if key == "fraction":
        return run.fraction
    value = run.config
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def time_against_accuracy(study: Study) -> Figure | None:
    """What each variant costs, and gives."""
    variants = [(g, v) for g, v in study.variants() if study.of(g, v)]
    if len(variants) < 2:
        return None
    figure, axes = new(8, max(4.2, 0.2 * len(variants)))
    for place, (group, variant) in enumerate(variants):
        runs = study.of(group, variant)
        x, dx = mean_and_deviation([run.total_seconds for run in runs])
        y, dy = mean_and_deviation([100 * run.accuracy for run in runs])
        axes.errorbar([x], [y], [dy], [dx], capsize=2, markersize=6, elinewidth=0.9,
                      label=label(group, variant, several_groups(study)), **{**style(place), "linestyle": "none"})
    axes.set_xlabel("total time, s (selection included; mean ± deviation over seeds)")
    axes.set_ylabel("test accuracy, %")
    legend_beside(axes, len(variants))
    return figure


PHASES = ["proxy", "sketch", "merge", "score", "choose"]


def seconds_of_phase(run: Run, phase: str) -> float:
    """Over all selections of a run."""
    return sum(selection["phase_seconds"].get(phase, 0.0) for selection in run.metrics["selections"])


def selection_cost(study: Study) -> Figure | None:
    """Seconds of all selections of a run by phase, means over the seeds."""
    variants = [(g, v) for g, v in study.variants() if any(run.last_selection for run in study.of(g, v))]
    if not variants:
        return None
    figure, axes = new(8, 1.3 + 0.27 * len(variants))
    phases = list(dict.fromkeys([*PHASES, *(phase for run in study.runs for s in run.metrics["selections"]
                                            for phase in s["phase_seconds"])]))
    seen = []
    for place, (group, variant) in enumerate(variants):
        runs, left = study.of(group, variant), 0.0
        known = 0.0
        for number, phase in enumerate(phases):
            seconds = statistics.mean(seconds_of_phase(run, phase) for run in runs)
            if seconds > 0.001:
                axes.barh(place, seconds, left=left, color=COLOURS[number % len(COLOURS)], height=0.7,
                          label=phase if phase not in seen else None)
                seen.append(phase)
            left += seconds
            known += seconds
        rest = statistics.mean(run.selection_seconds for run in runs) - known
        if rest > 0.005:
            axes.barh(place, rest, left=left, color="#c8c8c8", height=0.7,
                      label="other" if "other" not in seen else None)
            seen.append("other")
    named = several_groups(study)
    axes.set_yticks(range(len(variants)), [label(g, v, named) for g, v in variants], fontsize=8)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set_xlabel("seconds of selection in a run (mean over seeds)")
    legend_beside(axes, 2)
    return figure


def curve(run: Run, which: str, what: str) -> tuple[list[int], list[float]]:
    """Steps and values of epochs that have them."""
    steps, values = [], []
    for epoch in run.metrics["epochs"]:
        if epoch.get(which) and epoch[which][what] is not None:
            steps.append(epoch["steps"])
            values.append(epoch[which][what])
    return steps, values


def curves_of_study(study: Study) -> Figure | None:
    """Test accuracy against steps, mean and band of one deviation, where runs evaluated more than once."""
    figure, axes = new(8, 4.2)
    drawn = 0
    for place, (group, variant) in enumerate(study.variants()):
        by_step: dict[int, list[float]] = {}
        for run in study.of(group, variant):
            for step, value in zip(*curve(run, "test", "accuracy"), strict=True):
                by_step.setdefault(step, []).append(100 * value)
        if len(by_step) < 2:
            continue
        steps = sorted(by_step)
        means = np.array([mean_and_deviation(by_step[step]) for step in steps])
        look = style(place)
        axes.plot(steps, means[:, 0], color=look["color"], linestyle=look["linestyle"], linewidth=1.4,
                  label=label(group, variant, several_groups(study)))
        axes.fill_between(steps, means[:, 0] - means[:, 1], means[:, 0] + means[:, 1], color=look["color"], alpha=0.15,
                          linewidth=0)
        drawn += 1
    if not drawn:
        return None
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel("test accuracy, %\n(mean, band: deviation over seeds)")
    legend_beside(axes, drawn)
    return figure


def curves_of_run(run: Run) -> Figure:
    """Loss and accuracy on what is trained on, on validation and on test."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    parts = [("train", "training (as trained on)"), ("validation", "validation"), ("test", "test")]
    for place, (which, name) in enumerate(parts):
        for axes, what, scale in ((left, "loss", 1.0), (right, "accuracy", 100.0)):
            steps, values = curve(run, which, what)
            if values:
                axes.plot(steps, [scale * value for value in values], label=name, linewidth=1.4, markersize=4,
                          **style(place))
    for axes, name in ((left, "loss"), (right, "accuracy, %")):
        axes.set_xlabel("optimiser steps")
        axes.set_ylabel(name)
        axes.grid(alpha=0.25)
    left.legend(fontsize=8, frameon=False)
    return figure


def class_balance(study: Study) -> Figure | None:
    """Share of each class among the kept of the last selection: one row a variant, mean over seeds."""
    rows, names, classes = [], [], []
    for group, variant in study.variants():
        histograms = [run.subset["class_histogram"] for run in study.of(group, variant) if run.subset]
        if histograms:
            shares = [np.array(h) / max(1, sum(h)) for h in histograms]
            rows.append(100 * np.mean(shares, axis=0))
            names.append(label(group, variant, several_groups(study)))
            classes = next(run.subset["class_names"] for run in study.of(group, variant) if run.subset)
    if not rows:
        return None
    figure = Figure(figsize=(2.5 + min(9.0, 0.55 * len(classes)), 1.5 + 0.25 * len(rows)), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(np.array(rows), aspect="auto", cmap="cividis", vmin=0.0)
    if len(classes) <= 25:
        axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right", fontsize=8)
    axes.set_xlabel("class")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    figure.colorbar(shown, ax=axes, label="share of the kept, %")
    return figure


def per_class_accuracy(study: Study) -> Figure | None:
    """Test accuracy of each class, where the runs recorded it."""
    rows, names = [], []
    for group, variant in study.variants():
        found = [run.class_accuracy for run in study.of(group, variant) if run.class_accuracy]
        if found:
            rows.append(100 * np.mean(np.array(found), axis=0))
            names.append(label(group, variant, several_groups(study)))
    if not rows:
        return None
    figure = Figure(figsize=(2.5 + min(9.0, 0.5 * len(rows[0])), 1.5 + 0.25 * len(rows)), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(np.array(rows), aspect="auto", cmap="cividis", vmin=0.0, vmax=100.0)
    classes = next((run.metrics["class_names"] for run in study.runs if run.metrics.get("class_names")), [])
    if len(classes) == len(rows[0]) <= 30:
        axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right", fontsize=8)
    axes.set_xlabel("class")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    figure.colorbar(shown, ax=axes, label="test accuracy, %")
    return figure


def runs_with_scores(study: Study, most: int) -> list[Run]:
    """The first run with scores of each variant."""
    found = []
    for group, variant in study.variants():
        run = next((run for run in study.of(group, variant) if run.scores), None)
        if run is not None and len(found) < most:
            found.append(run)
    return found


def score_histograms(study: Study, wrong_of: dict[str, set[int]]) -> Figure | None:
    """Scores of all candidates and of the kept; of the wrongly labelled apart, where they are known."""
    runs = runs_with_scores(study, 9)
    if not runs:
        return None
    columns = min(3, len(runs))
    height = -(-len(runs) // columns)
    figure = Figure(figsize=(0.6 + 3.3 * columns, 0.5 + 2.3 * height), layout="constrained")
    for axes, run in zip(figure.subplots(height, columns, squeeze=False).flat, runs, strict=False):
        assert run.scores is not None
        scores = np.array(run.scores.scores)
        kept, finite = np.array(run.scores.kept), np.isfinite(scores)
        bins = np.linspace(scores[finite].min(), scores[finite].max() + 1e-9, 41)
        axes.hist(scores[finite], bins=bins, color="#b8b8b8", label="all candidates")
        axes.hist(scores[finite & kept], bins=bins, color=COLOURS[0], label="kept", histtype="step", linewidth=1.5)
        wrong = np.isin(np.array(run.scores.ids), list(wrong_of.get(run.name, ())))
        if wrong.any():
            axes.hist(scores[finite & wrong], bins=bins, color=COLOURS[4], label="label made wrong", histtype="step",
                      linewidth=1.5, linestyle="--")
        axes.set_title(f"{label(run.group, run.variant, several_groups(study))}, seed {run.seed}", fontsize=8)
        axes.tick_params(labelsize=7)
    finish_grid(figure, len(runs), "score", "examples")
    return figure


def certificates(study: Study) -> Figure | None:
    """The sketch's own bound of its error, by variant."""
    points = []
    for group, variant in study.variants():
        values = [s["relative_certificate"] for run in study.of(group, variant) for s in run.metrics["selections"]
                  if s["relative_certificate"] is not None]
        if values:
            points.append((label(group, variant, several_groups(study)), values))
    if not points:
        return None
    figure, axes = new(8, 1.2 + 0.27 * len(points))
    for place, (_, values) in enumerate(points):
        axes.scatter(values, [place] * len(values), color=COLOURS[0], s=18, alpha=0.7, linewidths=0)
    axes.set_yticks(range(len(points)), [name for name, _ in points], fontsize=8)
    axes.set_ylim(len(points) - 0.5, -0.5)
    axes.set_xlim(left=0.0)
    axes.set_xlabel("error bound of the sketch / largest eigenvalue of the gradients' second moment (each selection)")
    return figure


def wrong_labels(study: Study) -> Figure | None:
    """How many of the kept have a wrong label, against how many there are in all."""
    figure, axes = new(8, 4.0)
    drawn, most = 0, 0.0

    def rate_of(run: Run) -> float | None:
        last = run.last_selection
        if not last or last["wrong_labels_kept"] is None or not last["kept"]:
            return None
        return round(100 * run.summary["corrupted_labels"] / last["candidates"], 3)

    for place, ((group, name), runs) in enumerate(lines_against(study, rate_of).items()):
        by_rate: dict[float, list[float]] = {}
        for run in runs:
            last, rate = run.last_selection, rate_of(run)
            if last and rate is not None:
                by_rate.setdefault(rate, []).append(100 * last["wrong_labels_kept"] / last["kept"])
        if not by_rate:
            continue
        xs = sorted(by_rate)
        points = [mean_and_deviation(by_rate[x]) for x in xs]
        axes.errorbar(xs, [m for m, _ in points], [d for _, d in points], capsize=3, markersize=5,
                      label=label(group, name, several_groups(study)), **style(place))
        most, drawn = max(most, *xs), drawn + 1
    if not drawn:
        return None
    axes.plot([0, most], [0, most], color="#767676", linewidth=0.9, label="as in all the data")
    axes.set_xlabel("labels made wrong, % of all")
    axes.set_ylabel("labels made wrong, % of the kept\n(mean ± deviation over seeds)")
    legend_beside(axes, drawn + 1)
    return figure


def memory(study: Study) -> Figure | None:
    """Peak memory of the rank that took most."""
    variants = [(g, v) for g, v in study.variants() if study.of(g, v)]
    if len(variants) < 2:
        return None
    figure, axes = new(8, 1.2 + 0.27 * len(variants))
    has_device = any(run.summary["device_peak_bytes"] > 0 for run in study.runs)
    for key, name, shift, colour in (("host_peak_bytes", "host", -0.18 if has_device else 0.0, COLOURS[0]),
                                     ("device_peak_bytes", "GPU", 0.18, COLOURS[1])):
        means = [mean_and_deviation([run.summary[key] / 2**20 for run in study.of(g, v)]) for g, v in variants]
        if any(mean > 0 for mean, _ in means):
            axes.barh([p + shift for p in range(len(variants))], [m for m, _ in means], xerr=[d for _, d in means],
                      height=0.34, color=colour, label=name, error_kw={"linewidth": 0.9})
    axes.set_yticks(range(len(variants)), [label(g, v, several_groups(study)) for g, v in variants], fontsize=8)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set_xlabel("peak memory of a rank, MiB (mean, line: deviation over seeds)")
    legend_beside(axes, len(axes.get_legend_handles_labels()[0]))
    return figure

