"""The report over run folders that a test writes: what it counts, and that a missing run stays missing."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

script = pathlib.Path(__file__).resolve().parents[2] / "analysis" / "compare_runs.py"


def load_report():
    specification = importlib.util.spec_from_file_location("compare_runs", script)
    module = importlib.util.module_from_spec(specification)
    sys.modules["compare_runs"] = module
    specification.loader.exec_module(module)
    return module


report = load_report()


def write_run(folder, accuracy, kept=None, wrong_kept=None, wrong=0, total=10.0, selection=0.0, seen=1000):
    """A run folder with the fields of metrics.json that the report reads."""
    folder.mkdir(parents=True)
    summary = {
        "final_test": {"loss": 1.0, "accuracy": accuracy},
        "total_seconds": total,
        "selection_seconds": selection,
        "examples_seen": seen,
        "corrupted_labels": wrong,
    }
    selections = [] if kept is None else [{"kept": kept, "wrong_labels_kept": wrong_kept}]
    (folder / "metrics.json").write_text(json.dumps({"summary": summary, "selections": selections}))


def row_of(rows, method, labels):
    return next(row for row in rows if (row.method, row.labels) == (method, labels))


def collect(folder, seeds):
    return report.collect(folder, seeds, list(report.METHODS), ["clean", "wrong20"])


def test_counts_wrong_labels_of_subsets_and_of_all_data(tmp_path):
    write_run(tmp_path / "top_wrong20_seed1", 0.5, kept=3, wrong_kept=1, wrong=3)
    write_run(tmp_path / "all_wrong20_seed1", 0.5, wrong=3)
    write_run(tmp_path / "top_clean_seed1", 0.5, kept=3)
    rows = collect(tmp_path, 1)
    assert report.cells(row_of(rows, "top", "wrong20"))[-1] == "1 of 3"
    assert report.cells(row_of(rows, "all", "wrong20"))[-1] == "3 of 3"
    assert report.cells(row_of(rows, "top", "clean"))[-1] == "-"


def test_mean_and_spread_over_the_seeds_that_ran(tmp_path):
    write_run(tmp_path / "random_clean_seed1", 0.90, kept=1, total=10, selection=1, seen=100)
    write_run(tmp_path / "random_clean_seed2", 0.92, kept=1, total=12, selection=3, seen=300)
    row = row_of(collect(tmp_path, 3), "random", "clean")
    assert row.missing_seeds == [3]
    assert report.cells(row)[2:8] == ["1", "2 of 3", "91.00 ± 1.41", "11.0 ± 1.4", "2.0 ± 1.4", "200"]


def test_a_missing_or_unfinished_run_is_shown_as_missing_and_never_filled_in(tmp_path):
    write_run(tmp_path / "top_clean_seed1", 0.9, kept=1)
    unfinished = tmp_path / "filter_clean_seed1"
    unfinished.mkdir()
    (unfinished / "metrics.json").write_text(json.dumps({"summary": {"final_test": None}, "selections": []}))
    rows = collect(tmp_path, 1)
    assert report.cells(row_of(rows, "filter", "clean"))[2:] == ["missing", "0 of 1"] + ["missing"] * 4 + ["-"]
    text = report.table(rows)
    assert "filter_clean_seed1" in text.split("MISSING")[1]
    assert "top_clean_seed1" not in text.split("MISSING")[1]


@pytest.mark.parametrize("complete", [True, False])
def test_the_program_writes_table_and_plot(tmp_path, complete):
    for method in ("top", "filter", "random", "all")[: 4 if complete else 2]:
        for labels in ("clean", "wrong20"):
            write_run(tmp_path / f"{method}_{labels}_seed1", 0.9, kept=2)
    result = subprocess.run([sys.executable, script, tmp_path, "--seeds", "1"], capture_output=True, text=True, check=True)
    assert ("MISSING" in result.stdout) == (not complete)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "table.txt").read_text() in result.stdout
