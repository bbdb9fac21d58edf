"""What the notebooks show with: a study or a word that it is missing, figures of a moderate size, tables, findings."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Mapping

import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure

from analysis import findings, tables
from analysis.differences import holm
from analysis.features import Features
from analysis.study import Study, StudyError, load

DPI = 80  # of figures: legible on a screen, and a notebook of them stays below a megabyte


def name_of(folder: pathlib.Path) -> str:
    """Short, and the same on every machine."""
    return "/".join(folder.parts[-2:])


def missing(what: str, why: str) -> None:
    display(Markdown(f"**Missing: {what}.** {why}"))


def open_study(folder: pathlib.Path) -> Study | None:
    """The study in `folder`, with a word on what of it is missing; None, said as well, where there is none."""
    try:
        study = load(folder)
    except StudyError as error:
        missing(name_of(folder), str(error).replace(f"{folder}: ", "", 1))
        return None
    for run in study.missing:
        missing(run.name, f"It is in no figure and no mean ({run.status}).")
    return study


def open_features(run: pathlib.Path) -> Features | None:
    """What `sage features` wrote into a run folder; None, and said so, where there is nothing."""
    folder = run / "features"
    files = sorted(folder.glob("features_train*.safetensors"))
    if not files:
        missing(f"{name_of(run)}/features/features_train.safetensors", "`sage features RUN` writes it.")
        return None
    try:
        return Features(files[0])
    except StudyError as error:
        missing(name_of(run), str(error))
        return None


def show(figure: Figure | None, what: str) -> None:
    """A figure, described by `what` for those who do not see it; None is shown as missing."""
    if figure is None:
        missing(what, "The runs hold nothing to draw.")
        return
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    display(Image(data=data.getvalue(), format="png", alt=what))


def table(frame: pd.DataFrame | None, what: str) -> None:
    """A table; None or one without a row is shown as missing."""
    if frame is None or frame.empty:
        missing(what, "The runs hold nothing to count.")
        return
    display(frame)


def results(study: Study) -> pd.DataFrame:
    """A row for each variant, in the order of the study: mean and sample standard deviation over the seeds."""
    frame = pd.DataFrame(tables.rows(study), columns=tables.HEADINGS)
    return frame.set_index(["group", "variant"])


def all_results(studies: Mapping[str, Study | None]) -> pd.DataFrame | None:
    """The rows of all studies that are there, one below the other."""
    there = {name: results(study) for name, study in studies.items() if study is not None}
    return pd.concat(there, names=["study"]) if there else None


def conclusions(studies: Mapping[str, Study | None]) -> str:
    """What the studies show, as Markdown: each with its test, all tests corrected together (Holm)."""
    found = {name: findings.find(study) for name, study in studies.items() if study is not None}
    differences = [one for part in found.values() for one in part.differences]
    holm(differences)
    shown = sum(one.is_shown for one in differences)
    lines = [f"{shown} of {len(differences)} comparisons of accuracy show a difference at a level of 5 % (Holm's "
             "correction over all of this notebook).", ""]
    for name, part in found.items():
        lines += [f"- {name}: {findings.sentence(one)}" for one in part.differences if one.is_shown]
        lines += [f"- {name}: {text}" for text in part.remarks]
        others = sum(not one.is_shown for one in part.differences)
        if others:
            lines.append(f"- {name}: no difference shown in {others} of {len(part.differences)} comparisons.")
        lines += [f"- {name}: not tested: {text}" for text in part.untested]
    lines += [f"- {name}: **missing**" for name, study in studies.items() if study is None]
    return "\n".join(lines)


def devices(study: Study | None) -> None:
    """Says what the runs of a study computed on."""
    if study is not None:
        found = sorted({device for run in study.runs for device in run.about["devices"]})
        display(Markdown(f"These runs computed on: {', '.join(found)}."))


def conclude(studies: Mapping[str, Study | None]) -> None:
    display(Markdown(conclusions(studies)))
