"""Run folders and studies as the program leaves them, read without filling anything in."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import pathlib
from typing import Any


class StudyError(Exception):
    """What is wrong with a folder, and what to do."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """The candidates of one selection, equally long."""

    ids: list[int]
    labels: list[int]
    scores: list[float]
    kept: list[bool]


@dataclasses.dataclass
class Run:
    """One run that came to its end. Accuracies in [0, 1], times in seconds, memory in bytes."""

    name: str
    group: str
    variant: str
    seed: int
    choices: dict[str, str]
    folder: pathlib.Path
    config: dict[str, Any]
    about: dict[str, Any]  # versions, hosts, ranks, start time
    metrics: dict[str, Any]

    @property
    def summary(self) -> dict[str, Any]:
        return self.metrics["summary"]

    @property
    def accuracy(self) -> float:
        return float(self.summary["final_test"]["accuracy"])

    @property
    def total_seconds(self) -> float:
        return float(self.summary["total_seconds"])

    @property
    def f1_macro(self) -> float | None:
        """Unweighted mean of the classes' F1 on the test split, in [0, 1]."""
        value = self.summary["final_test"].get("f1_macro")
        return None if value is None else float(value)

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time of all ranks: of runs side by side on shared cores it says more than their total time."""
        value = self.summary.get("cpu_seconds")
        return None if value is None else float(value)

    @property
    def selection_seconds(self) -> float:
        return float(self.summary["selection_seconds"])

    @property
    def last_selection(self) -> dict[str, Any] | None:
        """The short record of the last selection, or None where nothing was selected."""
        return self.metrics["selections"][-1] if self.metrics["selections"] else None

    @property
    def fraction(self) -> float:
        """Part of the training examples that was trained on at the end."""
        last = self.last_selection
        return last["kept"] / last["candidates"] if last else 1.0

    @property
    def class_accuracy(self) -> list[float] | None:
        """Test accuracy by class after the last epoch, where the run recorded it."""
        for epoch in reversed(self.metrics["epochs"]):
            for holder in (epoch, epoch.get("test") or {}):
                if holder.get("class_accuracy"):
                    return [float(value) if value is not None else float("nan") for value in holder["class_accuracy"]]
        return None

    @functools.cached_property
    def subset(self) -> dict[str, Any] | None:
        """The whole record of the last selection, or None."""
        last = self.last_selection
        if last is None:
            return None
        path = self.folder / "subset_indices" / f"epoch_{last['epoch']}_indices.json"
        return read_json(path) if path.is_file() else None

    @functools.cached_property
    def wrong_labels(self) -> set[int] | None:
        """Ids whose label was made wrong; None where the run folder does not name them."""
        path = self.folder / "data_changes.json"
        if not path.is_file():
            return None
        return set(read_json(path).get("wrong_labels", {}).get("ids", []))

    @functools.cached_property
    def scores(self) -> Scores | None:
        """Of all candidates of the last selection; None where the method gives no scores."""
        last = self.last_selection
        if last is None:
            return None
        path = self.folder / "subset_indices" / f"epoch_{last['epoch']}_scores.csv"
        if not path.is_file():
            return None
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return Scores(
            [int(row["example_id"]) for row in rows],
            [int(row["label"]) for row in rows],
            [float(row["score"]) for row in rows],
            [row["kept"] == "1" for row in rows],
        )


@dataclasses.dataclass
class Missing:
    """A run of the study that has no result."""

    name: str
    group: str
    variant: str
    seed: int
    status: str


@dataclasses.dataclass
class Study:
    title: str
    folder: pathlib.Path
    runs: list[Run]
    missing: list[Missing]

    def variants(self) -> list[tuple[str, str]]:
        """(group, variant) in the order of the study, those without a result included."""
        return list(dict.fromkeys((run.group, run.variant) for run in self.in_order()))

    def in_order(self) -> list[Run | Missing]:
        return sorted([*self.runs, *self.missing], key=lambda run: self.order.get(run.name, 0))

    def of(self, group: str, variant: str) -> list[Run]:
        return [run for run in self.runs if (run.group, run.variant) == (group, variant)]

    order: dict[str, int] = dataclasses.field(default_factory=dict)


def read_json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise StudyError(f"{path}: damaged ({error})") from error


def read_run(folder: pathlib.Path, name: str = "", group: str = "", variant: str = "", seed: int | None = None,
             choices: dict[str, str] | None = None) -> Run | None:
    """The run in `folder`; None if it is not there or did not come to its end."""
    if not (folder / "metrics.json").is_file() or not (folder / "config.json").is_file():
        return None
    metrics, made = read_json(folder / "metrics.json"), read_json(folder / "config.json")
    try:
        if not metrics["summary"].get("final_test") or not metrics["summary"].get("finished"):
            return None
        config = made["config"]
        return Run(name or folder.name, group, variant or folder.name, config["seed"] if seed is None else seed,
                   choices or {}, folder, config, made["run"], metrics)
    except (KeyError, TypeError) as error:
        raise StudyError(f"{folder}: not a run folder of this version ({error!r} in its JSON files)") from error


def load(path: pathlib.Path) -> Study:
    """The study in a folder of `sage sweep`, or the one run in a run folder."""
    if (path / "metrics.json").is_file():
        run = read_run(path)
        if run is None:
            raise StudyError(f"{path}: this run has not come to its end: `sage train --resume {path}`")
        return Study(path.name, path, [run], [])
    if (path / "study.json").is_file() and not (path / "all_results.json").is_file():
        raise StudyError(f"{path}: this study has no results yet: let `sage sweep` end, or give it --collect")
    if not (path / "all_results.json").is_file():
        raise StudyError(f"{path}: neither a run folder (metrics.json) nor one of `sage sweep` (all_results.json)")
    listed = read_json(path / "all_results.json")
    study = Study(listed["title"], path, [], [])
    for place, entry in enumerate(listed["runs"]):
        study.order[entry["name"]] = place
        run = None
        if entry["status"] == "finished":
            run = read_run(path / entry["folder"], entry["name"], entry["group"], entry["variant"], entry["seed"],
                           entry["choices"])
        if run is None:
            status = entry["status"] if entry["status"] != "finished" else "gone since"
            study.missing.append(Missing(entry["name"], entry["group"], entry["variant"], entry["seed"], status))
        else:
            study.runs.append(run)
    if not study.runs:
        raise StudyError(f"{path}: no run of this study is finished")
    return study
