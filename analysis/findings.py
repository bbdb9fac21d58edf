"""What a study shows, each with the test that says so; what no test shows is said to be not shown."""

from __future__ import annotations

import dataclasses
import statistics

from analysis.differences import FEWEST, Difference, compare, holm
from analysis.study import Run, Study


@dataclasses.dataclass
class Findings:
    differences: list[Difference]  # of accuracy, in points of percent
    untested: list[str]  # comparisons with too few runs
    remarks: list[str]  # what the data say without a comparison


def reference_of(variants: list[str]) -> str:
    """Random where there is one: it is what every method has to beat. Else the first of the study."""
    return next((name for name in variants if name.startswith("random")), variants[0])


def compared_choices(runs: list[Run]) -> dict[tuple[str, ...], dict[str, list[Run]]]:
    """Runs of one group by the choices on all axes but the first, and there by the choice on the first."""
    table: dict[tuple[str, ...], dict[str, list[Run]]] = {}
    for run in runs:
        first, *rest = list(run.choices.values()) or [run.variant]
        table.setdefault(tuple(rest), {}).setdefault(first, []).append(run)
    return table


def find(study: Study) -> Findings:
    """Each first choice of a group against the reference, all else equal."""
    findings = Findings([], [], [])
    for group in dict.fromkeys(group for group, _ in study.variants()):
        for rest, by_choice in compared_choices([run for run in study.runs if run.group == group]).items():
            names = list(by_choice)
            if len(names) < 2:
                continue
            reference = reference_of(names)
            place = ", ".join([group, *rest])
            others = {run.seed: 100 * run.accuracy for run in by_choice[reference]}
            for name in names:
                if name == reference:
                    continue
                values = {run.seed: 100 * run.accuracy for run in by_choice[name]}
                difference = compare(f"{name} ({place})", reference, values, others)
                if difference is None:
                    why = (f"{len(values)} and {len(others)} runs, fewer than {FEWEST}"
                           if min(len(values), len(others)) < FEWEST
                           else "all seeds differ by the same, so there is no spread to test by")
                    findings.untested.append(f"{name} against {reference} ({place}): {why}")
                else:
                    findings.differences.append(difference)
    holm(findings.differences)
    findings.remarks += cost_remarks(study)
    return findings


def cost_remarks(study: Study) -> list[str]:
    """The share of time that selection takes, where it takes any."""
    shares = {}
    for group, variant in study.variants():
        runs = [run for run in study.of(group, variant) if run.last_selection and run.total_seconds > 0]
        if runs:
            shares[f"{group}: {variant}"] = statistics.mean(run.selection_seconds / run.total_seconds for run in runs)
    if not shares:
        return []
    least, most = min(shares, key=lambda name: shares[name]), max(shares, key=lambda name: shares[name])
    if least == most:
        return [f"Selection takes {100 * shares[most]:.0f} % of the time of a run ({most}; mean over seeds, no test)."]
    return [f"Selection takes {100 * shares[least]:.0f} % ({least}) to {100 * shares[most]:.0f} % ({most}) of the time "
            "of a run (means over seeds, no test)."]


def sentence(difference: Difference) -> str:
    numbers = (f"{difference.mean:+.2f} points (95 % interval {difference.low:+.2f} to {difference.high:+.2f}; "
               f"{difference.test}; p = {difference.p:.2g}, Holm {difference.adjusted:.2g})")
    if not difference.is_shown:
        return f"{difference.what} against {difference.reference}: no difference shown, {numbers}"
    better = "better" if difference.mean > 0 else "worse"
    return f"{difference.what} is {better} than {difference.reference}: {numbers}"
