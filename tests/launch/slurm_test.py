"""The program under a real Slurm: its daemons run on this machine, for these tests only, in a folder of their own.

Needs Slurm's and munge's daemons and root. Where they are not, nothing here is registered and a warning says so. The
second node is a second slurmd with a host name and a mount table of its own, for which the kernel has to let us.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
import warnings

import pytest

project = pathlib.Path(__file__).resolve().parents[2]

os.environ["PATH"] += os.pathsep + "/usr/sbin"  # where Debian has the daemons
missing = [name for name in ("slurmctld", "slurmd", "srun", "sbatch", "munged") if shutil.which(name) is None]
if os.geteuid() != 0:
    missing.append("root")
__test__ = not missing  # pytest takes no test from a module that says so
if missing:
    warnings.warn(f"the tests under Slurm are not registered here, for want of: {', '.join(missing)}", stacklevel=1)

two_nodes = not missing and subprocess.run(["unshare", "--mount", "--uts", "true"], check=False).returncode == 0
if not missing and not two_nodes:
    warnings.warn("the test on two Slurm nodes is not registered here: unshare is not allowed", stacklevel=1)
NODES = [1, 2] if two_nodes else [1]

CONFIG = project / "configs" / "digits_quickstart.yaml"
SHORT = ["training.steps=40", "selection.proxy.steps=20"]


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until(condition, seconds: float, what: str):
    """Returns what `condition` returns as soon as that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s")


class Cluster:
    """A Slurm of up to two nodes, `a` and `b`, with two CPUs each, on this machine."""

    def __init__(self, folder: pathlib.Path, environment: dict[str, str]):
        self.folder = folder
        inherited = {name: text for name, text in environment.items() if not name.startswith(("SLURM_", "PMIX_"))}
        self.environment = {**inherited, "SLURM_CONF": str(folder / "slurm.conf")}
        self.daemons: list[subprocess.Popen] = []

    def run(self, *command, seconds: float = 60, **more) -> subprocess.CompletedProcess:
        return subprocess.run([str(word) for word in command], env={**self.environment, **more}, cwd=self.folder,
                              capture_output=True, text=True, timeout=seconds, check=False)

    def batch(self, *arguments, seconds: float = 60, **more) -> str:
        """Submits a batch job, waits for its end and returns what Slurm says of it (sbatch --wait looks every 10 s)."""
        submitted = self.run("sbatch", "--parsable", *arguments, **more)
        assert submitted.returncode == 0, submitted.stderr
        job = submitted.stdout.strip()

        def ended() -> str:
            text = self.run("scontrol", "--oneliner", "show", "job", job).stdout
            return "" if re.search(r"JobState=(PENDING|CONFIGURING|RUNNING|COMPLETING) ", text) else text

        return wait_until(ended, seconds, f"end of job {job}")

    def daemon(self, *command) -> None:
        with open(self.folder / "daemons.log", "ab") as log:
            self.daemons.append(subprocess.Popen([str(word) for word in command], env=self.environment,
                                                 cwd=self.folder, stdout=log, stderr=log))

    def write_configuration(self) -> None:
        host = socket.gethostname().split(".")[0]
        controller, *nodes = free_ports(1 + len(NODES))
        lines = [
            "ClusterName=sage", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmctldPort={controller}",
            "AuthType=auth/munge", "CredType=cred/munge", f"AuthInfo=socket={self.folder}/munge/socket",
            "SlurmUser=root", "SlurmdUser=root", "ReturnToService=2", "SlurmdParameters=config_overrides",
            "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "MpiDefault=pmix",
            "SelectType=select/cons_tres", "SelectTypeParameters=CR_Core",
            "JobAcctGatherType=jobacct_gather/none", "AccountingStorageType=accounting_storage/none",
            f"StateSaveLocation={self.folder}/state", f"SlurmdSpoolDir={self.folder}/spool_%n",
            f"SlurmctldPidFile={self.folder}/slurmctld.pid", f"SlurmdPidFile={self.folder}/slurmd_%n.pid",
        ]
        lines += [f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 State=UNKNOWN"
                  for name, port in zip("ab", nodes, strict=False)]
        lines += ["PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP"]
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "mpi.conf").write_text(f"PMIxCliTmpDirBase={self.folder}/pmix\n")

    def start(self) -> None:
        self.folder.chmod(0o755)  # munged wants its socket to be reachable
        for name in ("munge", "state", "pmix", "pmix_a", "pmix_b"):
            (self.folder / name).mkdir(mode=0o755)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        self.write_configuration()

        self.daemon("munged", "--foreground", f"--socket={self.folder}/munge/socket", f"--key-file={key}",
                    f"--pid-file={self.folder}/munge/pid", f"--log-file={self.folder}/munged.log",
                    f"--seed-file={self.folder}/munge.seed")
        wait_until((self.folder / "munge" / "socket").exists, 10, "munged")
        self.daemon("slurmctld", "-D")
        for name, _ in zip("ab", NODES, strict=False):
            if two_nodes:
                # Both nodes would make the same folders for PMIx; each gets its own in that place.
                self.daemon("unshare", "--mount", "--uts", "bash", "-c",
                            f"mount --bind pmix_{name} pmix && hostname {name} && exec slurmd -D -N {name}")
            else:
                self.daemon("slurmd", "-D", "-N", name)
        idle = ["idle"] * len(NODES)
        wait_until(lambda: self.run("sinfo", "--noheader", "--Node", "--format=%T").stdout.split() == idle, 30,
                   f"nodes idle (see {self.folder}/daemons.log)")

    def end(self) -> None:
        try:
            if len(self.daemons) > 1:
                self.run("scancel", "--user=root")
                wait_until(lambda: self.run("squeue", "--noheader").stdout.strip() == "", 20, "no jobs left")
        finally:
            for daemon in reversed(self.daemons):
                daemon.terminate()
            for daemon in reversed(self.daemons):
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()


@pytest.fixture(scope="module")
def cluster(run_environment):
    # Not pytest's folder: a socket's path has to be short, and munged looks at the rights of all folders above it.
    with tempfile.TemporaryDirectory(prefix="sage-slurm-", dir="/tmp") as folder:
        cluster = Cluster(pathlib.Path(folder), run_environment)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.end()


@pytest.fixture(scope="module")
def expected(cluster, build_folder, tmp_path_factory):
    """The last checkpoint's tensors of two ranks under mpirun."""
    folder = tmp_path_factory.mktemp("mpirun") / "run"
    result = cluster.run("mpirun", "--oversubscribe", "--bind-to", "none", "-np", 2, build_folder / "bin" / "sage",
                         "train", CONFIG, *SHORT, f"output_dir={folder}")
    assert result.returncode == 0, result.stderr
    return last_tensors(folder)


def epoch_of(checkpoint: pathlib.Path) -> int:
    return int(re.search(r"(\d+)\.safetensors$", checkpoint.name)[1])


def last_tensors(folder: pathlib.Path):
    from safetensors.numpy import load_file

    files = list((folder / "checkpoints").glob("checkpoint_epoch_*.safetensors"))
    assert files, f"no checkpoint in {folder}"
    return load_file(max(files, key=epoch_of))


def assert_two_ranks_as_expected(folder: pathlib.Path, expected) -> None:
    assert re.search(r"\branks +2 on ", (folder / "training.log").read_text())
    found = last_tensors(folder)
    assert found.keys() == expected.keys() and len(found) > 10
    assert not [name for name in found if found[name].tobytes() != expected[name].tobytes()]


@pytest.mark.parametrize("nodes", NODES)
def test_srun_gives_the_bits_of_mpirun(cluster, build_folder, expected, tmp_path, nodes):
    result = cluster.run("srun", "--mpi=pmix", f"--nodes={nodes}", "--ntasks=2", build_folder / "bin" / "sage",
                         "train", CONFIG, *SHORT, f"output_dir={tmp_path / 'run'}")
    assert result.returncode == 0, result.stderr
    assert_two_ranks_as_expected(tmp_path / "run", expected)


@pytest.mark.parametrize("nodes", NODES)
def test_the_batch_script_trains_and_goes_on(cluster, build_folder, expected, tmp_path, nodes):
    run, log = tmp_path / "run", tmp_path / "job.log"
    arguments = [f"--nodes={nodes}", f"--ntasks-per-node={2 // nodes}", f"--output={log}",
                 project / "launch" / "slurm" / "train.sbatch", CONFIG, *SHORT, "output.save_interval=1"]
    variables = {"SAGE": str(build_folder / "bin" / "sage"), "SAGE_RUN": str(run)}
    assert "JobState=COMPLETED " in cluster.batch(*arguments, **variables), log.read_text()
    assert_two_ranks_as_expected(run, expected)

    # A job that was put back into the queue finds the run that it had begun: here, one without its last two epochs.
    *_, earlier, last_but_one, last = sorted((run / "checkpoints").glob("checkpoint_epoch_*.safetensors"), key=epoch_of)
    last.unlink()
    last_but_one.unlink()
    assert "JobState=COMPLETED " in cluster.batch(*arguments, **variables), log.read_text()
    assert f"resuming from {earlier} after epoch {epoch_of(earlier)}" in log.read_text()
    assert last.exists()
    assert_two_ranks_as_expected(run, expected)


def test_a_bad_key_gets_one_message_and_the_status_of_the_program(cluster, build_folder, tmp_path):
    result = cluster.run("srun", "--mpi=pmix", "--ntasks=2", build_folder / "bin" / "sage", "train", CONFIG,
                         "traning.lr=1", f"output_dir={tmp_path / 'run'}")
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("unknown key `traning.lr`") == 1, result.stderr
    assert not (tmp_path / "run" / "metrics.json").exists()


def tasks_with(mark: str) -> dict[int, int]:
    """Task number to process id of the program's processes that have `mark` in their environment."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            if (entry / "comm").read_text() == "sage\n" and f"SAGE_MARK={mark}".encode() in variables:
                task = next(v for v in variables if v.startswith(b"SLURM_PROCID="))
                found[int(task.split(b"=")[1])] = int(entry.name)
        except (OSError, StopIteration):
            continue  # not a process, or one that has ended meanwhile
    return found


def test_one_killed_task_ends_the_job_step_within_seconds(cluster, build_folder, tmp_path):
    mark = uuid.uuid4().hex
    log = tmp_path / "run" / "training.log"
    step = subprocess.Popen(
        ["srun", "--mpi=pmix", "--ntasks=2", build_folder / "bin" / "sage", "train", CONFIG, "selection.mode=none",
         "training.steps=1000000", f"output_dir={tmp_path / 'run'}"],
        env={**cluster.environment, "SAGE_MARK": mark}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )
    try:
        wait_until(lambda: log.exists() and "epoch 2/" in log.read_text(), 30, "training under way")
        tasks = tasks_with(mark)
        assert sorted(tasks) == [0, 1]
        os.kill(tasks[1], 9)
        _, errors = step.communicate(timeout=15)
    finally:
        step.kill()
    assert step.returncode == 128 + 9
    assert "task 1: Killed" in errors, errors
    wait_until(lambda: not tasks_with(mark), 5, "no task left")


STUDY = f"""
name: array
base: {CONFIG}
set: {{training.steps: 40, selection.proxy.steps: 20}}
seeds: [1, 2]
groups:
  methods:
    variants:
      random: {{selection.method: random, selection.scorer: current}}
      bad: {{training.lr: 1e30, selection.mode: none, selection.scorer: current, training.steps: 10}}
"""


def test_a_sweep_is_submitted_as_an_array_and_gathered(cluster, build_folder, tmp_path):
    sage, out = build_folder / "bin" / "sage", tmp_path / "out"
    (tmp_path / "study.yaml").write_text(STUDY)
    sweep = [sage, "sweep", tmp_path / "study.yaml", "--out", out, "--ranks", 2]
    planned = cluster.run(*sweep, "--slurm", "--dry-run", "--sbatch=--time=5")
    assert "--array=0-3 --ntasks=2" in planned.stdout and "--time=5" in planned.stdout and not out.exists()
    submitted = cluster.run(*sweep, "--slurm", "--jobs", 2, "--sbatch=--time=5", "--sbatch=--nodes=1")
    assert submitted.returncode == 0, submitted.stderr
    assert "submitted as job" in submitted.stdout
    job = (out / "slurm" / "job.txt").read_text().strip()
    again = cluster.run(*sweep, "--slurm", "--resume")
    assert again.returncode == 2 and (f"job {job} of this sweep is in the queue" in again.stderr
                                      or "in use by another run" in again.stderr), again.stderr
    wait_until(lambda: cluster.run("squeue", "--noheader", "--jobs", job).stdout.strip() == "", 240, f"end of job {job}")
    gathered = cluster.run(*sweep, "--collect")
    assert gathered.returncode == 0 and "2 of 2" in gathered.stdout, gathered.stdout
    assert "methods-bad-seed1 (incomplete)" in gathered.stdout
    log = (out / "logs" / f"slurm-{job}_2.log").read_text()
    assert "ended with status 6 and is tried once more" in log
    # Finished runs are not submitted again.
    planned = cluster.run(*sweep, "--slurm", "--dry-run")
    assert "--array=0-1 " in planned.stdout


def test_a_sweep_that_sbatch_refuses_says_so(cluster, build_folder, tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    result = cluster.run(build_folder / "bin" / "sage", "sweep", tmp_path / "study.yaml", "--out", tmp_path / "out", "--slurm",
                         "--sbatch=--partition=absent")
    assert result.returncode == 5 and "sbatch refuses the job" in result.stderr, result.stderr
    assert result.stderr.count("error: ") >= 1 and "partition" in result.stderr


def test_an_array_task_that_is_stopped_goes_back_into_the_queue_and_finishes(cluster, build_folder, tmp_path):
    """SIGUSR1, as two minutes before the time limit or at a preemption: save, requeue, resume, finish."""
    sage, out = build_folder / "bin" / "sage", tmp_path / "out"
    (tmp_path / "study.yaml").write_text(STUDY.split("      bad:")[0].replace("seeds: [1, 2]", "seeds: [1]").replace(
        "training.steps: 40", "training.steps: 1500"))
    sweep = [sage, "sweep", tmp_path / "study.yaml", "--out", out, "--ranks", 2]
    submitted = cluster.run(*sweep, "--slurm", "--sbatch=--nodes=1")
    assert submitted.returncode == 0, submitted.stderr
    job = (out / "slurm" / "job.txt").read_text().strip()
    log = out / "methods-random-seed1" / "training.log"
    wait_until(lambda: log.exists() and "epoch 2/" in log.read_text(), 120, "training under way")
    cluster.run("scancel", "--signal=USR1", job)
    wait_until(lambda: "stopped by SIGUSR1" in log.read_text(), 90, "the run saves")
    # Slurm lets a requeued job wait for two minutes, so that nothing of its last step is left on the node. It is released
    # somewhat sooner; a step that the node refuses all the same is tried again by the script, after srun's 32 s.
    wait_until(lambda: "PENDING" in cluster.run("squeue", "--job", job, "--noheader", "--format=%T").stdout, 180, "requeued")
    time.sleep(10)
    cluster.run("scontrol", "update", f"JobId={job}_0", "StartTime=now")
    wait_until(lambda: "resuming from" in log.read_text(), 180, "the run goes on")
    wait_until(lambda: cluster.run("squeue", "--noheader", "--jobs", job).stdout.strip() == "", 240, f"end of job {job}")
    assert "1 of 1" in cluster.run(*sweep, "--collect").stdout
    text = (out / "logs" / f"slurm-{job}_0.log").read_text()
    assert "was stopped by a signal; back into the queue" in text
