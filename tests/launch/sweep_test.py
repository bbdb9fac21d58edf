"""`sage sweep` on small studies of the digits: what is run, skipped, gone on with, repeated and refused; the tables."""

import csv
import json
import os
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path

import pytest
from program import ENVIRONMENT, SAGE, fails, same_tensors, sage

project = Path(__file__).resolve().parents[2]

BASE = """
base:
  model.name: mlp
  training: {steps: 12, batch_size: 64, lr: 0.05}
  selection: {fraction: 0.2, mode: single, no_warmup: true, sketch.size: 16}
  data.workers: 0
  output.tensorboard: false
"""
STUDY = f"""
name: small
title: "Random & SAGE, 100 % real"
{BASE}
seeds: [1, 2]
groups:
  methods:
    variants:
      random: {{selection.method: random}}
      sage: {{selection.method: sage}}
  all:
    seeds: [1]
    variants:
      everything: {{selection.mode: none}}
"""
RUNS = [
    "methods-random-seed1", "methods-random-seed2", "methods-sage-seed1", "methods-sage-seed2", "all-everything-seed1",
]


def study_file(folder, text=STUDY):
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def sweep(*arguments, **more):
    return sage("sweep", *arguments, **more)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A small study that ran with two runs at a time."""
    folder = tmp_path_factory.mktemp("swept")
    result = sweep(study_file(folder), "--out", folder / "out", "--jobs", 2, "--cores", 2)
    assert result.returncode == 0, result.stderr
    return folder, result


def test_all_runs_are_made_and_the_tables_hold_what_the_run_folders_say(swept):
    folder, result = swept
    out = folder / "out"
    details = rows_of(out / "detailed_results.csv")
    assert [row["name"] for row in details] == RUNS
    accuracies = {}
    for row in details:
        summary = json.loads((out / row["name"] / "metrics.json").read_text())["summary"]
        assert row["status"] == "finished" and float(row["accuracy"]) == summary["final_test"]["accuracy"]
        assert int(row["host_peak_bytes"]) == summary["host_peak_bytes"] > 0
        assert float(row["total_seconds"]) == summary["total_seconds"]
        assert float(row["f1_macro"]) == summary["final_test"]["f1_macro"]
        assert float(row["effective_epochs"]) == summary["effective_epochs"] > 0
        # One thread: no more CPU time than the process had, its start included.
        assert 0 < float(row["cpu_seconds"]) == summary["cpu_seconds"]
        accuracies.setdefault(row["group"] + row["variant"], []).append(float(row["accuracy"]))
    summary = rows_of(out / "summary_table.csv")
    assert [(row["variant"], row["runs"], row["missing"]) for row in summary] == [
        ("random", "2", "0"), ("sage", "2", "0"), ("everything", "1", "0")]
    for row in summary:
        values = accuracies[row["group"] + row["variant"]]
        assert float(row["accuracy_mean"]) == pytest.approx(statistics.mean(values), abs=1e-12)
        if len(values) == 1:
            assert row["accuracy_deviation"] == ""
        else:
            assert float(row["accuracy_deviation"]) == pytest.approx(statistics.stdev(values), abs=1e-12)
    everything = json.loads((out / "all_results.json").read_text())
    assert [run["name"] for run in everything["runs"]] == RUNS
    assert everything["runs"][2]["result"]["kept"] == 287  # a fifth of 1437
    assert everything["runs"][4]["result"]["curve"][-1]["steps"] == 12
    latex = (out / "summary_table.tex").read_text()
    assert r"Random \& SAGE, 100 \% real" in latex and latex.count(r"\\") == 1 + 2 + 3
    assert "test accuracy %" in result.stdout and "2 of 2" in result.stdout


def test_what_is_finished_is_not_repeated(swept):
    folder, _ = swept
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("metrics.json")}
    again = sweep(folder / "study.yaml", "--out", folder / "out")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(before) == 5
    listed = sweep(folder / "study.yaml", "--out", folder / "out", "--dry-run")
    assert listed.stdout.count("finished  ") == 5 and "5 runs, 0 to be made" in listed.stdout


def test_other_settings_are_refused_with_what_differs_and_fresh_replaces(swept, tmp_path):
    folder, _ = swept
    out = tmp_path / "out"
    subprocess.run(["cp", "-r", folder / "out", out], check=True)
    metrics = out / RUNS[0] / "metrics.json"
    before = metrics.read_bytes()
    result = sweep(folder / "study.yaml", "--out", out, "training.lr=0.01")
    fails(result, 2, "5 of 5 run folders", "training.lr is 0.05 there and 0.01 here", "--fresh")
    assert metrics.read_bytes() == before
    result = sweep(folder / "study.yaml", "--out", out, "training.lr=0.01", "--fresh")
    assert result.returncode == 0, result.stderr
    assert "lr: 0.01" in (out / RUNS[0] / "config.yaml").read_text()


def test_what_is_missing_is_shown_as_missing(swept, tmp_path):
    folder, _ = swept
    out = tmp_path / "out"
    subprocess.run(["cp", "-r", folder / "out", out], check=True)
    for path in sorted((out / RUNS[3]).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    result = sweep(folder / "study.yaml", "--out", out, "--collect")
    assert result.returncode == 0, result.stderr
    assert f"{RUNS[3]} (missing)" in result.stdout and "1 of 2" in result.stdout
    row = rows_of(out / "summary_table.csv")[1]
    assert (row["runs"], row["missing"], row["accuracy_deviation"]) == ("1", "1", "")
    details = rows_of(out / "detailed_results.csv")[3]
    assert details["status"] == "missing" and details["accuracy"] == details["total_seconds"] == ""
    assert json.loads((out / "all_results.json").read_text())["runs"][3]["result"] is None


def wait_for(condition, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@pytest.mark.parametrize("ranks", [1, 2])
def test_ctrl_c_saves_all_runs_and_resume_goes_on_to_the_same_bits(tmp_path, ranks):
    steps = "training.steps=1500"
    text = STUDY.replace("output.tensorboard", "output.save_interval: 100000\n  output.tensorboard").split("  all:")[0]
    study = study_file(tmp_path, text)
    common = ["--ranks", ranks, "--oversubscribe", steps, "selection.fraction=0.9"]
    whole = sweep(study, "--out", tmp_path / "whole", "--jobs", 2, *common)
    assert whole.returncode == 0, whole.stderr

    out = tmp_path / "out"
    process = subprocess.Popen([SAGE, "sweep", study, "--out", out, "--jobs", "2", *map(str, common)], env=ENVIRONMENT,
                               stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    logs = [out / name / "training.log" for name in RUNS[:2]]
    wait_for(lambda: all(log.exists() and "epoch 2/" in log.read_text() for log in logs), 60, "two runs under way")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 8, errors
    assert "stopping: 2 runs save and leave" in errors and "--resume" in errors
    assert f"{RUNS[0]} (incomplete)" in output and f"{RUNS[2]} (missing)" in output
    assert "stopped by SIGUSR1" in logs[0].read_text()

    fails(sweep(study, "--out", out, "--jobs", 2, *common), 2, "2 of 4 run folders", "incomplete")
    resumed = sweep(study, "--out", out, "--jobs", 2, *common, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from" in logs[0].read_text()
    for name in RUNS[:4]:
        # The checkpoint of the stop is there too, of an earlier epoch.
        (last,) = (tmp_path / "whole" / name / "checkpoints").glob("checkpoint_epoch_*.safetensors")
        assert same_tensors(last, tmp_path / "out" / name / "checkpoints" / last.name)


def test_a_run_that_fails_is_tried_once_more_and_the_others_go_on(tmp_path):
    text = STUDY.replace("sage: {selection.method: sage}", "bad: {training.lr: 1e30, selection.mode: none}")
    result = sweep(study_file(tmp_path, text), "--out", tmp_path / "out")
    assert result.returncode == 6, result.stderr
    assert result.stderr.count("it is tried once more") == 2 and result.stderr.count("FAILED, status 6") == 2
    log = (tmp_path / "out" / "logs" / "methods-bad-seed1.log").read_text()
    assert log.count("$ ") == 2 and " --resume " in log
    details = {row["name"]: row["status"] for row in rows_of(tmp_path / "out" / "detailed_results.csv")}
    assert list(details.values()) == ["finished", "finished", "incomplete", "incomplete", "finished"]
    # A wrong configuration stays wrong: it is not tried again.
    text = STUDY.replace("sage: {selection.method: sage}", "bad: {selection.gradient.scope: [no_such_parameter]}")
    result = sweep(study_file(tmp_path, text), "--out", tmp_path / "other")
    assert result.returncode == 2 and "tried once more" not in result.stderr, result.stderr


def test_the_program_may_be_built_anew_meanwhile_but_not_go_away(tmp_path):
    program = tmp_path / "sage"

    def begin(out):
        """A sweep by a copy of the program, whose first run has begun."""
        shutil.copy2(SAGE, program)
        process = subprocess.Popen([program, "sweep", study_file(tmp_path), "--out", out, "training.steps=100"],
                                   env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        wait_for((out / RUNS[0] / "training.log").exists, 60, "a run under way")
        return process

    shutil.copy2(SAGE, tmp_path / "new")
    process = begin(tmp_path / "out")
    os.replace(tmp_path / "new", program)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"$ {program} train" in (tmp_path / "out" / "logs" / f"{RUNS[-1]}.log").read_text()

    process = begin(tmp_path / "other")
    program.unlink()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 5 and errors.count("error: ") == 1, errors
    assert f"{program} is gone since the sweep began" in errors and "--resume" in errors
    assert not (tmp_path / "other" / RUNS[1]).exists()


def test_the_runs_share_out_the_gpus_and_threads(tmp_path):
    """Ids that no GPU has: the runs compute on the CPU, and their environment says what each was given."""
    text = STUDY.replace("steps: 12", "steps: 1000000").split("  all:")[0]
    process = subprocess.Popen(
        [SAGE, "sweep", study_file(tmp_path, text), "--out", tmp_path / "out", "--jobs", "2", "--gpus", "7,8", "--cores",
         "6", "device=cpu"], env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        def environments():
            found = []
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for child in children:
                entries = (Path("/proc") / child / "environ").read_bytes().split(b"\0")
                found.append({e.split(b"=")[0]: e.split(b"=", 1)[1] for e in entries if b"=" in e})
            return [e for e in found if b"CUDA_VISIBLE_DEVICES" in e]

        wait_for(lambda: len(environments()) == 2, 30, "two runs under way")
        assert {e[b"CUDA_VISIBLE_DEVICES"] for e in environments()} == {b"7", b"8"}
        assert {e[b"OMP_NUM_THREADS"] for e in environments()} == {b"3"}
    finally:
        for _ in range(2):  # a second signal ends the runs without saving
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        process.wait(30)


def bad(tmp_path, text, *words, flags=()):
    fails(sweep(study_file(tmp_path, text), "--out", tmp_path / "out", *flags), 2, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("old", "new", "words"), [
    ("seeds: [1, 2]\ngroups", "seed: [1, 2]\ngroups", ["study.yaml:12", "unknown key `seed`", "did you mean `seeds`"]),
    ("seeds: [1, 2]", "seeds: []", ["study.yaml:12", "seeds", "at least one"]),
    ("seeds: [1, 2]", "seeds: [1, 1]", ["study.yaml:12", "seed 1 is given twice"]),
    ("seeds: [1, 2]", "seeds: [1, x]", ["study.yaml:12", "`x`"]),
    ("{selection.method: random}", "{selection.methd: random}", ["study.yaml:16", "selection.methd", "selection.method"]),
    ("{selection.method: random}", "{selection.fraction: 2}", ["study.yaml:16", "selection.fraction is `2`"]),
    ("{selection.method: random}", "{output_dir: here}", ["study.yaml:16", "--out"]),
    ("{selection.method: random}", "{seed: 3}", ["study.yaml:16", "seeds"]),
    ("{selection.method: random}", "{selection.method: rndom}", ["methods-random-seed1", "rndom"]),
    ("random: {", "ran/dom: {", ["study.yaml:16", "ran/dom"]),
    ("      sage: {", "      random: {", ["study.yaml:17", "`random` is given twice"]),
    ("    variants:\n      everything: {selection.mode: none}", "    grid: {selection.fraction: []}",
     ["study.yaml:20", "no values for `selection.fraction`"]),
    ("    variants:\n      everything: {selection.mode: none}", "    grid: {}", ["study.yaml:20", "`grid` is empty"]),
    ("    variants:\n      everything: {selection.mode: none}", "    set: {}", ["neither `variants` nor a `grid`"]),
    ("    variants:\n      everything: {selection.mode: none}", "    grid: {data.labels: [fine, fine]}",
     ["two runs are called all-labels_fine-seed1"]),
    ("selection.mode: none", "selection.scorer: proxy", ["all-everything-seed1", "selection.proxy.steps"]),
    ("base:", "bace:", ["unknown key `bace`", "`base`"]),
    ("title: ", "title: &anchor ", ["study.yaml:3", "anchors"]),
])
def test_a_bad_study_gets_one_message_and_nothing_is_made(tmp_path, old, new, words):
    assert old in STUDY
    bad(tmp_path, STUDY.replace(old, new, 1), *words)


def test_bad_options_and_places_are_refused(tmp_path):
    bad(tmp_path, STUDY, "--jobs 100 times --ranks 2", flags=("--jobs", 100, "--ranks", 2, "--cores", 2))
    bad(tmp_path, STUDY, "--gpus names 1", flags=("--jobs", 2, "--gpus", "0", "--oversubscribe"))
    bad(tmp_path, STUDY, "exclude", flags=("--resume", "--fresh"))
    bad(tmp_path, STUDY, "nothing of this study has run", flags=("--collect",))
    bad(tmp_path, "groups: {}", "`groups` is empty")
    bad(tmp_path, STUDY.replace("base:", "base: absent.yaml\nset:"), "absent.yaml is no file")
    study = study_file(tmp_path)
    fails(sweep(tmp_path / "absent.yaml"), 2, "no such study")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    fails(sweep(study, "--out", taken), 2, "not the folder of a sweep")
    (taken / "study.json").write_text('{"study": "other"}')
    fails(sweep(study, "--out", taken), 2, "holds the study `other`")
    (taken / "study.json").write_text('{"study": ')
    fails(sweep(study, "--out", taken), 2, "damaged")
    assert sorted(path.name for path in taken.iterdir()) == ["mine.txt", "study.json"]
    fails(sweep(study, ranks=2), 2, "works alone")


def test_a_folder_that_is_no_run_is_left_alone_even_with_fresh(swept, tmp_path):
    folder, _ = swept
    out = tmp_path / "out"
    subprocess.run(["cp", "-r", folder / "out", out], check=True)
    mine = out / RUNS[0]
    (mine / "README.txt").write_text("mine")
    for flags in ((), ("--fresh",), ("--resume",)):
        fails(sweep(folder / "study.yaml", "--out", out, *flags), 2, RUNS[0], "does not look like a run folder")
    (out / RUNS[1] / "metrics.json").write_text('{"summary": {"finished": "x", "final_test": {}}}')
    fails(sweep(folder / "study.yaml", "--out", out), 2, "2 of 5 run folders", RUNS[1], "not one of this version")
    config = out / RUNS[2] / "config.json"
    config.write_text(config.read_text().replace('"no_warmup"', '"no_warm_up"'))
    fails(sweep(folder / "study.yaml", "--out", out), 2, RUNS[2], "selection.no_warmup is missing there")


def test_a_run_of_another_version_or_number_of_ranks_counts_with_a_word(swept, tmp_path):
    folder, _ = swept
    out = tmp_path / "out"
    subprocess.run(["cp", "-r", folder / "out", out], check=True)
    config = out / RUNS[0] / "config.json"
    data = json.loads(config.read_text())
    data["run"]["git_revision"] = "0123456"
    data["run"]["ranks"] = 4
    config.write_text(json.dumps(data))
    result = sweep(folder / "study.yaml", "--out", out, "--collect")
    assert result.returncode == 0 and "made by version 0123456" in result.stdout, result.stderr
    assert "made with 4 ranks, not 1" in result.stdout


def test_without_slurm_there_is_one_message(tmp_path):
    study = study_file(tmp_path)
    environment = {**ENVIRONMENT, "PATH": str(tmp_path)}
    result = subprocess.run([SAGE, "sweep", study, "--out", tmp_path / "out", "--slurm"], env=environment,
                            capture_output=True, text=True, timeout=60, check=False)
    fails(result, 5, "no Slurm")
    assert not (tmp_path / "out").exists()


def test_a_grid_gives_stable_names_in_order(tmp_path):
    text = BASE + """
seeds: [3]
groups:
  g:
    set: {training.momentum: 0.5}
    variants:
      random: {selection.method: random}
      sage: {}
    grid:
      selection.fraction: [0.05, 0.5]
      selection.gradient.scope: [[classifier], ["fc.*", conv1]]
"""
    listed = sweep(study_file(tmp_path, text), "--out", tmp_path / "out", "--dry-run").stdout.splitlines()
    scopes = ["scope__classifier_", "scope__fc.___conv1_"]  # [fc.*, conv1], as YAML writes it
    expected = [f"g-{method}-fraction_{fraction}-{scope}-seed3"
                for method in ("random", "sage") for fraction in ("0.05", "0.5") for scope in scopes]
    assert [line.split()[1] for line in listed[:-1]] == expected
    assert not (tmp_path / "out").exists()
    assert os.listdir(tmp_path) == ["study.yaml"]


STUDIES = sorted((project / "configs" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_every_study_expands_and_each_run_resolves(study, tmp_path):
    """--dry-run resolves the configuration of each run, so that a key that is gone or out of range is an error."""
    for base in ([], ["--base", project / "configs" / "studies" / "base" / "cifar10.yaml"]):
        listed = sweep(study, *base, "--out", tmp_path / "out", "--dry-run")
        assert listed.returncode == 0, listed.stderr
        *runs, last = listed.stdout.splitlines()
        assert len(runs) >= 12 and len(set(runs)) == len(runs)
        assert last.startswith(f"{len(runs)} runs, {len(runs)} to be made")
    assert len(STUDIES) >= 14


def test_the_base_may_be_replaced_and_its_own_mistakes_are_told(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("data.name: mnist\ntraining:\n  epoch: 3\n")
    fails(sweep(STUDIES[0], "--base", base, "--dry-run"), 2, "base.yaml:3", "training.epoch", "training.epochs")
    fails(sweep(STUDIES[0], "--base", tmp_path / "absent.yaml", "--dry-run"), 2, "absent.yaml", "no such")
