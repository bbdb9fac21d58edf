"""The notebooks are executed again over small runs of the digits; and what they show, by itself, over known numbers."""

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

project = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(project))
from analysis import design, features, notebook, robustness  # noqa: E402
from analysis.study import load  # noqa: E402

NOTEBOOKS = project / "analysis" / "notebooks"
BASE = """
base:
  model.name: mlp
  data.workers: 0
  training: {steps: 30, batch_size: 64, lr: 0.05, evaluate_interval: 100}
  selection: {fraction: 0.2, mode: single, no_warmup: true, scorer: proxy, proxy.steps: 20, sketch.size: 16}
  output: {tensorboard: false, save_interval: 1000}
"""
# As configs/studies has them, but of few and short runs. `compression` is left out: it has to be shown as missing.
STUDIES = {
    "sketch_method": "seeds: [1]\ngroups: {sketch: {grid: {selection.sketch.method: [fd, random_projection]}}}",
    "scoring": "seeds: [1, 2, 3]\ngroups: {scoring: {variants: {agreement: {selection.scoring: agreement}, "
               "random: {selection.method: random, selection.scorer: current}}}}",
    "sketch_size": "seeds: [1]\ngroups: {size: {grid: {selection.sketch.size: [4, 16, auto]}}}",
    "label_corruption": "seeds: [1]\ngroups: {corruption: {variants: {sage_top: {selection.keep: top}, "
                        "sage_filter: {selection.keep: filter}}, grid: {data.corrupt_labels: [0.0, 0.3]}}}",
    "minority_downsampling": "seeds: [1]\ngroups: {downsampling: {variants: {sage_top: {selection.keep: top}}, "
                             "grid: {data.minority_downsample: [0.0, 0.6]}}}",
}


@pytest.fixture(scope="module")
def runs(build_folder, run_environment, tmp_path_factory):
    """A folder with all studies but one, and one run with its features."""
    folder = tmp_path_factory.mktemp("notebooks")

    def run(*arguments):
        result = subprocess.run([build_folder / "bin" / "sage", *map(str, arguments)], env=run_environment, check=False,
                                capture_output=True, text=True, timeout=600)
        assert result.returncode == 0, result.stderr

    for name, groups in STUDIES.items():
        (folder / f"{name}.yaml").write_text(f"{BASE}{groups}\n")
        run("sweep", folder / f"{name}.yaml", "--out", folder / name)
    run("features", folder / "scoring" / "scoring-agreement-seed1")
    return folder


def execute(name, monkeypatch, **parameters):
    """The notebook as it is committed, executed from the top with these environment variables."""
    for key, value in {"OMP_NUM_THREADS": "1", **parameters}.items():
        monkeypatch.setenv(key, str(value))
    book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    return book


def outputs(book):
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def shown(book):
    """The figures (PNG), the tables (HTML) and the words that a notebook shows; nothing else may be there."""
    figures, tables, words = [], [], []
    for output in outputs(book):
        assert output.output_type in ("display_data", "execute_result"), output
        data = output.data
        if "image/png" in data:
            figures.append(base64.b64decode(data["image/png"]))
            assert output.data["text/plain"]
        elif "text/html" in data:
            tables.append(data["text/html"])
        else:
            words.append(data["text/markdown"])
    assert all(figure.startswith(b"\x89PNG") for figure in figures)
    return figures, tables, words


def test_the_notebook_of_design_choices(runs, monkeypatch):
    figures, tables, words = shown(execute("design_choices", monkeypatch, SAGE_DESIGN_RUNS=runs))
    assert len(figures) == 4 and len(tables) == 1  # without the study that has not been run
    assert "sketch_size" in tables[0] and "agreement" in tables[0] and "compression" not in tables[0]
    assert sum(text.startswith("**Missing: ") and "compression" in text.lower() for text in words) == 2
    assert "- compression: **missing**" in words[-1] and " of 1 comparisons" in words[-1]
    assert "not tested" in words[-1]  # one seed is too few
    assert not [text for text in words if str(runs) in text]  # no machine's paths


def test_the_notebook_of_features(runs, monkeypatch):
    book = execute("feature_visualisation", monkeypatch, SAGE_FEATURES_MOST=300,
                   SAGE_FEATURES_RUN=runs / "scoring" / "scoring-agreement-seed1")
    figures, tables, words = shown(book)
    assert len(figures) == 4 and len(tables) == 2 and not words
    assert "287 (20.0%)" in tables[0] and "all classes" in tables[1]


def test_the_notebook_of_robustness(runs, monkeypatch):
    book = execute("robustness", monkeypatch, SAGE_ROBUSTNESS_RUNS=runs, SAGE_ROBUSTNESS_RATE=0.3)
    figures, tables, words = shown(book)
    assert len(figures) == 8 and len(tables) == 2
    assert "sage_filter-corrupt_labels_0.3" in tables[0] and "sage_filter-corrupt_labels_0.0" not in tables[0]
    assert len(words) == 1 and "not tested" in words[0]


@pytest.mark.parametrize("name", ["design_choices", "feature_visualisation", "robustness"])
def test_without_runs_everything_is_shown_as_missing(name, tmp_path, monkeypatch):
    variables = {f"SAGE_{part}": tmp_path / "absent" for part in ("DESIGN_RUNS", "FEATURES_RUN", "ROBUSTNESS_RUNS")}
    figures, tables, words = shown(execute(name, monkeypatch, **variables))
    assert not figures and not tables
    assert len([text for text in words if "missing" in text.lower()]) >= 6


@pytest.mark.parametrize("name", ["design_choices", "feature_visualisation", "robustness"])
def test_notebooks_are_committed_executed_in_order_and_small(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert path.stat().st_size < 1e6
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len(shown(book)[0]) >= 4
    text = json.dumps([cell.get("outputs", []) for cell in book.cells])
    assert not re.search(r"/(home|root|tmp|work)/", text)  # no machine's paths


def test_precision_and_recall_are_their_definitions():
    scores, wrong = np.array([0.1, 0.9, 0.2, 0.3]), np.array([True, False, False, True])
    precision, recall = robustness.precision_and_recall(scores, wrong)
    assert precision.tolist() == [1.0, 0.5, 2 / 3, 0.5] and recall.tolist() == [0.5, 0.5, 1.0, 1.0]


def test_the_reduced_classes_and_the_wrong_labels_are_those_of_the_program(runs):
    study = load(runs / "minority_downsampling")
    folder = next(run for run in study.runs if "0.6" in run.name).folder
    changes = json.loads((folder / "data_changes.json").read_text())
    before, after = changes["class_sizes_of_files"], changes["class_sizes_to_train_on"]
    assert robustness.reduced_classes(study) == {c for c in range(10) if after[c] < before[c]} != set()
    study = load(runs / "label_corruption")
    assert [method[:2] for method in robustness.methods_at(study, 0.3)] == [(0, "sage_top"), (1, "sage_filter")]
    scores, wrong = robustness.wrong_and_scores(next(run for run in study.runs if "0.3" in run.name))
    assert len(scores) == 1437 and wrong.sum() == pytest.approx(0.3 * 1437, abs=1)


def test_the_rows_that_auto_finds_are_marked_as_such(runs):
    rows = {run.variant: design.sketch_rows(run) for run in load(runs / "sketch_size").runs}
    assert rows["size_4"] == (4, False) and rows["size_16"] == (16, False)
    assert rows["size_auto"][1] and 0 < rows["size_auto"][0] <= 1024


def test_the_table_of_classes_counts(tmp_path):
    from safetensors.numpy import save_file

    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]], dtype=np.float32)
    save_file({"features": np.zeros((4, 3), np.float32), "labels": np.array([0, 0, 1, 1]), "ids": np.arange(4),
               "probabilities": probabilities, "kept": np.array([1, 0, 1, 1], np.uint8)},
              tmp_path / "features_train.safetensors", metadata={"class_names": '["a", "b"]'})
    table = features.class_table(features.Features(tmp_path / "features_train.safetensors"))
    assert table["kept"].tolist() == [1, 2, 3] and table["share of the kept, %"].tolist() == [33.3, 66.7, 100.0]
    assert table["median margin of all"].tolist() == [0.5, 0.1, 0.4]
    assert table["median margin of the kept"].tolist() == [0.8, 0.1, 0.6]


def test_a_missing_run_is_named_and_in_no_mean(runs, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(notebook, "display", said.append)
    copy = tmp_path / "scoring"
    shutil.copytree(runs / "scoring", copy)
    shutil.rmtree(copy / "scoring-random-seed3")
    study = notebook.open_study(copy)
    assert [text.data.split(".")[0] for text in said] == ["**Missing: scoring-random-seed3"]
    assert list(notebook.results(study)["runs"]) == ["3 of 3", "2 of 3"]
    assert "fewer than 3" in notebook.conclusions({"scoring": study, "other": None})
