"""The plots of a run with dropout: what is read of metrics.json, and what is said where there is nothing to draw."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

script = pathlib.Path(__file__).resolve().parents[2] / "analysis" / "dropout_plots.py"


def load_plots():
    specification = importlib.util.spec_from_file_location("dropout_plots", script)
    module = importlib.util.module_from_spec(specification)
    sys.modules["dropout_plots"] = module
    specification.loader.exec_module(module)
    return module


plots = load_plots()


def write_run(folder, classes=3, adaptive=True, epochs=4):
    """A run folder with the fields of metrics.json that the plots read; its last epoch is on everything."""
    folder.mkdir(parents=True)
    records = []
    for epoch in range(1, epochs + 1):
        everything = epoch == epochs
        records.append(
            {
                "epoch": epoch,
                "dropout": {
                    "kept_fraction": 1.0 if everything else 1.0 / epoch,
                    "kept_fraction_of_class": [] if everything else [c / 10 for c in range(classes - 1)] + [None],
                    "difficulty": [0.5 - 0.01 * c * epoch for c in range(classes)] if adaptive else [],
                    "proportion": [1.0 / classes] * classes if adaptive else [],
                },
            }
        )
    (folder / "metrics.json").write_text(json.dumps({"class_names": [f"class {c}" for c in range(classes)], "epochs": records}))


def test_reads_kept_parts_difficulty_and_proportions(tmp_path):
    write_run(tmp_path / "run")
    kept, difficulty, proportion = plots.read_panels(tmp_path / "run")
    assert kept.overall == [1.0, 0.5, pytest.approx(1 / 3), 1.0]
    assert kept.lines[1] == [0.1, 0.1, 0.1, None]
    assert kept.lines[2] == [None] * 4
    assert difficulty.lines[2] == [pytest.approx(0.5 - 0.02 * epoch) for epoch in range(1, 5)]
    assert proportion.epochs == [1, 2, 3, 4]


def test_classes_have_the_names_of_the_run(tmp_path):
    write_run(tmp_path / "run")
    assert plots.class_names(tmp_path / "run", 3) == ["class 0", "class 1", "class 2"]
    assert plots.class_names(tmp_path / "run", 4) == ["0", "1", "2", "3"]


def test_of_other_modes_only_the_kept_parts_are_drawn(tmp_path):
    write_run(tmp_path / "run", adaptive=False)
    assert [panel.title for panel in plots.read_panels(tmp_path / "run")] == ["part of the examples that was kept"]


def test_with_many_classes_the_outstanding_ones_are_named(tmp_path):
    write_run(tmp_path / "run", classes=50)
    difficulty = plots.read_panels(tmp_path / "run")[1]
    assert plots.outstanding(difficulty, 4) == {0, 1, 48, 49}
    assert len(plots.outstanding(difficulty, 50)) == 50


@pytest.mark.parametrize("classes", [3, 50])
def test_the_program_writes_a_picture(tmp_path, classes):
    write_run(tmp_path / "run", classes=classes)
    subprocess.run([sys.executable, script, tmp_path / "run"], check=True, capture_output=True)
    assert (tmp_path / "run" / "dropout.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_dropout_is_said_to_be_one(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"epochs": [{"epoch": 1, "dropout": None}]}))
    result = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "dropout.mode other than none" in result.stderr
    result = subprocess.run([sys.executable, script, tmp_path / "gone"], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "does not exist" in result.stderr
