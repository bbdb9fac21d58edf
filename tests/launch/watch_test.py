"""`sage watch`: a run in the terminal, after its end and while it goes on."""

import json
import os
import pty
import re
import subprocess
import time

import pytest
from program import ENVIRONMENT, SAGE, SMALL, fails, sage, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watch") / "run"
    train(folder, ranks=1, epochs=4)
    return folder


def test_a_finished_run_shows_its_figures_and_curves(run):
    result = sage("watch", run)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((run / "metrics.json").read_text())
    text = result.stdout
    assert "[finished]" in text and "epoch 4/4" in text and "\x1b" not in text
    assert f"kept {metrics['selections'][-1]['kept']} of 1437" in text
    assert f"{metrics['summary']['host_peak_bytes'] / 2**20:.0f} MiB host" in text
    last = metrics["epochs"][-1]
    assert f"test {100 * last['test']['accuracy']:.1f}" in text
    rows = [line for line in text.splitlines() if re.search("[\u2801-\u28ff]", line)]
    assert len(rows) >= 6 and all(len(row) <= 80 for row in rows)


def dots(text):
    """Braille cells that are not empty, in all."""
    return len(re.findall("[\u2801-\u28ff]", text))


def test_a_run_is_followed_in_a_terminal_until_it_ends(tmp_path):
    folder = tmp_path / "run"
    trained = subprocess.Popen([SAGE, "train", *SMALL, "training.epochs=40", f"output_dir={folder}"], env=ENVIRONMENT,
                               stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (folder / "metrics.json").exists():
        assert time.monotonic() < end and trained.poll() is None
        time.sleep(0.02)
    master, slave = pty.openpty()
    watched = subprocess.Popen([SAGE, "watch", folder, "--interval", "0.2"], env=ENVIRONMENT, stdout=slave,
                               stderr=subprocess.STDOUT)
    os.close(slave)
    output = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        output += piece
    os.close(master)
    assert watched.wait(30) == 0 and trained.wait(30) == 0
    pages = output.decode().split("\x1b[H\x1b[2J")[1:]
    assert len(pages) >= 2 and "[running]" in pages[0] and "[finished]" in pages[-1]
    assert re.search(r"left|epoch \d+/40", pages[0]) and dots(pages[-1]) >= dots(pages[0])
    assert "\x1b[34m" in pages[-1]


def test_what_is_no_run_or_damaged_gets_one_message(run, tmp_path):
    fails(sage("watch", tmp_path), 4, "no run folder")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", run, copy], check=True)
    (copy / "metrics.json").unlink()
    assert "no epoch has ended yet" in sage("watch", copy).stdout
    (copy / "metrics.json").write_text('{"summary": ')
    fails(sage("watch", copy), 4, "metrics.json", "damaged")
    (copy / "metrics.json").write_text('{"summary": {}, "selections": [], "epochs": [{}]}')
    fails(sage("watch", copy), 4, "metrics.json", "not one of this version")
    fails(sage("watch"), 2, "run is required")
