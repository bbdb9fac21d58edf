"""One self-contained HTML page about a run or a study.

    python -m analysis.report runs/methods --out report.html
    python -m analysis.report runs/one_run --out report.html

A study is the folder of `sage sweep`; after the runs, `sage sweep STUDY.yaml --collect` brings its results up to date.
What is missing is shown as missing, and a difference is called one only where a test over the seeds shows it.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import pathlib
import sys
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from analysis import figures, findings, pictures, tables
from analysis.study import Run, Study, StudyError, load

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 0.82rem; }
td, th { padding: 0.25rem 0.45rem; vertical-align: bottom; border-bottom: 1px solid #e4e4e4; }
th { text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.wide td { white-space: nowrap; }
tr.missing td { color: #a00000; } img { max-width: 100%; }
figure { margin: 1rem 0; } figcaption { color: #555; font-size: 0.85rem; }
pre { background: #f5f5f5; padding: 0.8rem; overflow-x: auto; font-size: 0.8rem; } .wide { overflow-x: auto; }
"""


def image(figure: Figure, caption: str, vector: bool = True) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="svg" if vector else "png", dpi=160)
    kind = "svg+xml" if vector else "png"
    text = base64.b64encode(data.getvalue()).decode()
    return (f'<figure><img alt="{html.escape(caption)}" src="data:image/{kind};base64,{text}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>\n")


def section(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n{body}" if body else ""


def shared_settings(runs: list[Run]) -> list[tuple[str, str]]:
    """The settings that matter to a reader, where all runs agree on them."""
    keys = ["data.name", "model.name", "training.steps", "training.epochs", "training.batch_size", "training.optimizer",
            "training.lr", "selection.method", "selection.fraction", "selection.scorer", "selection.sketch.size",
            "data.corrupt_labels"]
    found = []
    for key in keys:
        values = set()
        for run in runs:
            value = run.config
            for part in key.split("."):
                value = value.get(part, {}) if isinstance(value, dict) else {}
            values.add(str(value))
        if len(values) == 1 and (text := values.pop()) not in ("{}", "0", "0.0"):
            found.append((key, text))
    for key, name in (("git_revision", "version"), ("ranks", "ranks"), ("hosts", "hosts"), ("devices", "devices")):
        values = {", ".join(sorted(set(v))) if isinstance(v := run.about[key], list) else str(v) for run in runs}
        found.append((name, "; ".join(sorted(values))))
    return found


def facts(study: Study) -> str:
    settings = shared_settings(study.runs)
    cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in settings)
    return f"<table>{cells}</table>\n"


def key_findings(study: Study) -> str:
    found = findings.find(study)
    if not found.differences and not found.untested and not found.remarks:
        return ""
    shown = [d for d in found.differences if d.is_shown]
    parts = []
    if found.differences:
        parts.append(f"<p>{len(shown)} of {len(found.differences)} comparisons of accuracy show a difference at a "
                     "level of 5 % (all tests of this page corrected together, Holm).</p>")
    items = [findings.sentence(d) for d in shown] + found.remarks
    parts.append("<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in items) + "</ul>" if items else "")
    others = [findings.sentence(d) for d in found.differences if not d.is_shown]
    others += [f"Not tested: {what}" for what in found.untested]
    if others:
        parts.append(f"<details><summary>{len(others)} comparisons that show no difference, or have too few runs"
                     "</summary><ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in others) + "</ul></details>")
    return "\n".join(parts)


def table(study: Study) -> str:
    lines = tables.rows(study)
    number = [False] * 3 + [True] * (len(tables.HEADINGS) - 3)
    kind = ['class="number"' if n else "" for n in number]
    head = "".join(f"<th {k}>{html.escape(h)}</th>" for h, k in zip(tables.HEADINGS, kind, strict=True))
    body = ""
    for line in lines:
        cells = "".join(f"<td {k}>{html.escape(c)}</td>" for c, k in zip(line, kind, strict=True))
        body += f'<tr{" class=missing" if "missing" in line else ""}>{cells}</tr>'
    text = f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
    text += "<p>Mean ± sample standard deviation over the seeds.</p>"
    for name, write in (("CSV", tables.to_csv), ("Markdown", tables.to_markdown), ("LaTeX", tables.to_latex)):
        content = write(lines)
        text += f"<details><summary>{name}</summary><pre>{html.escape(content)}</pre></details>"
    if study.missing:
        missing = "".join(f"<li>{html.escape(m.name)}: {html.escape(m.status)}</li>" for m in study.missing)
        text += f"<p>Missing, and so in no figure and no mean:</p><ul>{missing}</ul>"
    return text


def detection(study: Study) -> str:
    """How well doubts and scores find the labels that were made wrong, where there are any: means over the seeds."""
    columns = [("labels doubted", "doubted", 0), ("precision", "precision", 3), ("recall", "recall", 3),
               ("AUROC", "auroc", 3)]
    body = ""
    for group, variant in study.variants():
        found = [one for run in study.of(group, variant) if (one := tables.detection(run)) is not None]
        if not found:
            continue
        cells = f"<td>{html.escape(group)}</td><td>{html.escape(variant)}</td>"
        for _, what, digits in columns:
            values = [value for one in found if (value := getattr(one, what)) is not None]
            cells += f'<td class="number">{tables.spread(values, digits) if values else "-"}</td>'
        body += f"<tr>{cells}</tr>"
    if not body:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("group", "variant", *(name for name, _, _ in columns)))
    return (f"<table><tr>{head}</tr>{body}</table><p>Of the labels that the last selection doubts: the part that is "
            "wrong, and the part of the wrong ones that is found. AUROC: the chance that a wrong label has a lower "
            "score than a right one.</p>")


def extremes(study: Study, data_path: str) -> str:
    """The best and worst scored images of the first runs with scores, where the data set is found."""
    parts = []
    loaded: dict[str, np.ndarray] = {}
    for run in figures.runs_with_scores(study, 3):
        name = run.config["data"]["name"]
        folder = pictures.find_folder(name, data_path or run.config["data"].get("path") or "")
        if folder is None:
            continue
        if name not in loaded:
            loaded[name] = pictures.train_images(name, folder)
        images, scores = loaded[name], run.scores
        assert scores is not None
        values = np.array(scores.scores)
        order = [int(i) for i in np.argsort(values, kind="stable") if np.isfinite(values[i])]
        if not order or max(scores.ids) >= len(images):
            continue
        names = run.subset["class_names"] if run.subset else []
        for title, rows in (("highest", order[::-1][:24]), ("lowest", order[:24])):
            titles = [f"{names[scores.labels[i]] if names else scores.labels[i]}\n{scores.scores[i]:.2f}" for i in rows]
            figure = pictures.montage(images, [scores.ids[i] for i in rows], titles, f"{title} scores: {run.name}")
            parts.append(image(figure, f"The 24 {title} scored training images of {run.name}, with label and score",
                               vector=False))
    return "".join(parts)


def pictures_of(study: Study, data_path: str) -> list[str]:
    wrong = {run.name: run.wrong_labels or set() for run in study.runs}
    drawn: list[tuple[str, Callable[[], Figure | None], str]] = [
        ("Accuracy", lambda: figures.accuracy(study), "Test accuracy after the last step"),
        ("Accuracy against the part kept",
         lambda: figures.against(study, "fraction", "part of the data trained on", logarithmic=True),
         "Test accuracy against the part of the training data that is kept"),
        ("Accuracy against wrong labels",
         lambda: figures.against(study, "data.corrupt_labels", "part of the labels made wrong"),
         "Test accuracy against the part of the training labels made wrong"),
        ("Accuracy against the sketch's size",
         lambda: figures.against(study, "selection.sketch.size", "rows of the sketch", logarithmic=True),
         "Test accuracy against the rows of the sketch"),
        ("Accuracy against wall time", lambda: figures.time_against_accuracy(study),
         "Test accuracy against total time"),
        ("Curves", lambda: figures.curves_of_study(study), "Test accuracy in the course of training"),
        ("Cost of selection", lambda: figures.selection_cost(study), "Seconds of selection, by phase"),
        ("Memory", lambda: figures.memory(study), "Peak memory"),
        ("Wrong labels kept", lambda: figures.wrong_labels(study), "Wrong labels among the kept"),
        ("Class balance", lambda: figures.class_balance(study), "Share of each class among the kept"),
        ("Accuracy by class", lambda: figures.per_class_accuracy(study), "Test accuracy of each class"),
        ("Scores", lambda: figures.score_histograms(study, wrong), "Histograms of the scores of the last selection"),
        ("Certificate", lambda: figures.certificates(study), "Bound of the sketch's error"),
    ]
    if len(study.runs) == 1 and not study.missing:
        run = study.runs[0]
        drawn.insert(0, ("Curves", lambda: figures.curves_of_run(run), "Loss and accuracy in the course of training"))
        drawn = [entry for entry in drawn if entry[2] != "Test accuracy in the course of training"]
    parts = []
    for title, draw, caption in drawn:
        figure = draw()
        if figure is not None:
            parts.append(section(title, image(figure, caption)))
    parts.append(section("Finding the wrong labels", detection(study)))
    parts.append(section("Best and worst scored", extremes(study, data_path)))
    return parts


def page(study: Study, data_path: str = "") -> str:
    parts = [f"<h1>{html.escape(study.title)}</h1>", facts(study)]
    if len(study.variants()) > 1:
        parts.append(section("Key findings", key_findings(study)))
    parts.append(section("Results", table(study)))
    parts += pictures_of(study, data_path)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(study.title)}</title>'
            f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="a run folder, or the folder of a sweep")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="the page (default: report.html in the folder)")
    parser.add_argument("--data", default="", help="folder of the data set (default: as the program finds it)")
    given = parser.parse_args(arguments)
    out = given.out or given.folder / "report.html"
    try:
        study = load(given.folder)
        out.write_text(page(study, given.data))
    except StudyError as error:
        print(f"analysis.report: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"analysis.report: {out}: cannot be written ({error.strerror})", file=sys.stderr)
        return 5
    print(f"{out}: {len(study.runs)} runs, {len(study.missing)} missing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
