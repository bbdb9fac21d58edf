"""benchmarks/table.py: lines of programs and peers become one honest table."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

project = pathlib.Path(__file__).resolve().parents[2]
specification = importlib.util.spec_from_file_location("table", project / "benchmarks" / "table.py")
table = importlib.util.module_from_spec(specification)
sys.modules["table"] = table
specification.loader.exec_module(table)


def test_program_and_peer_join_by_row_and_medians_are_of_rounds():
    rounds = {n: [{"row": "a", "what": "it", "ours_seconds": ours, "target": "<= 1.5", "note": "n"},
                  {"row": "a", "peer": "them", "peer_seconds": peer, "what": "not this", "note": "m"}]
              for n, (ours, peer) in enumerate([(1.0, 1.0), (8.0, 4.0), (3.0, 2.0)])}
    [row] = table.join(rounds)
    assert (row.what, row.peer, row.ours_value, row.peer_value) == ("it", "them", 3.0, 2.0)
    assert row.ratio == 1.5 and row.met is True  # the median of 1, 2 and 1.5
    assert row.notes == ["n", "m", "1.00 to 2.00 over 3 rounds"]


@pytest.mark.parametrize(("target", "ours", "peer", "ratio", "met"), [
    ("<= 1.5", 3.2, 2.0, 1.6, False), ("<= 1.5", 3.0, 2.0, 1.5, True), (">= 20x", 1.0, 19.0, 19.0, False),
    (">= 20", 0.5, 19.0, 38.0, True), ("", 1.0, 2.0, 0.5, None)])
def test_targets(target, ours, peer, ratio, met):
    [row] = table.join({1: [{"row": "a", "target": target, "ours_seconds": ours, "peer_seconds": peer}]})
    assert row.ratio == pytest.approx(ratio) and row.met is met


def test_without_a_target_a_row_says_which_way_is_better():
    [row] = table.join({1: [{"row": "a", "direction": ">=", "ours_seconds": 1.0, "peer_seconds": 3.0}]})
    assert row.ratio == 3.0 and row.met is None


def test_a_target_that_cannot_be_read_is_an_error():
    with pytest.raises(ValueError, match="about 2"):
        table.join({1: [{"row": "a", "target": "about 2", "ours_seconds": 1, "peer_seconds": 1}]})


def test_bytes_and_a_ratio_of_the_program_itself():
    [row] = table.join({1: [{"row": "memory", "ours_bytes": 3 * 2**20, "peer_bytes": 2**30, "ratio": 1.01}]})
    assert row.ratio == 1.01
    assert table.readable(row.ours_value, row.unit) == "3 MiB" and table.readable(row.peer_value, row.unit) == "1 GiB"


def test_what_could_not_be_run_is_listed_with_the_reason():
    rows = table.join({1: [{"row": "a", "ours_seconds": 1.0, "peer_seconds": 1.0, "target": "<= 2"},
                           {"row": "b", "ours_seconds": 1.0, "target": "<= 2"},
                           {"row": "c", "not_run": "no data"}, {"row": "d", "peer_seconds": 1.0}]})
    text = table.table(rows)
    assert "| a |" in text and "| b |" not in text and "| c |" not in text
    assert "- b: only one side of the comparison was measured" in text
    assert "- c: no data" in text
    assert "- d: only one side" in text


def test_a_failed_program_is_a_line_with_the_last_word_of_its_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("first\nno such file\n\n")
    assert table.failed("x", 3, log) == {"row": "x", "not_run": "exit status 3: no such file"}
    assert table.failed("x", 124, tmp_path / "none") == {"row": "x", "not_run": "it ran out of time"}


@pytest.mark.parametrize("text", ["hello\n", "[1]\n", '{"what": 1}\n'])
def test_stray_output_is_named(tmp_path, text):
    path = tmp_path / "a.round1.jsonl"
    path.write_text('{"row": "a"}\n' + text)
    with pytest.raises(ValueError, match=r"a\.round1\.jsonl:2"):
        table.read_lines(path)


def test_the_whole_report(tmp_path):
    (tmp_path / "machine.json").write_text(json.dumps({"machine": "M"}))
    for number in (1, 2):
        (tmp_path / f"one.round{number}.jsonl").write_text('{"row": "a|b", "ours_seconds": 0.001, "target": "<= 1.0"}\n')
        (tmp_path / f"one.peer.round{number}.jsonl").write_text('{"row": "a|b", "peer_seconds": 0.002}\n')
    (tmp_path / "one_more.round1.jsonl").write_text('{"row": "other", "ours_seconds": 1}\n')
    command = [sys.executable, project / "benchmarks" / "table.py", "table", tmp_path, "one"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.startswith("machine: M\n")
    assert "| a\\|b |  | 1 ms | - | 2 ms | 0.50 | <= 1.0 | yes | 0.50 to 0.50 over 2 rounds |" in text
    assert "other" not in text


def test_run_refuses_an_unknown_benchmark():
    # In the folder of an unbuilt project it ends before that, with one clear message as well.
    result = subprocess.run([project / "benchmarks" / "run.sh", "no_such"], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "run.sh FAILED while" in result.stderr


def test_every_peer_has_its_program():
    peers = [path.name.removesuffix("_peer.py") for path in (project / "benchmarks").glob("*_peer.py")]
    assert not [name for name in peers if not (project / "benchmarks" / f"{name}.cpp").is_file()]
