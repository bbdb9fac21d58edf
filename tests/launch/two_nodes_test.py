"""mpirun over two nodes that share nothing but files: two network namespaces of this machine with a cable between them.

Each has its own host name and its own interface; the second is reached through a remote shell of the test's own, in the
place of ssh. Needs root, `ip`, and a kernel that lets us; where they are not, nothing here is registered and a warning
says so.
"""

import json
import os
import pathlib
import shutil
import subprocess
import warnings

import pytest
from program import ENVIRONMENT, SAGE, same_tensors

project = pathlib.Path(__file__).resolve().parents[2]


def want() -> list[str]:
    """What is missing here for these tests."""
    missing = [name for name in ("ip", "unshare", "mpirun") if shutil.which(name, path=PATH) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if missing:
        return missing
    cable = "ip link add sage0 type veth peer name sage1"
    probe = subprocess.run(["unshare", "--net", "--mount", "--uts", "sh", "-c", cable], capture_output=True, text=True,
                           env={**os.environ, "PATH": PATH}, check=False)
    return [] if probe.returncode == 0 else [f"namespaces ({probe.stderr.strip()})"]


PATH = os.environ["PATH"] + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"  # where Debian has ip
missing = want()
__test__ = not missing  # pytest takes no test from a module that says so
if missing:
    warnings.warn(f"the tests on two network namespaces are not registered here, for want of: {', '.join(missing)}",
                  stacklevel=1)

ADDRESSES = {"a": "10.213.7.1", "b": "10.213.7.2"}
SHORT = ["training.steps=12", "selection.proxy.steps=10", "output.tensorboard=false"]
CONFIG = project / "configs" / "digits_quickstart.yaml"


class TwoNodes:
    """Namespaces `a` and `b`; `sage0` is the interface of each on the cable between them."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.environment = {**ENVIRONMENT, "PATH": PATH, "SAGE": str(SAGE)}
        self.names = {node: f"sage-test-{os.getpid()}-{node}" for node in ADDRESSES}
        try:
            for name in self.names.values():
                self.ip("netns", "add", name)
            self.ip("link", "add", "sage0", "netns", self.names["a"], "type", "veth", "peer", "name", "sage0", "netns",
                    self.names["b"])
            for node, name in self.names.items():
                self.ip("-n", name, "address", "add", f"{ADDRESSES[node]}/30", "dev", "sage0")
                for interface in ("lo", "sage0"):
                    self.ip("-n", name, "link", "set", interface, "up")
        except BaseException:
            self.remove()
            raise
        # As mpirun calls ssh: the host, then a command for its shell.
        agent = folder / "remote_shell"
        agent.write_text("#!/bin/sh\n"
                         f'[ "$1" = {ADDRESSES["b"]} ] || {{ echo "no such host: $1" >&2; exit 255; }}\n'
                         "shift\n"
                         f"echo reached >>{folder}/reached\n"
                         f"exec {' '.join(self.inside('b'))} sh -c \"$*\"\n")
        agent.chmod(0o755)
        (folder / "hosts").write_text("".join(f"{address} slots=1\n" for address in ADDRESSES.values()))

    def ip(self, *arguments: str) -> None:
        result = subprocess.run(["ip", *arguments], env=self.environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"ip {' '.join(arguments)}: {result.stderr}"

    def inside(self, node: str) -> list[str]:
        """The beginning of a command on a node: its network, and a host name of its own."""
        return ["ip", "netns", "exec", self.names[node], "unshare", "--uts", "sh", "-c",
                f"'hostname sage-{node} && exec \"$@\"'", "sh"]

    def mpirun(self, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess:
        """launch/mpirun.sh on node a, for both."""
        start = " ".join([*self.inside("a"), str(project / "launch" / "mpirun.sh"), "--hostfile", "hosts",
                          "--interface", "sage0", "--threads", "1", *arguments])
        environment = {**self.environment, "OMPI_MCA_plm_rsh_agent": f"{self.folder}/remote_shell"}
        return subprocess.run(start, shell=True, cwd=self.folder, capture_output=True, text=True, timeout=seconds,
                              check=False, env=environment)

    def remove(self) -> None:
        """Both namespaces, and with them the cable."""
        for name in self.names.values():
            subprocess.run(["ip", "netns", "delete", name], env=self.environment, capture_output=True, check=False)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    made = TwoNodes(tmp_path_factory.mktemp("nodes"))
    yield made
    made.remove()


def last_checkpoint(run: pathlib.Path) -> pathlib.Path:
    (path,) = (run / "checkpoints").glob("checkpoint_epoch_*.safetensors")
    return path


def test_two_nodes_train_to_the_bits_of_two_ranks_on_one(nodes, tmp_path):
    result = nodes.mpirun("train", str(CONFIG), *SHORT, f"output_dir={tmp_path / 'two'}")
    assert result.returncode == 0, result.stderr
    assert (nodes.folder / "reached").read_text() == "reached\n"
    about = json.loads((tmp_path / "two" / "config.json").read_text())["run"]
    assert about["ranks"] == 2 and sorted(about["hosts"]) == ["sage-a", "sage-b"]

    here = [project / "launch" / "mpirun.sh", "--ranks", "2", "--threads", "1", "--oversubscribe"]
    one = subprocess.run([*here, "train", CONFIG, *SHORT, f"output_dir={tmp_path / 'one'}"], env=nodes.environment,
                         capture_output=True, text=True, timeout=120, check=False)
    assert one.returncode == 0, one.stderr
    assert len(set(json.loads((tmp_path / "one" / "config.json").read_text())["run"]["hosts"])) == 1
    chosen = [json.loads((tmp_path / which / "subset_indices" / "epoch_0_indices.json").read_text())["ids"]
              for which in ("one", "two")]
    assert chosen[0] == chosen[1]
    assert same_tensors(last_checkpoint(tmp_path / "one"), last_checkpoint(tmp_path / "two"))


def test_a_host_that_is_not_reached_ends_the_job_with_its_name(nodes):
    (nodes.folder / "hosts_wrong").write_text(f"{ADDRESSES['a']} slots=1\n10.213.7.9 slots=1\n")
    result = nodes.mpirun("--hostfile", "hosts_wrong", "config", "list")
    assert result.returncode != 0
    assert "no such host: 10.213.7.9" in result.stderr and "ORTE was unable to reliably start" in result.stderr
