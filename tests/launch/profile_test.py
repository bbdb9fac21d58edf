"""`sage train --profile`: a trace for each rank, also of a run that fails."""

import json
from pathlib import Path

from program import SMALL, fails, sage, train


def spans_of(path: Path) -> dict[str, list[tuple[float, float, int]]]:
    """Begin, end and thread of the events of each name."""
    events = json.loads(path.read_text())["traceEvents"]
    found: dict[str, list[tuple[float, float, int]]] = {}
    for event in events:
        if event["ph"] == "X":
            assert event["dur"] >= 0
            found.setdefault(event["name"], []).append((event["ts"], event["ts"] + event["dur"], event["tid"]))
    return found


def within(inner: tuple[float, float, int], outer: tuple[float, float, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1] + 1e-3 and inner[2] == outer[2]


def test_each_rank_writes_what_it_did(tmp_path):
    train(tmp_path / "run", "output.profile_steps=7", epochs=2, flags=["--profile"])
    files = sorted((tmp_path / "run" / "profile").iterdir())
    assert [path.name for path in files] == ["trace_rank_0.json", "trace_rank_1.json"]
    for rank, path in enumerate(files):
        assert {event["pid"] for event in json.loads(path.read_text())["traceEvents"]} == {rank}
        spans = spans_of(path)
        assert {"data", "forward", "backward", "optimizer", "selection", "evaluation", "prepare batch"} <= spans.keys()
        assert len(spans["forward"]) == len(spans["backward"]) == 7
        assert len(spans["evaluation"]) == 2 and len(spans["selection"]) == 1
        main = spans["evaluation"][0][2]
        assert all(thread == main for *_, thread in spans["forward"])
        assert all(thread != main for *_, thread in spans["prepare batch"])
        # Gradients travel while the backward pass runs, on a thread that has no other work.
        travels = [span for name in spans if name.startswith("all-reduce") for span in spans[name]]
        assert travels and all(thread != main for *_, thread in travels)
        assert {thread for *_, thread in travels}.isdisjoint({thread for *_, thread in spans["prepare batch"]})
        assert any(first <= begin < last for begin, *_ in travels for first, last, _ in spans["backward"])
        # On one thread, events that overlap lie one within the other.
        of_main = sorted((begin, -end) for name in spans for begin, end, thread in spans[name] if thread == main)
        open_ends: list[float] = []
        for begin, end in ((b, -e) for b, e in of_main):
            while open_ends and open_ends[-1] <= begin:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1] + 1e-3
            open_ends.append(end)


def test_a_run_that_fails_leaves_its_trace(tmp_path):
    fails(sage("train", "training.lr=1e30", "training.weight_decay=0", "selection.mode=none", "training.batch_size=64",
               f"output_dir={tmp_path / 'run'}", "--profile"), 6, "step")
    assert len(spans_of(tmp_path / "run" / "profile" / "trace_rank_0.json")["forward"]) >= 5


def test_a_selection_and_its_proxy_have_spans_of_their_own(tmp_path):
    result = sage("select", *SMALL, f"output_dir={tmp_path / 'run'}", "selection.scorer=proxy", "selection.proxy.steps=9",
                  "output.profile_steps=4", "--profile", ranks=2)
    assert result.returncode == 0, result.stderr
    for path in sorted((tmp_path / "run" / "profile").iterdir()):
        spans = spans_of(path)
        for inner in ("proxy training", "sketch pass", "merge", "score pass", "choose"):
            assert len(spans[inner]) == 1
            assert within(spans[inner][0], spans["selection"][0])
        assert len(spans["forward"]) == 4 and all(within(span, spans["proxy training"][0]) for span in spans["forward"])


def test_the_steps_of_a_proxy_take_none_from_the_run(tmp_path):
    train(tmp_path / "run", "selection.scorer=proxy", "selection.proxy.steps=9", "selection.no_warmup=true",
          "output.profile_steps=4", epochs=1, flags=["--profile"], ranks=1)
    spans = spans_of(tmp_path / "run" / "profile" / "trace_rank_0.json")
    of_proxy = [span for span in spans["forward"] if within(span, spans["proxy training"][0])]
    assert len(of_proxy) == 4 and len(spans["forward"]) == 8
