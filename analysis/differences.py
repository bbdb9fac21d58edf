"""Is there a difference? Tests over seeds, with their uncertainty and a correction for asking often."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

from scipy import stats

LEVEL = 0.05
FEWEST = 3  # values on each side (or pairs) below which nothing is tested


@dataclasses.dataclass
class Difference:
    """Mean of `what` less mean of `reference`."""

    what: str
    reference: str
    test: str  # "paired t, n = 3 seeds" or "Welch t, n = 3 and 4"
    mean: float
    low: float  # confidence interval of 95 %, of this test alone
    high: float
    p: float
    adjusted: float = math.nan  # after Holm's correction, over all tests of a report

    @property
    def is_shown(self) -> bool:
        return self.adjusted < LEVEL


def no_spread(values: Sequence[float], others: Sequence[float]) -> float:
    """What rounding alone makes of equal gaps. Accuracies are counts, so that a few seeds may well agree in them."""
    return 1e-9 * max(1e-9, *(abs(value) for value in (*values, *others)))


def paired(what: str, reference: str, values: Sequence[float], others: Sequence[float]) -> Difference | None:
    """Student's t over pairs of equal seeds. None where all gaps are the same: there is nothing to measure them by."""
    gaps = [a - b for a, b in zip(values, others, strict=True)]
    mean, count = statistics.mean(gaps), len(gaps)
    error = statistics.stdev(gaps) / math.sqrt(count)
    if error < no_spread(values, others):  # all gaps are the same: no spread to measure against
        return None
    half = float(stats.t.ppf(0.975, count - 1)) * error
    p = float(2 * stats.t.sf(abs(mean / error), count - 1))
    return Difference(what, reference, f"paired t, n = {count} seeds", mean, mean - half, mean + half, p)


def welch(what: str, reference: str, values: Sequence[float], others: Sequence[float]) -> Difference | None:
    """Welch's t: the seeds differ, and perhaps the variances. None where neither side has a spread."""
    mean = statistics.mean(values) - statistics.mean(others)
    parts = [statistics.variance(v) / len(v) for v in (values, others)]
    name = f"Welch t, n = {len(values)} and {len(others)}"
    if math.sqrt(sum(parts)) < no_spread(values, others):
        return None
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (values, others), strict=True))
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(sum(parts))
    p = float(2 * stats.t.sf(abs(mean) / math.sqrt(sum(parts)), freedom))
    return Difference(what, reference, name, mean, mean - half, mean + half, p)


def compare(what: str, reference: str, values: dict[int, float], others: dict[int, float]) -> Difference | None:
    """By seed: paired where at least three seeds are common, else Welch; None where there are too few runs, or no spread among them."""
    common = sorted(set(values) & set(others))
    if len(common) >= FEWEST:
        return paired(what, reference, [values[seed] for seed in common], [others[seed] for seed in common])
    if min(len(values), len(others)) >= FEWEST:
        return welch(what, reference, list(values.values()), list(others.values()))
    return None


def holm(differences: Sequence[Difference]) -> None:
    """Sets `adjusted` of all (Holm 1979): the chance of any false finding among them stays below the level."""
    count, largest = len(differences), 0.0
    for place, difference in enumerate(sorted(differences, key=lambda d: d.p)):
        largest = max(largest, min(1.0, (count - place) * difference.p))
        difference.adjusted = largest
