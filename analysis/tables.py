"""The table of a study: for people, as CSV, Markdown and LaTeX. What is missing is shown as missing."""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections.abc import Sequence

import numpy as np
from scipy import stats

from analysis.study import Run, Study

HEADINGS = ["group", "variant", "runs", "test accuracy (%)", "F1 (%)", "effective epochs", "total (s)", "CPU (s)",
            "selection (s)", "memory per rank (MiB)"]


def spread(values: Sequence[float], digits: int) -> str:
    """Mean, and sample standard deviation where there are at least two values."""
    if not values:
        return "missing"
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def rows(study: Study) -> list[list[str]]:
    """A line for each variant, in the order of the study."""
    lines = []
    for group, variant in study.variants():
        runs = study.of(group, variant)
        missing = sum((run.group, run.variant) == (group, variant) for run in study.missing)
        lines.append([
            group, variant, f"{len(runs)} of {len(runs) + missing}",
            spread([100 * run.accuracy for run in runs], 2),
            spread([100 * run.f1_macro for run in runs if run.f1_macro is not None], 2),
            spread([float(run.summary["effective_epochs"]) for run in runs], 2),
            spread([run.total_seconds for run in runs], 1),
            spread([run.cpu_seconds for run in runs if run.cpu_seconds is not None], 1),
            spread([run.selection_seconds for run in runs], 1),
            spread([run.summary["host_peak_bytes"] / 2**20 for run in runs], 0),
        ])
    return lines


def to_csv(lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADINGS, *lines])
    return text.getvalue()


def to_markdown(lines: Sequence[Sequence[str]]) -> str:
    head = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * 3 + "---:|" * (len(HEADINGS) - 3)]
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join(head + body) + "\n"


def escaped(text: str) -> str:
    marks = {"\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}", "±": r"$\pm$", **{c: "\\" + c for c in "#$%&_{}"}}
    return "".join(marks.get(c, c) for c in text)


def to_latex(lines: Sequence[Sequence[str]]) -> str:
    """A tabular of booktabs."""
    body = [" & ".join(escaped(cell) for cell in line) + r" \\" for line in [HEADINGS, *lines]]
    columns = "lll" + "r" * (len(HEADINGS) - 3)
    lines_of_text = [r"% needs \usepackage{booktabs}", r"\begin{tabular}{" + columns + "}", r"\toprule", body[0],
                     r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines_of_text) + "\n"


@dataclasses.dataclass
class Detection:
    """How well the last selection of a run finds wrong labels. None where there is nothing to count by."""

    doubted: int | None
    precision: float | None
    recall: float | None
    auroc: float | None


def auroc(scores: Sequence[float], is_wrong: Sequence[bool]) -> float | None:
    """The chance that a wrong one has a lower score than a right one, ties by half (Mann and Whitney)."""
    values, wrong = np.nan_to_num(np.array(scores, dtype=float), nan=-np.inf), np.array(is_wrong, dtype=bool)
    count, others = int(wrong.sum()), int((~wrong).sum())
    if count == 0 or others == 0:
        return None
    ranks = stats.rankdata(-values)
    return float((ranks[wrong].sum() - count * (count + 1) / 2) / (count * others))


def detection(run: Run) -> Detection | None:
    """None where no label was made wrong, or the run neither doubts nor scores."""
    subset, total = run.subset, run.summary.get("corrupted_labels")
    if subset is None or not total:
        return None
    found = Detection(None, None, None, None)
    if subset["doubtful_ids"]:
        hits = subset["wrong_labels_doubted"]
        found.doubted = len(subset["doubtful_ids"])
        found.precision, found.recall = hits / found.doubted, hits / total
    if run.scores is not None and run.wrong_labels is not None:
        found.auroc = auroc(run.scores.scores, [example in run.wrong_labels for example in run.scores.ids])
    return found if found.doubted is not None or found.auroc is not None else None
