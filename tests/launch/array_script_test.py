"""launch/slurm/array.sbatch without Slurm: what a task starts through a `srun` and a `scontrol` of our own."""

import os
import pathlib
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "launch" / "slurm" / "array.sbatch"

# What an attempt does stands in the next line of `plan`: "STATUS" alone fails before the run's folder is opened,
# "STATUS opens" has opened it, "STATUS saves" has written a checkpoint as well.
SRUN = """#!/usr/bin/env bash
while [ "$1" != train ]; do shift; done
echo "$*" >>calls
read -r status deed <<<"$(sed -n "$(wc -l <calls)p" plan)"
sleep 0.1  # files of the attempt are newer than those before
if [ -n "$deed" ]; then
  mkdir -p out/one/checkpoints
  touch out/one/README.txt out/one/config.json
fi
if [ "$deed" = saves ]; then touch out/one/checkpoints/checkpoint_epoch_1.safetensors; fi
exit "$status"
"""


class Task:
    """The only run of a sweep in `folder`."""

    def __init__(self, folder: pathlib.Path, begin: str):
        self.folder = folder
        (folder / "out" / "slurm").mkdir(parents=True)
        (folder / "out" / "slurm" / "runs.txt").write_text(f"one {begin}\n")
        (folder / "bin").mkdir()
        for name, text in (("srun", SRUN), ("scontrol", "#!/bin/sh\necho \"$*\" >>requeued\n")):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)

    def add_old_run(self) -> None:
        run = self.folder / "out" / "one"
        (run / "checkpoints").mkdir(parents=True)
        for name in ("README.txt", "config.json", "checkpoints/checkpoint_epoch_9.safetensors"):
            path = run / name
            path.touch()
            os.utime(path, (1e9, 1e9))

    def start(self, *attempts: str, job: int = 7, restarts: int = 0) -> tuple[int, list[str]]:
        """Status of the script, and what it has started: "new", "overwrite" or "resume"."""
        (self.folder / "plan").write_text("".join(f"{attempt}\n" for attempt in attempts))
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        environment = {
            **os.environ, "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "SAGE": "sage",
            "SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": str(job), "SLURM_RESTART_COUNT": str(restarts),
        }
        result = subprocess.run(["bash", str(SCRIPT), "out"], cwd=self.folder, env=environment, capture_output=True,
                                text=True, timeout=60, check=False)
        kinds = {"train out/configs/one.yaml": "new", "train out/configs/one.yaml --overwrite": "overwrite",
                 "train --resume out/one": "resume"}
        return result.returncode, [kinds[call] for call in calls.read_text().splitlines()]


def test_an_old_run_is_replaced_until_an_attempt_has_opened_its_folder(tmp_path):
    task = Task(tmp_path, "overwrite")
    task.add_old_run()
    assert task.start("1", "1") == (1, ["overwrite", "overwrite"])
    # Back in the queue after a node was lost, before anything had begun; then stopped by a signal, and back again.
    assert task.start("8 saves", restarts=1) == (8, ["overwrite"])
    assert (tmp_path / "requeued").read_text() == "requeue 7_0\n"
    assert task.start("0 saves", restarts=2) == (0, ["resume"])


def test_an_attempt_that_has_begun_is_gone_on_with(tmp_path):
    task = Task(tmp_path, "overwrite")
    task.add_old_run()
    assert task.start("5 saves", "0 saves") == (0, ["overwrite", "resume"])
    # Another submission of the same list replaces it again.
    assert task.start("0 saves", job=8) == (0, ["overwrite"])


@pytest.mark.parametrize(("attempts", "kinds"), [
    (["0 saves"], ["new"]), (["1", "0 saves"], ["new", "new"]), (["1 opens", "0 saves"], ["new", "overwrite"]),
    (["1 saves", "1 saves"], ["new", "resume"]), (["2"], ["new"]),
])
def test_a_new_run(tmp_path, attempts, kinds):
    assert Task(tmp_path, "new").start(*attempts) == (int(attempts[-1].split()[0]), kinds)


def test_a_run_that_was_stopped_is_gone_on_with(tmp_path):
    task = Task(tmp_path, "resume")
    task.add_old_run()
    assert task.start("0 saves") == (0, ["resume"])
