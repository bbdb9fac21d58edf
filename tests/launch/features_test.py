"""`sage features`: the export equals the checkpoint's network, the run's subset, and itself on any number of ranks."""

import json
import re
import shutil

import numpy as np
import pytest
from program import fails, sage, tensors, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "run"
    train(folder, "data.corrupt_labels=0.1", "data.validation_fraction=0.1", ranks=1, epochs=3)
    result = sage("features", folder)
    assert result.returncode == 0, result.stderr
    return folder


def test_features_and_probabilities_are_those_of_the_network(run):
    found = tensors(run / "features" / "features_train.safetensors")
    weights = tensors(run / "checkpoints" / "best_model.safetensors")
    logits = found["features"].astype(np.float64) @ weights["fc.weight"].astype(np.float64).T + weights["fc.bias"]
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    assert np.abs(found["probabilities"] - expected).max() < 1e-5
    assert found["features"].shape[0] == found["ids"].size == found["labels"].size == found["kept"].size
    assert (np.diff(found["ids"]) > 0).all() and 1437 * 0.88 < found["ids"].size < 1437 * 0.92  # less validation


def test_labels_and_kept_flags_are_those_of_the_run(run):
    found = tensors(run / "features" / "features_train.safetensors")
    subset = json.loads((run / "subset_indices" / "epoch_1_indices.json").read_text())
    assert found["ids"][found["kept"] == 1].tolist() == subset["ids"]
    rows = [line.split(",") for line in (run / "subset_indices" / "epoch_1_scores.csv").read_text().splitlines()[1:]]
    labels = dict(zip(found["ids"].tolist(), found["labels"].tolist(), strict=True))
    assert labels == {int(row[0]): int(row[1]) for row in rows}


def test_the_test_split_gives_the_accuracy_of_evaluate(run):
    result = sage("features", run, "--split", "test")
    assert result.returncode == 0, result.stderr
    found = tensors(run / "features" / "features_test.safetensors")
    accuracy = 100 * (found["probabilities"].argmax(1) == found["labels"]).mean()
    said = re.search(r"test accuracy ([\d.]+) %", sage("evaluate", run).stdout)
    assert said and float(said.group(1)) == pytest.approx(accuracy, abs=0.005)
    assert "kept" not in found and found["ids"].tolist() == list(range(360))


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_number_of_ranks_changes_no_bit(run, tmp_path, ranks):
    result = sage("features", run, "--out", tmp_path, ranks=ranks)
    assert result.returncode == 0, result.stderr
    one = (run / "features" / "features_train.safetensors").read_bytes()
    assert (tmp_path / "features_train.safetensors").read_bytes() == one


def test_nothing_is_replaced_unasked_and_wrong_calls_get_one_message(run, tmp_path):
    fails(sage("features", run, ranks=2), 2, "features_train.safetensors is there", "--overwrite")
    assert sage("features", run, "--overwrite").returncode == 0
    fails(sage("features", run, "--split", "valid"), 2, "--split is valid")
    fails(sage("features", tmp_path / "absent"), 4, "absent")
    subset = tmp_path / "other.json"
    subset.write_text('{"ids": [0, 5000]}')
    fails(sage("features", run, "--out", tmp_path, "--subset", subset), 3, "other.json", "1 of its 2 ids")
    fails(sage("features", run, "--out", tmp_path, "--split", "test", "--subset", subset), 2, "--subset")


def test_a_run_that_is_replaced_takes_its_features_along(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    train(folder, ranks=1, epochs=1, flags=["--overwrite"])
    assert not list((folder / "features").iterdir())


def test_without_a_subset_everything_counts_as_kept(tmp_path):
    train(tmp_path / "run", "selection.mode=none", ranks=1, epochs=1)
    assert sage("features", tmp_path / "run").returncode == 0
    assert tensors(tmp_path / "run" / "features" / "features_train.safetensors")["kept"].all()
