"""The `sage` program as a user meets it: commands, run folders, and what bad input gets. Trains on the real digits."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from program import ENVIRONMENT, SAGE, SMALL, fails, same_tensors, sage, tensors, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One finished run of four epochs with selections before epochs 2 and 4."""
    folder = tmp_path_factory.mktemp("run") / "digits"
    train(folder)
    return folder


def test_version_names_every_library():
    text = sage("--version").stdout
    for name in ("sage", "libtorch", "mpi", "cuda", "nccl"):
        assert re.search(rf"^{name} ", text, re.M), text


def test_config_list_names_type_unit_meaning_and_default():
    text = sage("config", "list").stdout
    assert "selection.sketch.size" in text and "[rows]" in text and "(default 256)" in text
    assert len(re.findall(r"\(default ", text)) > 60


def test_config_show_is_read_back_to_the_same(tmp_path):
    first = sage("config", "show", "training.lr=0.25", "selection.gradient.scope=[layer3.*]").stdout
    (tmp_path / "config.yaml").write_text(first)
    assert sage("config", "show", tmp_path / "config.yaml").stdout == first
    assert "lr: 0.25" in first


def test_the_run_folder_explains_itself(run):
    expected = ["README.txt", "config.yaml", "config.json", "metrics.json", "metrics.csv", "training.log",
                "checkpoints/checkpoint_epoch_4.safetensors", "checkpoints/best_model.safetensors",
                "subset_indices/epoch_1_indices.json", "subset_indices/epoch_3_indices.json"]
    for name in expected:
        assert (run / name).stat().st_size > 0, name
    assert list((run / "tensorboard" / "train").glob("events.*"))
    assert not list(run.rglob("*.tmp"))
    subset = json.loads((run / "subset_indices" / "epoch_3_indices.json").read_text())
    assert len(subset["ids"]) == round(0.2 * 1437) == sum(subset["class_histogram"])
    assert subset["ids"] == sorted(set(subset["ids"]))
    assert 0 <= subset["overlap"] <= 1 and len(subset["scores"]) == len(subset["ids"])
    scores = (run / "subset_indices" / "epoch_3_scores.csv").read_text().splitlines()
    assert len(scores) == 1 + 1437
    metrics = json.loads((run / "metrics.json").read_text())
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2, 3, 4]
    assert len(metrics["epochs"][0]["ranks"]) == 2
    assert metrics["epochs"][-1]["ranks"][1]["host_peak_bytes"] > 0
    assert metrics["epochs"][-1]["test"]["accuracy"] > 0.5


def test_a_repeat_is_bit_equal(run, tmp_path):
    train(tmp_path / "again")
    name = "checkpoints/checkpoint_epoch_4.safetensors"
    assert same_tensors(run / name, tmp_path / "again" / name)


def test_resume_equals_a_run_that_never_stopped(run, tmp_path):
    folder = tmp_path / "stopped"
    train(folder)
    for epoch in (3, 4):  # as if it had been stopped in the third epoch
        (folder / "checkpoints" / f"checkpoint_epoch_{epoch}.safetensors").unlink(missing_ok=True)
    result = sage("train", "--resume", folder, ranks=2)
    assert result.returncode == 0, result.stderr
    assert "after epoch 2" in result.stderr
    name = "checkpoints/checkpoint_epoch_4.safetensors"
    assert same_tensors(run / name, folder / name)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [epoch["epoch"] for epoch in metrics["epochs"]] == [1, 2, 3, 4]
    assert len(metrics["selections"]) == 2


def test_resume_passes_over_a_damaged_checkpoint_and_says_so(tmp_path):
    folder = tmp_path / "damaged"
    train(folder, epochs=2, ranks=1)
    newest = folder / "checkpoints" / "checkpoint_epoch_2.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    result = sage("train", "--resume", folder)
    assert result.returncode == 0, result.stderr
    assert "checkpoint_epoch_2.safetensors" in result.stderr and "after epoch 1" in result.stderr


def test_auto_size_grows_until_the_certificate_is_small(tmp_path):
    found = {}
    for epsilon, ranks in ((0.5, 1), (0.0001, 1), (0.0001, 2)):
        folder = tmp_path / f"auto_{epsilon}_{ranks}"
        result = sage("select", *SMALL, "selection.scorer=proxy", "selection.proxy.steps=10",
                      "selection.sketch.size=auto", f"selection.sketch.epsilon={epsilon}",
                      "selection.sketch.max_size=128", f"output_dir={folder}", ranks=ranks)
        assert result.returncode == 0, result.stderr
        subset = json.loads((folder / "subset_indices" / "epoch_0_indices.json").read_text())
        size = int(re.search(r"frequent directions of size (\d+)", subset["notes"][0]).group(1))
        found[epsilon, ranks] = (size, subset["relative_certificate"])
    assert found[0.5, 1][0] == 32, "what it starts with is enough"
    assert 32 < found[0.0001, 1][0] <= 128
    assert found[0.0001, 1][1] < found[0.5, 1][1]
    assert found[0.0001, 2][0] == found[0.0001, 1][0]


def test_select_for_another_trainer(tmp_path):
    result = sage("select", *SMALL, "selection.scorer=proxy", "selection.proxy.steps=40", "selection.keep=filter",
                  "data.corrupt_labels=0.3", f"output_dir={tmp_path / 'chosen'}", ranks=2)
    assert result.returncode == 0, result.stderr
    subset = json.loads((tmp_path / "chosen" / "subset_indices" / "epoch_0_indices.json").read_text())
    assert len(subset["ids"]) == 287
    assert subset["noise_rate"] > 0.1 and subset["doubtful_ids"]
    wrong = subset["wrong_labels_kept"] / len(subset["ids"])
    assert wrong < 0.2, "the filter keeps fewer wrong labels than there are"
    doubted, made_wrong = len(subset["doubtful_ids"]), round(0.3 * 1437)
    assert subset["doubtful_precision"] == pytest.approx(subset["wrong_labels_doubted"] / doubted)
    assert subset["doubtful_recall"] == pytest.approx(subset["wrong_labels_doubted"] / made_wrong)
    assert subset["doubtful_precision"] > 0.45, "more than the 30 % that a list drawn at random would have"
    assert subset["doubtful_auroc"] > 0.7
    assert set(subset["peers"]) == {"small_loss", "confident_learning", "gradient_norm"}
    for peer in subset["peers"].values():
        assert peer["precision"] * doubted == pytest.approx(peer["recall"] * made_wrong), "as many suspects as ours"
        assert peer["auroc"] > 0.7

    import torch

    data = torch.utils.data.TensorDataset(torch.arange(1437))
    chosen = torch.utils.data.Subset(data, subset["ids"])
    assert len(chosen) == 287 and int(chosen[0][0]) == subset["ids"][0]


def test_evaluate_agrees_with_training(run):
    metrics = json.loads((run / "metrics.json").read_text())
    result = sage("evaluate", run / "checkpoints" / "checkpoint_epoch_4.safetensors", ranks=2)
    assert result.returncode == 0, result.stderr
    accuracy = float(re.search(r"test accuracy ([\d.]+) %", result.stdout)[1])
    assert accuracy == pytest.approx(100 * metrics["epochs"][-1]["test"]["accuracy"], abs=0.006)


def test_dry_run_prints_the_plan_and_leaves_nothing(tmp_path):
    result = sage("train", *SMALL, f"output_dir={tmp_path / 'none'}", "--dry-run", ranks=2)
    assert result.returncode == 0, result.stderr
    for word in ("1437 train", "logical shards", "steps", "memory", "2 on cpu"):
        assert word in result.stdout
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (["traning.lr=1"], 2, ["unknown key `traning.lr`", "did you mean `training.lr`"]),
        (["training.epochs=ten"], 2, ["training.epochs is `ten`", "an integer in [1, 1000000]"]),
        (["selection.fraction=0.0001"], 2, ["selection.fraction"]),
        (["model.name=resnet21"], 2, ["resnet21", "resnet20"]),
        (["model.stem=small"], 2, ["model.stem", "cifar", "imagenet"]),
        (["model.name=vit_b_16", "selection.mode=none"], 2, ["vit_b_16", "16x16"]),
        (["model.pretrained=/no/such.safetensors"], 4, ["model.pretrained", "/no/such.safetensors"]),
        (["data.name=cifar11"], 2, ["cifar11", "cifar10"]),
        (["selection.method=sag"], 2, ["sag", "did you mean `sage`"]),
        (["selection.method=glister"], 2, ["glister", "data.validation_fraction"]),
        (["selection.method=el2n", "selection.early.models=3"], 2, ["selection.early.models", "selection.scorer=proxy"]),
        (["no_such.yaml"], 2, ["no_such.yaml", "no such configuration file"]),
        (["data.path=/no/such/folder"], 3, ["/no/such/folder", "sage data fetch"]),
        (["device=cuda"], 5, ["cuda"]),
        (["selection.gradient.scope=[nothing.*]", "selection.no_warmup=true"], 2, ["nothing.*"]),
        (["--resume", "/no/such/run"], 4, ["/no/such/run"]),
        (["output_dir=/proc/no"], 5, ["/proc/no"]),
    ],
)
def test_bad_input_gets_one_message_and_its_status(tmp_path, ranks, arguments, status, words):
    started = time.monotonic()
    result = sage("train", *arguments, *([] if any("output_dir" in a for a in arguments)
                                         else [f"output_dir={tmp_path / 'x'}"]), ranks=ranks)
    fails(result, status, *words)
    assert time.monotonic() - started < 30
    assert not (tmp_path / "x" / "metrics.json").exists()


def test_a_folder_in_use_needs_resume_or_overwrite(run):
    before = (run / "metrics.json").read_bytes()
    result = sage("train", *SMALL, f"output_dir={run}")
    fails(result, 2, "--overwrite", "--resume")
    assert (run / "metrics.json").read_bytes() == before


def test_overwrite_refuses_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "precious.txt").write_text("keep me")
    result = sage("train", *SMALL, f"output_dir={tmp_path}", "--overwrite")
    assert result.returncode == 2
    assert (tmp_path / "precious.txt").read_text() == "keep me"


def test_checkpoints_of_another_model_and_cut_short(run, tmp_path):
    path = run / "checkpoints" / "checkpoint_epoch_4.safetensors"
    fails(sage("evaluate", path, "model.name=mlp", ranks=2), 4, "mlp", "cnn")
    short = tmp_path / "short.safetensors"
    short.write_bytes(path.read_bytes()[:-100])
    fails(sage("evaluate", short, ranks=2), 4, "short.safetensors")


def test_damaged_data_names_file_and_record(tmp_path):
    import gzip

    source = next(
        folder / "digits.csv.gz"
        for folder in (Path(os.environ.get("SAGE_DATA_DIR", "/nonexistent")) / "digits",
                       Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sage" / "data" / "digits")
        if (folder / "digits.csv.gz").exists()
    )
    folder = tmp_path / "digits"
    folder.mkdir()
    lines = gzip.decompress(source.read_bytes()).decode().splitlines()
    lines[40] = lines[40].rsplit(",", 1)[0] + ",12"
    (folder / "digits.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    fails(sage("train", f"data.path={folder}", f"output_dir={tmp_path / 'x'}", ranks=2), 3, "digits.csv.gz", "12")


def test_a_loss_that_is_not_finite_stops_the_job_and_names_the_step(tmp_path):
    result = sage("train", *SMALL, "training.lr=1e30", "training.weight_decay=0", "selection.mode=none",
                  f"output_dir={tmp_path / 'x'}", ranks=2)
    assert result.returncode == 6, result.stderr
    assert re.search(r"epoch \d+/\d+, step \d+", result.stderr) and "training.non_finite" in result.stderr
    # What was good is saved, and the run folder tells why it ended.
    assert list((tmp_path / "x" / "checkpoints").glob("checkpoint_epoch_*.safetensors"))
    log = (tmp_path / "x" / "training.log").read_text()
    assert "error: epoch" in log and f"sage train --resume {tmp_path / 'x'} training.lr=" in log
    # Neither the bad steps nor the look for their cause have left anything in it: with a lower rate it goes on.
    newest = max((tmp_path / "x" / "checkpoints").glob("checkpoint_epoch_*"), key=lambda path: path.stat().st_mtime)
    assert all(bool((abs(value) < float("inf")).all()) for value in tensors(newest).values() if value.dtype == "float32")


def test_data_commands(tmp_path):
    result = sage("data", "info", "digits")
    assert result.returncode == 0 and "1437" in result.stdout, result.stderr
    assert sage("data", "verify", "digits").returncode == 0
    source = tmp_path / "mirror"
    source.mkdir()
    result = sage("data", "fetch", "mnist", "--path", tmp_path / "to", "--url", f"file://{source}")
    assert result.returncode == 3 and "train-images" in result.stderr, result.stderr
    assert shutil.which("mpirun")


def test_resume_refuses_another_course_and_writes_nothing(run):
    before = (run / "config.yaml").read_bytes()
    for setting, word in (("training.optimizer=adam", "optimizer"), ("seed=9", "seed is 0 there and 9 here"),
                          ("training.batch_size=32", "global batch size"), ("data.corrupt_labels=0.5", "corrupt_labels")):
        fails(sage("train", "--resume", run, "training.epochs=6", setting, ranks=2), 4, word)
    assert (run / "config.yaml").read_bytes() == before


def test_resume_does_not_write_into_a_folder_that_is_no_run(run, tmp_path):
    (tmp_path / "README.txt").write_text("mine")
    result = sage("train", "--resume", run, f"output_dir={tmp_path}")
    fails(result, 2, "does not look like a run folder")
    assert (tmp_path / "README.txt").read_text() == "mine"


def test_resuming_an_older_checkpoint_sets_the_later_ones_aside(tmp_path):
    folder = tmp_path / "run"
    train(folder, ranks=1)
    result = sage("train", "--resume", folder / "checkpoints" / "checkpoint_epoch_1.safetensors", "training.epochs=2")
    assert result.returncode == 0, result.stderr
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert {"checkpoint_epoch_2.safetensors", "checkpoint_epoch_4.safetensors.abandoned"} <= names
    assert "after epoch 2" in sage("train", "--resume", folder, "training.epochs=3").stderr


def test_ranks_with_different_settings_are_refused(tmp_path):
    common = ["train", *SMALL, f"output_dir={tmp_path / 'x'}"]
    result = subprocess.run(
        ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", "1", SAGE, *common,
         ":", "-np", "1", SAGE, *common, "training.batch_size=100"],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False,
    )
    fails(result, 2, "rank 1 was started with another configuration than rank 0")
    assert not (tmp_path / "x").exists()


def test_select_that_cannot_choose_leaves_no_folder(tmp_path):
    fails(sage("select", "selection.fraction=1e-9", f"output_dir={tmp_path / 'x'}"), 2, "selection.fraction")
    fails(sage("train", *SMALL, "selection.scorer=proxy", "selection.proxy.steps=3", "selection.proxy.model=resnet21",
               f"output_dir={tmp_path / 'x'}"), 2, "selection.proxy.model", "resnet20")
    assert not (tmp_path / "x").exists()
