"""The other selection methods from the command line, on the real digits."""

import json

import pytest
from program import SMALL, sage


@pytest.mark.parametrize(
    "method, weighs, settings",
    [
        ("gradmatch", True, []),
        ("k_center", False, []),
        ("glister", False, ["data.validation_fraction=0.1"]),
        ("forgetting", False, ["selection.proxy.steps=60"]),
    ],
)
def test_select_writes_ids_and_weights(tmp_path, method, weighs, settings):
    folder = tmp_path / "chosen"
    result = sage("select", *SMALL, f"selection.method={method}", "selection.scorer=proxy", "selection.proxy.steps=20",
                  "selection.fraction=0.1", *settings, f"output_dir={folder}", ranks=2)
    assert result.returncode == 0, result.stderr
    subset = json.loads((folder / "subset_indices" / "epoch_0_indices.json").read_text())
    kept = round(0.1 * subset["candidates"])
    assert len(subset["ids"]) == kept and subset["ids"] == sorted(set(subset["ids"]))
    assert max(subset["class_histogram"]) - min(subset["class_histogram"]) <= 1
    assert subset["method"] == ("diversity" if method == "k_center" else method)
    assert ("weights" in subset) == weighs
    if weighs:
        assert len(subset["weights"]) == kept
        assert sum(subset["weights"]) == pytest.approx(kept, rel=1e-4)
        assert min(subset["weights"]) > 0 and max(subset["weights"]) > 1
    assert not any("no history" in note for note in subset["notes"])


def test_the_plan_counts_what_a_method_keeps(tmp_path):
    sizes = []
    for method in ("uncertainty", "diversity", "gradmatch", "glister"):
        result = sage("train", *SMALL, f"selection.method={method}", "data.validation_fraction=0.1",
                      f"output_dir={tmp_path / 'none'}", "--dry-run")
        assert result.returncode == 0, result.stderr
        sizes.append(float(result.stdout.split("kept scores ")[1].split(" ")[0]))
    assert sizes == sorted(sizes) and len(set(sizes)) == 4
