"""Progressive data dropout from the command to the run folder, on the real digits: one rank and two, alone and on a
subset, stopped and resumed; the plots of a run; and what bad input gets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from program import fails, sage, tensors, train

project = Path(__file__).parents[2]
ADAPTIVE = ["selection.mode=none", "dropout.mode=apd", "dropout.threshold=0.6"]


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory):
    """A run of four epochs on two ranks."""
    folder = tmp_path_factory.mktemp("apd") / "run"
    train(folder, *ADAPTIVE)
    return folder


def test_a_run_tells_what_it_kept_and_what_that_was_worth(adaptive):
    metrics = metrics_of(adaptive)
    epochs = [epoch["dropout"] for epoch in metrics["epochs"]]
    assert [part["everything"] for part in epochs] == [False, False, False, True]
    assert all(part["offered"] == 1437 for part in epochs)
    assert epochs[2]["kept"] < epochs[0]["kept"] < 1437, "what is known is left out"
    assert sum(part["kept"] for part in epochs) == metrics["summary"]["examples_seen"]
    assert metrics["summary"]["effective_epochs"] == pytest.approx(metrics["summary"]["examples_seen"] / 1437)
    assert metrics["summary"]["wall_clock_gain"] > 0
    for part in epochs[:3]:
        assert sum(part["kept_of_class"]) == part["kept"] == sum(part["hard_of_class"]), "the budget is exact"
        assert len(part["difficulty"]) == 10 and sum(part["proportion"]) == pytest.approx(1)
        assert 0 < part["scoring_seconds"] < part["training_seconds"]
    test = metrics["epochs"][-1]["test"]
    assert test["accuracy"] > 0.5 and 0.5 < test["f1_macro"] <= 1 and len(test["class_accuracy"]) == 10
    for rank in metrics["epochs"][0]["ranks"]:
        assert {"scoring", "training"} <= rank["phases"].keys()


def test_difficulty_is_the_moving_average_of_what_was_hard(adaptive):
    difficulty = [0.5] * 10
    for epoch in metrics_of(adaptive)["epochs"][:3]:
        part = epoch["dropout"]
        measured = [hard / offered for hard, offered in zip(part["hard_of_class"], part["offered_of_class"])]
        difficulty = [0.9 * old + 0.1 * new for old, new in zip(difficulty, measured)]
        assert part["difficulty"] == pytest.approx(difficulty, abs=1e-12)


@pytest.mark.parametrize("mode", ["dbpd", "apd", "infobatch"])
def test_one_rank_and_two_train_alike(mode, tmp_path):
    """Gently, with batches that do not become tiny: training in big steps blows the last bit of a sum up to anything."""
    gently = ["selection.mode=none", f"dropout.mode={mode}", "dropout.threshold=0.25", "training.lr=0.005"]
    for ranks in (1, 2):
        train(tmp_path / str(ranks), *gently, ranks=ranks)
    one, two = metrics_of(tmp_path / "1")["epochs"], metrics_of(tmp_path / "2")["epochs"]
    assert one[2]["dropout"]["kept"] < 1437
    for a, b in zip(one, two, strict=True):
        assert abs(a["dropout"]["kept"] - b["dropout"]["kept"]) <= 2, "near-ties at the threshold"
        assert a["train"]["loss"] == pytest.approx(b["train"]["loss"], rel=1e-3)


def test_dropout_may_not_change_within_an_epoch(tmp_path):
    train(tmp_path / "run", *ADAPTIVE, "output.save_steps=5", "output.keep_checkpoints=100", epochs=2)
    (within, *_) = sorted((tmp_path / "run" / "checkpoints").glob("checkpoint_epoch_0_step_*.safetensors"))
    fails(sage("train", "--resume", within, "dropout.threshold=0.5"), 4, "dropout.threshold is 0.6 there and 0.5 here")
    assert "training/dropout/difficulty" in tensors(within)
    # Between two epochs it may, also to another number of ranks.
    whole = tmp_path / "run" / "checkpoints" / "checkpoint_epoch_1.safetensors"
    result = sage("train", "--resume", whole, "dropout.threshold=0.5")
    assert result.returncode == 0, result.stderr


def test_the_plots_of_a_run(adaptive):
    subprocess.run([sys.executable, project / "analysis" / "dropout_plots.py", adaptive], check=True, capture_output=True)
    assert (adaptive / "dropout.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_the_configurations_hold_every_mode(name):
    config = project / "configs" / "dropout" / f"{name}.yaml"
    for mode in ("none", "dbpd", "smrd", "srd", "psmrd", "apd", "infobatch"):
        result = sage("config", "show", config, f"dropout.mode={mode}")
        assert result.returncode == 0, result.stderr
        assert yaml.safe_load(result.stdout)["dropout"]["mode"] == mode


def test_bad_input_is_named(tmp_path):
    out = f"output_dir={tmp_path / 'run'}"
    small = ["selection.mode=none", "model.name=mlp", "training.epochs=2", "dropout.mode=dbpd", out]
    fails(sage("train", *small, "dropout.threshold=1.0"), 2, "dropout.threshold")
    fails(sage("train", *small, "dropout.ema_alpha=0"), 2, "dropout.ema_alpha")
    fails(sage("train", *small, "data.augment.mixup.enabled=true"), 2, "data.augment.mixup", "dropout.mode dbpd")
    assert not (tmp_path / "run").exists()
    result = sage("train", *small, "dropout.start_revision=7", "--dry-run")
    assert result.returncode == 0
    assert "dropout.start_revision is 7, but the run has 2 epochs" in result.stderr + result.stdout
    assert "dbpd: a part of each batch in the first 2 of 2 epochs" in result.stdout
