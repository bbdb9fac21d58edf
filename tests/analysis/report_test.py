"""The report over a real study of the digits: what is in the page, that it stands alone, and that gaps stay gaps."""

import base64
import html.parser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

project = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(project))
from analysis import features, figures, findings, pictures, report, tables  # noqa: E402
from analysis.study import StudyError, load  # noqa: E402

STUDY = """
title: Digits & <methods>
base:
  model.name: mlp
  data: {workers: 0, corrupt_labels: 0.2}
  training: {steps: 60, batch_size: 64, lr: 0.05}
  selection: {mode: single, no_warmup: true, scorer: proxy, proxy.steps: 40, sketch.size: 16}
  output.tensorboard: false
seeds: [1, 2, 3]
groups:
  method:
    variants:
      random: {selection.method: random, selection.scorer: current}
      sage: {selection.method: sage, selection.keep: filter}
    grid:
      selection.fraction: [0.05, 0.5]
  all_data:
    seeds: [1]
    variants:
      all: {selection.mode: none, selection.scorer: current}
"""


def run_sage(build_folder, environment, *arguments):
    result = subprocess.run([build_folder / "bin" / "sage", *map(str, arguments)], env=environment, capture_output=True,
                            text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def out(build_folder, run_environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "study.yaml").write_text(STUDY)
    run_sage(build_folder, run_environment, "sweep", folder / "study.yaml", "--out", folder / "out")
    return folder / "out"


class Page(html.parser.HTMLParser):
    """What a page refers to and says."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.links, self.headings, self.text, self.open = [], [], [], "", []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "img":
            assert values["alt"]
            self.sources.append(values["src"])
        if tag in ("link", "script", "a"):
            self.links.append(tag)
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        self.text += data


def test_the_page_of_a_study_stands_alone_and_has_every_part(out, tmp_path):
    page_file = tmp_path / "report.html"
    assert report.main([str(out), "--out", str(page_file)]) == 0
    text = page_file.read_text()
    page = Page(text)
    assert page.headings == [
        "Key findings", "Results", "Accuracy", "Accuracy against the part kept", "Accuracy against wall time", "Curves",
        "Cost of selection", "Memory", "Wrong labels kept", "Class balance",
        *(["Accuracy by class"] if load(out).runs[0].class_accuracy else []), "Scores", "Certificate",
        "Finding the wrong labels", "Best and worst scored"]
    assert not page.links and all(source.startswith("data:image/") for source in page.sources)
    for source in page.sources:
        data = base64.b64decode(source.split(",", 1)[1])
        assert data.startswith(b"\x89PNG") or b"<svg" in data
    assert "Digits & <methods>" in page.text and "3 of 3" in page.text and "data.corrupt_labels" in page.text
    assert len(text) < 8e6


def test_the_table_is_that_of_the_program(out):
    import csv

    study = load(out)
    with open(out / "summary_table.csv", newline="") as file:
        expected = list(csv.DictReader(file))
    found = tables.rows(study)
    assert [line[:2] for line in found] == [[row["group"], row["variant"]] for row in expected]
    for line, row in zip(found, expected, strict=True):
        assert line[3].split(" ± ")[0] == f"{100 * float(row['accuracy_mean']):.2f}"
        if row["accuracy_deviation"]:
            assert line[3].split(" ± ")[1] == f"{100 * float(row['accuracy_deviation']):.2f}"
    columns = {"F1 (%)": ("f1_macro", 100, 2), "effective epochs": ("effective_epochs", 1, 2), "CPU (s)": ("cpu_seconds", 1, 1)}
    for heading, (name, scale, digits) in columns.items():
        for line, row in zip(found, expected, strict=True):
            mean = scale * float(row[f"{name}_mean"])
            assert line[tables.HEADINGS.index(heading)].split(" ± ")[0] == f"{mean:.{digits}f}"
    assert tables.to_markdown(found).count("\n") == 2 + len(found)
    assert r"fraction\_0.05" in tables.to_latex(found) and r"$\pm$" in tables.to_latex(found)
    assert next(csv.reader(tables.to_csv(found).splitlines())) == tables.HEADINGS


def test_auroc_is_its_definition_by_pairs():
    numbers = np.random.default_rng(2)
    scores, wrong = numbers.integers(0, 6, 60).astype(float), numbers.random(60) < 0.3  # with ties
    pairs = [(low < high) + 0.5 * (low == high) for low in scores[wrong] for high in scores[~wrong]]
    assert tables.auroc(list(scores), list(wrong)) == pytest.approx(np.mean(pairs))
    assert tables.auroc([1.0, 2.0], [True, True]) is None


def test_findings_compare_each_method_with_random_all_else_equal(out):
    found = findings.find(load(out))
    assert sorted((d.what, d.reference) for d in found.differences) == [
        ("sage (method, fraction_0.05)", "random"), ("sage (method, fraction_0.5)", "random")]
    for difference in found.differences:
        text = findings.sentence(difference)
        assert "paired t, n = 3 seeds" in text and "Holm" in text
        assert ("no difference shown" in text) == (difference.adjusted >= 0.05)
    assert len(found.remarks) == 1 and "of the time of a run" in found.remarks[0]


def test_what_is_missing_is_shown_as_missing_and_tested_by_nobody(out, build_folder, run_environment, tmp_path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    (tmp_path / "study.yaml").write_text(STUDY)
    for seed in (1, 2, 3):
        shutil.rmtree(copy / f"method-sage-fraction_0.5-seed{seed}")
    shutil.rmtree(copy / "method-sage-fraction_0.05-seed3")
    # Not brought up to date: a folder that is gone is noticed all the same.
    assert {m.status for m in load(copy).missing} == {"gone since"}
    run_sage(build_folder, run_environment, "sweep", tmp_path / "study.yaml", "--out", copy, "--collect")
    study = load(copy)
    assert len(study.missing) == 4 and {m.status for m in study.missing} == {"missing"}
    row = next(line for line in tables.rows(study) if line[1] == "sage-fraction_0.5")
    assert row[2:] == ["0 of 3"] + ["missing"] * (len(tables.HEADINGS) - 3)
    found = findings.find(study)
    assert not found.differences and "2 and 3 runs, fewer than 3" in found.untested[0]
    page = report.page(study)
    assert page.count("class=missing") == 1 and "method-sage-fraction_0.05-seed3: missing" in page


def test_the_page_of_one_run(out, tmp_path):
    page_file = tmp_path / "run.html"
    run = out / "method-sage-fraction_0.5-seed1"
    assert report.main([str(run), "--out", str(page_file)]) == 0
    page = Page(page_file.read_text())
    assert "Key findings" not in page.headings
    assert {"Curves", "Scores", "Certificate", "Best and worst scored"} <= set(page.headings)


def test_wrong_folders_get_one_message(out, tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert "neither a run folder" in capsys.readouterr().err
    (tmp_path / "study.json").write_text("{}")
    assert report.main([str(tmp_path)]) == 2
    assert "--collect" in capsys.readouterr().err
    run = tmp_path / "run"
    shutil.copytree(out / "method-sage-fraction_0.5-seed1", run)
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["summary"]["finished"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(StudyError, match="--resume"):
        load(run)
    (run / "metrics.json").write_text("{")
    with pytest.raises(StudyError, match="damaged"):
        load(run)


def test_images_are_those_that_the_program_counts(out):
    """The label of each digit's image is in the scores, corrupted or not: most agree with a nearest-mean classifier."""
    study = load(out)
    folder = pictures.find_folder("digits", "")
    assert folder is not None
    images = pictures.train_images("digits", folder)
    scores = next(run for run in study.runs if run.scores).scores
    assert images.shape == (1437, 8, 8) and images.dtype == np.uint8 and scores.ids == list(range(1437))
    flat, labels = images.reshape(1437, -1).astype(float), np.array(scores.labels)
    means = np.stack([flat[labels == c].mean(0) for c in range(10)])
    nearest = ((flat[:, None] - means) ** 2).sum(2).argmin(1)
    assert 0.65 < (nearest == labels).mean() < 0.82  # four fifths of the labels are right


def test_every_figure_is_legible(out):
    """Axes have labels, and tick labels of a figure's variants do not overlap."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    study = load(out)
    for draw in (figures.accuracy, figures.selection_cost, figures.certificates, figures.memory, figures.class_balance):
        figure = draw(study)
        assert figure is not None, draw
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        axes = figure.axes[0]
        assert axes.get_xlabel() or axes.get_xticklabels()
        extents = [label.get_window_extent(canvas.get_renderer()) for label in axes.get_yticklabels()]
        boxes = sorted(extents, key=lambda box: box.y0)
        assert all(lower.y1 <= upper.y0 + 0.5 for lower, upper in zip(boxes, boxes[1:], strict=False)), draw


def test_features_are_shown_by_class_and_kept(out, build_folder, run_environment, tmp_path):
    run = out / "method-sage-fraction_0.5-seed1"
    run_sage(build_folder, run_environment, "features", run, "--out", tmp_path)
    page_file = tmp_path / "features.html"
    assert features.main([str(tmp_path / "features_train.safetensors"), "--out", str(page_file), "--most", "400"]) == 0
    page = Page(page_file.read_text())
    assert page.headings == ["t-SNE and UMAP of the features", "Class balance", "Margin", "24 of the kept"]
    assert re.search(r"718 of 1437|719 of 1437", page.text)
    assert features.main([str(tmp_path / "absent.safetensors"), "--out", str(page_file)]) == 2


def test_layouts_are_the_same_each_time_and_keep_clusters_apart():
    """Three clusters, far apart: a neighbour in the plane is of the same cluster."""
    numbers = np.random.default_rng(0)
    clusters = np.repeat(np.arange(3), 30)
    points = (10 * np.eye(8)[clusters] + numbers.normal(size=(90, 8))).astype(np.float32)
    for name, layout in features.LAYOUTS.items():
        plane = layout(points)
        assert plane.shape == (90, 2) and np.isfinite(plane).all(), name
        assert (layout(points) == plane).all(), name
        distances = ((plane[:, None] - plane) ** 2).sum(2) + np.diag(np.full(90, np.inf))
        assert (clusters[distances.argmin(1)] == clusters).all(), name
    assert list(features.shown_rows(10, 4)) == [0, 3, 6, 9] and len(features.shown_rows(10, 10)) == 10


@pytest.mark.parametrize("kept", [True, False])
def test_the_layouts_are_one_figure_with_labels(tmp_path, kept):
    from safetensors.numpy import save_file

    numbers = np.random.default_rng(0)
    labels = np.arange(40) % 4
    arrays = {"features": numbers.normal(size=(40, 5)).astype(np.float32), "labels": labels, "ids": np.arange(40),
              "probabilities": np.full((40, 4), 0.25, dtype=np.float32)}
    if kept:
        arrays["kept"] = (np.arange(40) % 3 == 0).astype(np.uint8)
    save_file(arrays, tmp_path / "f.safetensors", metadata={"class_names": '["a", "b", "c", "d"]'})
    figure = features.places(features.Features(tmp_path / "f.safetensors"), 40)
    titles = [axes.get_title() for axes in figure.axes]
    expected = ["t-SNE: kept or discarded", "t-SNE: class", "UMAP: kept or discarded", "UMAP: class"]
    assert titles == (expected if kept else expected[1::2])
    assert all(axes.get_xlabel() and axes.get_ylabel() and axes.get_legend() for axes in figure.axes)


def test_on_a_line_only_seeds_share_an_x(out):
    from analysis import figures

    study = load(out)
    for key in ("fraction", "training.steps", "data.corrupt_labels"):
        for runs in figures.lines_against(study, lambda run, key=key: figures.number_of(run, key)).values():
            places = [(figures.number_of(run, key), run.seed) for run in runs]
            assert len(places) == len(set(places)), f"{key}: other choices are taken for seeds"
    assert ("method", "sage") in figures.lines_against(study, lambda run: figures.number_of(run, "fraction"))
