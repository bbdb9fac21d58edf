"""Pictures and tables of robustness: wrong labels and how they are found, and classes with few examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import tables
from analysis.figures import (
    COLOURS,
    LINES,
    finish_grid,
    legend_beside,
    lines_against,
    mean_and_deviation,
    new,
    number_of,
    style,
)
from analysis.study import Run, Study, read_json

RATE = "data.corrupt_labels"
DROP = "data.minority_downsample"


def wrong_and_scores(run: Run) -> tuple[np.ndarray, np.ndarray] | None:
    """Finite scores of the last selection, and which of the labels were made wrong; None where either is not known."""
    if run.scores is None or not run.wrong_labels:
        return None
    scores = np.array(run.scores.scores)
    wrong = np.isin(np.array(run.scores.ids), list(run.wrong_labels))
    finite = np.isfinite(scores)
    return scores[finite], wrong[finite]


def methods_at(study: Study, rate: float) -> Iterator[tuple[int, str, list[Run]]]:
    """Place in the study (its colour in all figures), name and runs of each method with scores at a rate."""
    for place, ((_, name), runs) in enumerate(lines_against(study, lambda run: number_of(run, RATE)).items()):
        scored = [run for run in runs if number_of(run, RATE) == rate and wrong_and_scores(run) is not None]
        if scored:
            yield place, name, scored


def score_distributions(study: Study | None, rate: float) -> Figure | None:
    """Scores of the right and of the wrong labels at one rate, as shares of each: a panel a method, all seeds."""
    methods = list(methods_at(study, rate)) if study else []
    if not methods:
        return None
    columns = min(3, len(methods))
    height = -(-len(methods) // columns)
    figure = Figure(figsize=(0.6 + 3.5 * columns, 0.7 + 2.5 * height), layout="constrained")
    for axes, (_, name, runs) in zip(figure.subplots(height, columns, squeeze=False).flat, methods, strict=False):
        pairs = [pair for run in runs if (pair := wrong_and_scores(run)) is not None]
        scores, wrong = np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])
        bins = np.linspace(scores.min(), scores.max() + 1e-9, 41)
        for which, colour, look, text in ((~wrong, COLOURS[0], "-", "right label"), (wrong, COLOURS[4], "--", "wrong")):
            share = np.full(which.sum(), 100 / max(1, which.sum()))
            axes.hist(scores[which], bins=bins, weights=share, histtype="step", linewidth=1.6, color=colour,
                      linestyle=look, label=text)
        found = [value for run in runs if (one := tables.detection(run)) and (value := one.auroc) is not None]
        axes.set_title(f"{name} (AUROC {tables.spread(found, 3)}, n = {len(runs)})", fontsize=9)
        axes.tick_params(labelsize=7)
    finish_grid(figure, len(methods), "score of the selection (each method's own scale)",
                "share of the right, and of the wrong, %")
    return figure


def precision_and_recall(scores: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the k lowest scores, for each k: the part that is wrong, and the part of the wrong that is among them."""
    hits = np.cumsum(wrong[np.argsort(scores, kind="stable")])
    return hits / np.arange(1, len(hits) + 1), hits / max(1, hits[-1])


def finding_curves(study: Study | None, rate: float) -> Figure | None:
    """Precision against recall of the lowest scored as wrong labels: a line a method, the mean over its seeds.

    Methods that differ only in what they keep have the same scores: lines are broken differently, so that all are seen.
    """
    methods = list(methods_at(study, rate)) if study else []
    if not methods:
        return None
    figure, axes = new(8, 4.2)
    grid = np.linspace(0.02, 1.0, 99)
    for number, (place, name, runs) in enumerate(methods):
        lines = []
        for run in runs:
            pair = wrong_and_scores(run)
            assert pair is not None
            precision, recall = precision_and_recall(*pair)
            lines.append(100 * precision[np.searchsorted(recall, grid - 1e-12).clip(max=len(recall) - 1)])
        mean = np.mean(lines, axis=0)
        deviation = np.std(lines, axis=0, ddof=1) if len(lines) > 1 else np.zeros(len(grid))
        colour = style(place)["color"]
        axes.plot(100 * grid, mean, color=colour, linestyle=LINES[number % len(LINES)], label=name, linewidth=1.8)
        axes.fill_between(100 * grid, mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(100 * rate, color="#767676", linewidth=0.9, label="taken at random")
    axes.set_ylim(0, 103)
    axes.set_xlabel("recall: wrong labels that are among the lowest scored, %")
    axes.set_ylabel("precision: wrong among the lowest scored, %\n(mean, band: deviation over seeds)")
    legend_beside(axes, len(methods) + 1)
    return figure


def doubts(study: Study | None) -> Figure | None:
    """Precision and recall of the labels that a selection doubts, against the part made wrong."""
    if study is None:
        return None
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    measures: list[tuple[str, Callable[[tables.Detection], float | None]]] = [
        ("precision: wrong among the doubted, %", lambda found: found.precision),
        ("recall: wrong labels that are doubted, %", lambda found: found.recall)]
    drawn = False
    panels = figure.subplots(1, 2)
    for axes, (name, measure) in zip(panels, measures, strict=True):
        for place, ((_, method), runs) in enumerate(lines_against(study, lambda run: number_of(run, RATE)).items()):
            by_rate: dict[float, list[float]] = {}
            for run in runs:
                found, rate = tables.detection(run), number_of(run, RATE)
                if found is not None and rate and (value := measure(found)) is not None:
                    by_rate.setdefault(100 * rate, []).append(100 * value)
            if by_rate:
                points = [mean_and_deviation(by_rate[x]) for x in sorted(by_rate)]
                axes.errorbar(sorted(by_rate), [m for m, _ in points], [d for _, d in points], capsize=3, markersize=5,
                              label=method, **style(place))
                drawn = True
        axes.set_ylim(0, 105)
        axes.set_xlabel("labels made wrong, % of all")
        axes.set_ylabel(name + "\n(mean ± deviation over seeds)", fontsize=9)
        axes.grid(alpha=0.25, linewidth=0.6)
    if not drawn:
        return None
    panels[0].legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def detection_table(study: Study | None) -> pd.DataFrame | None:
    """How each variant's last selection finds wrong labels: mean ± sample standard deviation over the seeds."""
    if study is None:
        return None
    columns = [("labels doubted", "doubted", 0), ("precision", "precision", 3), ("recall", "recall", 3),
               ("AUROC of the scores", "auroc", 3)]
    rows, names = [], []
    for group, variant in study.variants():
        found = [one for run in study.of(group, variant) if (one := tables.detection(run)) is not None]
        if found:
            names.append(variant)
            values = [[v for one in found if (v := getattr(one, what)) is not None] for _, what, _ in columns]
            digits = [places for _, _, places in columns]
            rows.append([tables.spread(v, d) if v else "-" for v, d in zip(values, digits, strict=True)])
    return pd.DataFrame(rows, index=pd.Index(names, name="variant"), columns=[name for name, _, _ in columns])


def reduced_classes(study: Study) -> set[int]:
    """The classes that any run of this study took examples from."""
    found: set[int] = set()
    for run in study.runs:
        path = run.folder / "data_changes.json"
        if path.is_file():
            dropped = read_json(path)["dropped"]
            found |= {label for one in dropped if one["setting"] == DROP for label in one["true"]}
    return found


def minority_accuracy(study: Study | None) -> Figure | None:
    """Test accuracy on the reduced classes, and on the others, against the part dropped from the reduced."""
    reduced = reduced_classes(study) if study else set()
    if study is None or not reduced:
        return None
    figure = Figure(figsize=(10.5, 3.9), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, is_reduced in zip(panels, (True, False), strict=True):
        for place, ((_, method), runs) in enumerate(lines_against(study, lambda run: number_of(run, DROP)).items()):
            by_drop: dict[float, list[float]] = {}
            for run in runs:
                drop, accuracies = number_of(run, DROP), run.class_accuracy
                if drop is not None and accuracies:
                    chosen = [value for c, value in enumerate(accuracies) if (c in reduced) == is_reduced]
                    by_drop.setdefault(100 * drop, []).append(100 * float(np.nanmean(chosen)))
            if not by_drop:
                continue
            points = [mean_and_deviation(by_drop[x]) for x in sorted(by_drop)]
            axes.errorbar(sorted(by_drop), [m for m, _ in points], [d for _, d in points], capsize=3, markersize=5,
                          label=method, **style(place))
        axes.set_title(f"{len(reduced)} classes with examples left out" if is_reduced else "the other classes",
                       fontsize=10)
        axes.set_xlabel("left out of each of the reduced classes, %")
        axes.grid(alpha=0.25, linewidth=0.6)
    panels[0].set_ylabel("test accuracy, %\n(mean over the classes; ± deviation over seeds)")
    legend_beside(panels[1], 2)
    return figure
