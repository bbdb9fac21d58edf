"""launch/mpirun.sh: the command it makes, a real start, and what it refuses."""

import os
import subprocess
from pathlib import Path

import pytest
from program import ENVIRONMENT, SAGE

project = Path(__file__).resolve().parents[2]


def start(*arguments, **more):
    environment = {**ENVIRONMENT, "SAGE": str(SAGE), **more}
    return subprocess.run([project / "launch" / "mpirun.sh", *map(str, arguments)], env=environment, capture_output=True,
                          text=True, timeout=120, check=False)


def command(*arguments, **more):
    result = start("--dry-run", *arguments, **more)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def hostfile(tmp_path, text):
    path = tmp_path / "hosts"
    path.write_text(text)
    return path


def test_one_rank_per_gpu_over_the_hosts_of_a_file(tmp_path):
    hosts = hostfile(tmp_path, "# two nodes\nnode1 slots=4\nnode2 slots=4 max_slots=4\n")
    words = command("--hostfile", hosts, "--gpus", 4, "--threads", 8, "--interface", "eth0", "train", "c.yaml")
    assert words[:5] == ["mpirun", "-np", "8", "--bind-to", "none"]
    assert words[5:9] == ["--hostfile", str(hosts), "--map-by", "ppr:4:node"]
    for pair in (("-x", "OMP_NUM_THREADS=8"), ("btl_tcp_if_include", "eth0"), ("-x", "NCCL_SOCKET_IFNAME=eth0")):
        assert pair in list(zip(words, words[1:], strict=False))
    assert words[-3:] == [str(SAGE), "train", "c.yaml"]
    assert "SAGE_DATA_DIR" in command("train", SAGE_DATA_DIR="/data")


def test_it_starts_the_ranks(tmp_path):
    config = project / "configs" / "digits_quickstart.yaml"
    result = start("--ranks", 2, "--threads", 1, "--oversubscribe", "train", config, "training.steps=10",
                   "selection.mode=none", "selection.scorer=current", f"output_dir={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    assert "ranks" in (tmp_path / "run" / "training.log").read_text()
    assert "2 on " in (tmp_path / "run" / "training.log").read_text()
    # With a hostfile of this machine.
    hosts = hostfile(tmp_path, "localhost slots=2\n")
    assert start("--hostfile", hosts, "config", "list").returncode == 0


@pytest.mark.parametrize(("arguments", "words"), [
    (["--ranks", "x", "train"], "whole number"),
    (["--ranks"], "wants a value"),
    (["--rank", "2", "train"], "unknown option --rank"),
    ([], "a command of sage is missing"),
    (["--hostfile", "/absent", "train"], "/absent: no such hostfile"),
    (["--gpus", "2", "--ranks", "3", "train"], "more than 1 x 2 GPUs"),
    (["--ranks", str(4 * (os.cpu_count() or 1)), "train"], "cores here"),
])
def test_a_wrong_call_gets_one_message(arguments, words):
    result = start(*arguments)
    assert result.returncode == 2 and words in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1


def test_wrong_hostfiles_and_programs_get_one_message(tmp_path):
    for text, word in (("node1\n", "has no slots=N"), ("\n#x\n", "names no host"),
                       ("node1 slots=2\n", "one rank per GPU")):
        result = start("--hostfile", hostfile(tmp_path, text), "--gpus", 4, "train")
        assert result.returncode == 2 and word in result.stderr, result.stderr
    result = start("--hostfile", hostfile(tmp_path, "node1 slots=2\n"), "--ranks", 3, "train")
    assert result.returncode == 2 and "more than the 2 slots" in result.stderr
    result = start("train", SAGE=str(tmp_path / "absent"))
    assert result.returncode == 2 and "build first, or set SAGE" in result.stderr
