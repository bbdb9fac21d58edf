"""`sage train` with selection.method crest: the configurations, a whole run on the digits, and what bad input gets."""

import json
from pathlib import Path

import pytest
import yaml
from program import fails, sage

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "crest").glob("*.yaml"))
DIGITS = next(path for path in CONFIGS if path.stem == "digits")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configurations_have_the_schedule_of_the_paper(path):
    config = yaml.safe_load(sage("config", "show", path).stdout)
    training, epochs = config["training"], config["training"]["epochs"]
    assert config["selection"]["method"] == "crest" and training["scheduler"] == "multistep"
    assert training["milestones"] == [round(0.6 * epochs), round(0.85 * epochs)]
    assert training["lr_warmup_epochs"] == 0.1 * epochs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tenth of the steps of twenty epochs."""
    folder = tmp_path_factory.mktemp("crest") / "digits"
    result = sage("train", DIGITS, f"output_dir={folder}", ranks=2)
    assert result.returncode == 0, result.stderr
    return folder, result.stderr + result.stdout


def test_a_run_tells_its_story(run):
    folder, said = run
    assert "20 short epochs of 5 steps" in said
    metrics = json.loads((folder / "metrics.json").read_text())
    crest = metrics["summary"]["crest"]
    assert metrics["summary"]["steps"] == 100
    assert metrics["summary"]["final_test"]["accuracy"] > 0.9
    assert crest["updates"] == len(metrics["crest_updates"]) > 1
    assert 0 < crest["share_of_other_phases"] < 1
    assert all(update["error"] > 0.2 for update in metrics["crest_updates"][1:])
    assert any(update["forgettability"] is not None for update in metrics["crest_updates"])
    phases = metrics["epochs"][-1]["ranks"][1]["phases"]
    assert {"crest.checking", "forward", "backward"} <= set(phases)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard" / "train"))
    events.Reload()
    assert "crest/updates" in events.Tags()["scalars"]
    assert events.Scalars("crest/updates")[-1].value == crest["updates"]


def test_a_plan_names_sets_coresets_and_memory():
    said = sage("train", DIGITS, "--dry-run").stdout
    assert "random sets of 80 (8 of each class), coresets of 32" in said and "crest 0." in said


def test_bad_input_says_what_to_set(tmp_path):
    def refused(what, command="train"):
        return sage(command, DIGITS, *what, f"output_dir={tmp_path / 'none'}")

    for key, value, words in (
        ("random_set", 1, "set selection.crest.random_set to at most 0."),
        ("train_fraction", 1e-6, "is a budget of no step"),
        ("check_threshold", 0, "selection.crest.check_threshold"),
        ("interval_factor", -1, "selection.crest.interval_factor"),
        ("min_remaining", 1.5, "selection.crest.min_remaining"),
    ):
        fails(refused([f"selection.crest.{key}={value}"]), 2, words)
    fails(refused([], "select"), 2, "use `sage train`")
    assert not (tmp_path / "none").exists()
