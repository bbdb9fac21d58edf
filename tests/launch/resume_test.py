"""Runs that are stopped by signals, killed, or out of disk, and go on: the real program on the real digits."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
from program import ENVIRONMENT, SAGE, SMALL, fails, same_tensors, sage, tensors, train

# Some steps longer than a blink, so that a signal finds the run in the middle.
LONGER = ["training.epochs=4", "training.batch_size=16", "selection.fraction=0.5", "selection.scorer=proxy",
          "selection.proxy.steps=60", "selection.proxy.model=mlp"]
LAST = "checkpoints/checkpoint_epoch_4.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that never stopped, on two ranks."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, *LONGER)
    return folder


@contextmanager
def started(folder, *arguments, ranks=2):
    """The program under mpirun (one rank: alone), going on."""
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks)] if ranks > 1 else []
    process = subprocess.Popen([*launcher, str(SAGE), "train", *arguments, f"output_dir={folder}"],
                               env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


def wait_for(process, folder, text, seconds=60):
    """Until the run's log holds `text`. False if the run ended before."""
    log = Path(folder) / "training.log"
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if log.exists() and text in log.read_text():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.01)
    raise AssertionError(f"{text}: not in the log within {seconds} s")


def figures(folder):
    """metrics.json but for what is measured."""
    def without_measures(value):
        if isinstance(value, list):
            return [without_measures(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {key: without_measures(item) for key, item in value.items()
                if "seconds" not in key and "peak_bytes" not in key and key not in ("phases", "versions")}

    return without_measures(json.loads((folder / "metrics.json").read_text()))


def same_run(first, second):
    assert same_tensors(first / LAST, second / LAST)
    assert figures(first) == figures(second)
    for path in (first / "subset_indices").glob("*.csv"):
        assert path.read_bytes() == (second / "subset_indices" / path.name).read_bytes()


def test_signals_stop_a_run_in_order_and_it_goes_on_to_the_same_end(whole, tmp_path):
    folder = tmp_path / "run"
    arguments = [*SMALL, *LONGER]
    # To mpirun, which hands SIGUSR1 on to all ranks: in the first epoch, in a later one, behind the second selection.
    for text in ("network ", "epoch 2/4", "selection 2"):
        with started(folder, *arguments) as process:
            assert wait_for(process, folder, text)
            process.send_signal(signal.SIGUSR1)
            message = process.communicate(timeout=60)[1]
        assert process.returncode == 8, message
        assert message.count("stopped by SIGUSR1") == 1 and f"sage train --resume {folder}" in message
        assert "error: " not in message
        assert not (folder / "run.lock").exists()
        arguments = ["--resume", str(folder)]
    result = sage("train", "--resume", folder, ranks=2)
    assert result.returncode == 0, result.stderr
    same_run(whole, folder)
    names = [path.name for path in (folder / "checkpoints").iterdir()]
    assert not [name for name in names if name.endswith((".tmp", ".abandoned"))]
    assert len(names) == 1 + 4, "as many as output.keep_checkpoints says, and the best model"


def test_sigterm_of_one_process(tmp_path):
    folder = tmp_path / "run"
    with started(folder, *SMALL, *LONGER, ranks=1) as process:
        assert wait_for(process, folder, "epoch 1/4")
        process.terminate()
        message = process.communicate(timeout=60)[1]
    assert process.returncode == 8, message
    assert "stopped by SIGTERM" in message


def test_killed_at_any_moment_a_run_goes_on_from_what_is_whole(tmp_path):
    """SIGKILL, again and again, each time somewhere else; checkpoints every few steps."""
    settings = [*SMALL, *LONGER, "output.save_steps=7"]
    train(tmp_path / "whole", *LONGER, ranks=1)
    folder = tmp_path / "run"
    arguments, kills = settings, 0
    moments = random.Random(7)
    for _ in range(4):
        with started(folder, *arguments, ranks=1) as process:
            if not wait_for(process, folder, "saved "):
                break
            time.sleep(moments.uniform(0, 0.8))
            process.kill()
            process.wait()
            kills += process.returncode == -signal.SIGKILL
        arguments = ["--resume", str(folder)]
    assert kills >= 2
    result = sage("train", "--resume", folder)
    assert result.returncode == 0, result.stderr
    same_run(tmp_path / "whole", folder)


def test_on_other_numbers_of_ranks_a_run_sees_the_same_examples(whole, tmp_path):
    """From the middle of an epoch on two ranks it goes on alone and on three. With another order the losses of the epoch
    that was interrupted, and the weights at the end, would be others by far."""
    train(tmp_path / "run", *LONGER, "output.save_steps=25", "output.keep_checkpoints=100")
    same_run(whole, tmp_path / "run")
    (within,) = (tmp_path / "run" / "checkpoints").glob("checkpoint_epoch_2_step_*.safetensors")
    for ranks in (1, 3):
        other = tmp_path / f"ranks_{ranks}"
        shutil.copytree(tmp_path / "run", other)
        result = sage("train", "--resume", other / "checkpoints" / within.name, ranks=ranks)
        assert result.returncode == 0, result.stderr
        a, b = figures(whole)["epochs"], figures(other)["epochs"]
        for one, two in zip(a, b, strict=True):
            assert (one["steps"], one["examples_seen"]) == (two["steps"], two["examples_seen"])
            assert two["train"]["loss"] == pytest.approx(one["train"]["loss"], rel=2e-2)
        first, second = tensors(whole / LAST), tensors(other / LAST)
        for name, value in first.items():
            if value.dtype == "float32" and "/" not in name:
                assert abs(second[name] - value).max() < 0.05 * abs(value).max() + 1e-3, name


def test_two_runs_in_one_folder_are_refused(tmp_path):
    folder = tmp_path / "run"
    with started(folder, *SMALL, "training.epochs=10000", ranks=1) as process:
        assert wait_for(process, folder, "saved ")
        for extra in (["--overwrite"], ["--resume", str(folder)], []):
            result = sage("train", *SMALL, f"output_dir={folder}", *extra)
            fails(result, 2, str(folder), f"process {process.pid} on")
        assert process.poll() is None


# ------------------------------------------------------------------------------------- disks that are full or forbidden

mountable = os.geteuid() == 0 and subprocess.run(
    ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"], check=False, capture_output=True
).returncode == 0
if not mountable:
    warnings.warn("tests on full and read-only disks are not registered here: mount is not allowed", stacklevel=1)
else:

    @contextmanager
    def mounted(folder, *options):
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", *options, str(folder)], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)

    def test_a_full_disk_ends_the_run_with_a_word_and_loses_nothing(tmp_path):
        with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=5m", "tmpfs") as disk:
            folder = disk / "run"
            result = sage("train", *SMALL, "training.epochs=30", "output.keep_checkpoints=100",
                          f"output_dir={folder}", ranks=2)
            fails(result, 5, str(folder), "No space left on device", "check free space")
            whole = sorted((folder / "checkpoints").glob("checkpoint_epoch_*.safetensors"))
            assert len(whole) >= 2
            for path in whole:
                assert tensors(path)
            epochs = json.loads((folder / "metrics.json").read_text())["epochs"]
            assert [epoch["epoch"] for epoch in epochs] == list(range(1, len(epochs) + 1)) and len(epochs) >= len(whole)
            assert json.loads((folder / "subset_indices" / "epoch_1_indices.json").read_text())["ids"]
            assert "epoch 1/30" in (folder / "training.log").read_text()
            assert not list(folder.rglob("*.tmp"))
            # With room again it goes on.
            subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
            result = sage("train", "--resume", folder, f"training.epochs={len(epochs) + 1}", ranks=2)
            assert result.returncode == 0, result.stderr

    def test_a_read_only_folder_is_named_and_left_as_it_is(tmp_path):
        train(tmp_path / "run", epochs=1, ranks=1)
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        with mounted(tmp_path / "view", "--bind", str(tmp_path / "run")) as view:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(view)], check=True)
            fails(sage("train", "--resume", view, "training.epochs=2", ranks=2), 5, str(view), "Read-only file system")
            fails(sage("train", *SMALL, f"output_dir={view / 'new'}"), 5, str(view), "Read-only file system")
        assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
