"""The flags of other programs at the `sage` program itself: help, `config show`, training, resuming, errors.

What every single command line means is checked in flags_test.cpp.
"""

import json
import re

import pytest
from program import fails, sage

GROUPS = [
    "Dataset Options", "SAGE Configuration", "Selection & Training Modes", "Training Hyperparameters",
    "Training Augmentation", "Logging & Monitoring", "Advanced Options", "CREST Options",
    "Progressive Data Dropout Options",
]
# On the digits, in seconds.
QUICK = ["data.name=digits", "--model", "cnn", "--epochs", "2", "--warmup_epochs", "1", "--subset_fraction", "0.2",
         "--sketch_size", "32", "--save_interval", "1", "--lr", "0.05"]


def after(text, words, lines):
    """What `grep -A lines words` shows."""
    rows = text.splitlines()
    first = next(i for i, row in enumerate(rows) if words in row)
    return "\n".join(rows[first : first + lines + 1])


def test_help_is_grouped_as_users_expect():
    text = sage("train", "--help").stdout
    assert [group for group in re.findall(r"^(\S.*):$", text, re.M) if group in GROUPS] == GROUPS
    configuration = after(text, "SAGE Configuration", 20)
    for flag in ("--per_class", "--subset_fraction", "--sketch_size", "--selection_method", "--fd_method",
                 "--scoring_method"):
        assert flag in configuration
    modes = after(text, "Training Modes", 15)
    for flag in ("--single_selection", "--no_warmup", "--no_selection", "--resume", "--warmup_epochs",
                 "--refresh_epochs"):
        assert flag in modes
    assert "--train_frac" in sage("crest", "--help").stdout


def test_config_show_takes_the_flags_of_each_command():
    shown = sage("config", "show", "--dataset", "tiny_imagenet", "--selection_method", "gradmatch").stdout
    assert 'name: "tiny_imagenet"' in shown and 'method: "gradmatch"' in shown and "epochs: 200" in shown
    turned = ["--selection_method", "gradmatch", "--dataset", "tiny_imagenet"]
    assert shown == sage("config", "show", "train", *turned).stdout
    crest = sage("config", "show", "crest", "--epochs", "100").stdout
    assert "milestones: [60,85]" in crest and 'method: "crest"' in crest
    dropout = sage("config", "show", "--mode", "train_with_stratified", "--batch_size", "64").stdout
    assert "batch_size_per_rank: 64" in dropout and 'mode: "psmrd"' in dropout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """As SAGE's users type it: one run of two epochs, with a tenth of the labels wrong."""
    folder = tmp_path_factory.mktemp("flags") / "results" / "experiment"
    result = sage("train", *QUICK, "--corrupt_labels", "0.1", "--minority_downsample", "0.3", "--tensorboard",
                  "--output_dir", folder, ranks=2)
    assert result.returncode == 0, result.stderr
    assert "what is not given is as in SAGE's program" in result.stderr
    return folder


def test_the_run_folder_holds_what_the_readme_of_sage_shows(run):
    for name in ("config.json", "metrics.json", "training.log", "checkpoints/checkpoint_epoch_2.safetensors",
                 "checkpoints/best_model.safetensors", "subset_indices/epoch_1_indices.json"):
        assert (run / name).stat().st_size > 0, name
    for part in ("train", "validation"):
        assert list((run / "tensorboard" / part).glob("events.*")), part
    config = json.loads((run / "config.json").read_text())["config"]
    assert config["training"]["epochs"] == 2 and config["output"]["save_interval"] == 1
    assert config["selection"]["fraction"] == 0.2


def test_what_was_done_to_the_data_is_recorded_and_counted(run):
    changes = json.loads((run / "data_changes.json").read_text())
    wrong = changes["wrong_labels"]
    assert len(wrong["ids"]) == round(0.1 * wrong["of"]) == len(wrong["given"]) == len(wrong["true"])
    assert all(given != true for given, true in zip(wrong["given"], wrong["true"]))
    assert wrong["ids"] == sorted(set(wrong["ids"]))
    tail, minor = changes["dropped"]
    assert tail["ids"] == [] and minor["setting"] == "data.minority_downsample"
    sizes = changes["class_sizes_of_files"]
    lost = [before - after for before, after in zip(sizes, changes["class_sizes_to_train_on"])]
    assert sum(lost) == len(minor["ids"]) == 1437 - wrong["of"] > 0
    smallest = sorted(range(10), key=lambda c: (sizes[c], c))[:5]
    assert {c for c in range(10) if lost[c]} == set(smallest) == set(minor["true"])

    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["summary"]["corrupted_labels"] == len(wrong["ids"])
    [selection] = metrics["selections"]
    subset = json.loads((run / "subset_indices" / "epoch_1_indices.json").read_text())
    assert not set(minor["ids"]) & set(subset["ids"])
    assert subset["wrong_labels_kept"] == len(set(subset["ids"]) & set(wrong["ids"])) == selection["wrong_labels_kept"]

    # The area under the curve again, pair by pair, from the table of scores.
    rows = [line.split(",") for line in (run / "subset_indices" / "epoch_1_scores.csv").read_text().splitlines()[1:]]
    score = {int(row[0]): float(row[2]) for row in rows}
    assert len(score) == wrong["of"]
    label = {int(row[0]): int(row[1]) for row in rows}
    assert [label[i] for i in wrong["ids"]] == wrong["given"]
    bad = set(wrong["ids"])
    pairs = [(score[b], score[g]) for b in bad for g in score if g not in bad]
    area = sum(1.0 if b < g else 0.5 if b == g else 0.0 for b, g in pairs) / len(pairs)
    assert subset["wrong_labels_auroc"] == pytest.approx(area, abs=1e-9) == selection["wrong_labels_auroc"]
    lowest = sorted(score, key=lambda i: (score[i], i))[: len(bad)]
    assert subset["wrong_labels_precision"] == pytest.approx(len(set(lowest) & bad) / len(bad))
    assert area > 0.7, "an epoch on the digits is enough to see most of them"


def test_the_changes_do_not_depend_on_the_number_of_ranks(run, tmp_path):
    result = sage("select", *QUICK, "--corrupt_labels", "0.1", "--minority_downsample", "0.3",
                  "--output_dir", tmp_path / "alone")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "alone" / "data_changes.json").read_bytes() == (run / "data_changes.json").read_bytes()


def test_tensorboard_shows_curves_classes_and_pictures(run):
    import io

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard" / "train"), size_guidance={"histograms": 0, "images": 0})
    events.Reload()
    assert {"loss", "accuracy", "learning_rate", "selection/kept", "selection/wrong_labels_auroc"} <= set(
        events.Tags()["scalars"])
    assert [one.step for one in events.Scalars("loss")] == [1, 2]
    subset = json.loads((run / "subset_indices" / "epoch_1_indices.json").read_text())
    [kept] = events.Scalars("selection/kept")
    assert (kept.step, kept.value) == (1, len(subset["ids"]))
    [classes] = events.Histograms("selection/classes")
    assert list(classes.histogram_value.bucket)[1:] == subset["class_histogram"]
    assert list(classes.histogram_value.bucket_limit)[1:] == [c + 0.5 for c in range(10)]
    [picture] = events.Images("selection/picked")
    assert (picture.width, picture.height) == (8 * 33 - 1, 3 * 33 - 1)

    from PIL import Image

    pixels = Image.open(io.BytesIO(picture.encoded_image_string))
    assert pixels.size == (picture.width, picture.height) and pixels.mode == "L"
    assert pixels.getextrema()[1] > 200, "digits are bright on black"
    validation = EventAccumulator(str(run / "tensorboard" / "validation"))
    validation.Reload()
    assert set(validation.Tags()["scalars"]) == {"accuracy", "f1_macro", "loss"}


def test_resuming_by_the_name_that_users_know(run, tmp_path):
    old = run / "checkpoint_epoch_1.pt"  # the file itself is checkpoints/checkpoint_epoch_1.safetensors
    result = sage("train", "--resume", old, "--output_dir", tmp_path / "resumed", ranks=2)
    assert result.returncode == 0, result.stderr
    assert "after epoch 1" in result.stderr
    shown = sage("config", "show", "--resume", old, "--epochs", "3").stdout
    assert "epochs: 3" in shown and 'name: "digits"' in shown and "corrupt_labels: 0.1" in shown
    # The same file under the other name of its network goes on, another network or data set does not.
    fails(sage("train", "--resume", old, "--model", "mlp"), 4, "model.name is cnn there and mlp here", "`--model mlp`")
    fails(sage("train", "--resume", old, "--minority_downsample", "0.2"), 4, "data.minority_downsample is 0.3 there",
          "`--minority_downsample 0.2`")
    fails(sage("train", "--resume", old, "--dataset", "mnist", "--data_path", tmp_path), 4,
          "data.name is digits there and mnist here", "`--dataset mnist`")


@pytest.mark.parametrize("ranks", [1, 2])
def test_bad_flags_get_one_message(tmp_path, ranks):
    target = ["--output_dir", tmp_path / "x"]
    fails(sage("train", "--subset_fractoin", "0.1", *target, ranks=ranks), 2, "unknown option --subset_fractoin",
          "did you mean --subset_fraction?")
    fails(sage("train", "--no_selection", "--single_selection", *target, ranks=ranks), 2,
          "--no_selection and --single_selection exclude each other")
    fails(sage("train", "--epochs", "ten", *target, ranks=ranks), 2, "--epochs ten: training.epochs is `ten`")
    fails(sage("train", "--model", "resnet21", "data.name=digits", *target, ranks=ranks), 2, "resnet20",
          "`--model resnet21`")
    assert not (tmp_path / "x").exists()


def test_classes_that_lose_all_their_examples_and_wrong_label_files(tmp_path):
    target = f"output_dir={tmp_path / 'x'}"
    fails(sage("train", "data.long_tail=0.001", target), 2, "data.long_tail 0.001 leaves class", "without an example")
    labels = tmp_path / "labels.u8"
    labels.write_bytes(bytes(100))
    human = ["data.corrupt_kind=human", target]
    fails(sage("train", f"data.human_labels={labels}", *human), 3, "labels.u8", "holds 100 labels", "1437")
    fails(sage("train", f"data.human_labels={labels}", "data.corrupt_labels=0.2", *human), 2, "leave it 0")
    fails(sage("train", *human), 2, "data.human_labels is empty")
    fails(sage("train", f"data.human_labels={labels}", target), 2, "data.corrupt_kind is symmetric")
    assert not (tmp_path / "x").exists()
