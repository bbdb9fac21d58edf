"""What becomes of a real training job when something happens to one of its ranks: it ends soon, says where it stood, and
leaves no process behind. The faults come from outside, as they do in life."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

SECONDS_TO_THE_END = 10.0
DEADLINE = 2.0
# mpirun itself needs a moment after the last rank has gone.
SECONDS_OF_MPIRUN = 0.5


class TrainingJob:
    """`mpirun sage train` on the digits, long enough for any fault to meet it at work."""

    def __init__(self, build_folder: Path, environment: dict[str, str], folder: Path, ranks: int):
        self.run = folder / "run"
        self.output = folder / "output.txt"
        self.ranks = ranks
        with self.output.open("w") as output:
            self.mpirun = subprocess.Popen(
                ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks),
                 str(build_folder / "bin" / "sage"), "train", f"output_dir={self.run}", "data.name=digits",
                 "model.name=cnn", "selection.mode=none", "training.epochs=100000", "training.batch_size=64",
                 "output.tensorboard=false", "output.save_interval=100000", "training.evaluate_interval=10",
                 f"distributed.deadline_seconds={DEADLINE}"],
                env=environment, stdout=output, stderr=subprocess.STDOUT,
            )
        self.pids: list[int] = []

    def text(self) -> str:
        return self.output.read_text()

    def wait_until_it_trains(self) -> None:
        end = time.monotonic() + 60
        log = self.run / "training.log"
        while time.monotonic() < end and self.mpirun.poll() is None:
            if log.is_file() and re.search(r"epoch \d+/", log.read_text()):
                self.pids = self.children()
                assert len(self.pids) == self.ranks, self.pids
                return
            time.sleep(0.05)
        raise AssertionError(f"the job does not train:\n{self.text()}")

    def children(self) -> list[int]:
        """Process ids by rank: mpirun starts the ranks of one node in their order."""
        parent = self.mpirun.pid
        text = "".join(path.read_text() for path in Path(f"/proc/{parent}/task").glob("*/children"))
        return sorted(pid for pid in map(int, text.split()) if is_alive(pid) and rank_of(pid) is not None)

    def pid_of(self, rank: int) -> int:
        return next(pid for pid in self.pids if rank_of(pid) == rank)

    def seconds_to_the_end(self) -> float:
        start = time.monotonic()
        self.mpirun.wait(timeout=60)
        return time.monotonic() - start

    def left(self) -> list[int]:
        """Ranks that are still there, by their pids and by their command lines."""
        mark = f"output_dir={self.run}".encode()
        found = [pid for pid in self.pids if is_alive(pid)]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if mark in path.read_bytes():
                    found.append(int(path.parent.name))
            except OSError:
                pass  # it has just ended
        return found

    def close(self) -> None:
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)
        if self.mpirun.poll() is None:
            self.mpirun.kill()
        self.mpirun.wait()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def rank_of(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    found = re.search(rb"(?:^|\0)OMPI_COMM_WORLD_RANK=(\d+)", text)
    return int(found[1]) if found else None


@pytest.fixture(params=[2, 4], ids=lambda ranks: f"{ranks} ranks")
def job(request, build_folder, run_environment, tmp_path):
    job = TrainingJob(build_folder, run_environment, tmp_path, request.param)
    try:
        job.wait_until_it_trains()
        yield job
    finally:
        job.close()


def expect_end(job: TrainingJob, message: str, limit: float = SECONDS_TO_THE_END) -> None:
    seconds = job.seconds_to_the_end()
    text = job.text()
    print(f"{job.ranks} ranks: status {job.mpirun.returncode} after {seconds:.1f} s")
    assert job.mpirun.returncode != 0, text
    assert seconds <= limit, text
    assert re.search(message, text, re.M), f"{message}\n{text}"
    end = time.monotonic() + 1.0  # the memory of a killed process takes a moment to be given back
    while job.left() and time.monotonic() < end:
        time.sleep(0.05)
    assert not job.left(), text


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=["is killed", "crashes"])
def test_a_rank_that(job, number):
    rank = job.ranks - 1
    os.kill(job.pid_of(rank), number)
    if number == signal.SIGKILL:  # it cannot say anything: mpirun and the others do
        expect_end(job, rf"process rank {rank} with PID .* on signal 9")
        where = rf"^sage: \[rank [0-{rank - 1}]\] signal 15 \(SIGTERM\) arrived at (step \d+, \w+|evaluation)"
        assert re.search(where, job.text(), re.M), job.text()
    else:
        expect_end(job, rf"^sage: \[rank {rank}\] signal 11 \(SIGSEGV\) arrived at (step \d+, \w+|evaluation)")
    assert job.mpirun.returncode == 128 + number


def test_a_rank_that_hangs(job):
    rank = job.ranks - 1
    os.kill(job.pid_of(rank), signal.SIGSTOP)
    expect_end(job, rf"^sage: \[rank \d\] error: (step \d+, \w+|evaluation).* #\d+ \(.*\) was not completed by all "
                    rf"{job.ranks} ranks within {DEADLINE:g} s; .*rank {rank} does not answer",
               DEADLINE + 1 + SECONDS_OF_MPIRUN)
    assert job.mpirun.returncode == 7


def test_a_rank_that_throws(job):
    """Rank 0 alone writes the run folder: here it is no folder any more."""
    job.run.rename(job.run.with_name("moved"))
    job.run.write_text("not a folder")
    expect_end(job, r"^sage: \[rank 0\] error: .*/run/")
    assert job.mpirun.returncode == 5
