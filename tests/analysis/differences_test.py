"""Tests of difference: against SciPy's, and Holm's correction against its definition."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from analysis.differences import Difference, compare, holm, paired, welch  # noqa: E402

numbers = np.random.default_rng(1)


def test_paired_t_is_scipys():
    a, b = numbers.normal(80, 1, 5), numbers.normal(79, 1, 5)
    found = paired("a", "b", list(a), list(b))
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert "n = 5 seeds" in found.test


def test_welch_t_is_scipys():
    a, b = numbers.normal(80, 1, 4), numbers.normal(79, 3, 7)
    found = welch("a", "b", list(a), list(b))
    expected = stats.ttest_ind(a, b, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_seeds_decide_which_test_is_made_and_too_few_runs_make_none():
    many = {1: 80.0, 2: 81.0, 3: 82.5}
    assert "paired" in compare("a", "b", many, {1: 79.0, 2: 80.5, 3: 80.0, 4: 70.0}).test
    assert "Welch" in compare("a", "b", many, {4: 79.0, 5: 80.5, 6: 80.0}).test
    assert compare("a", "b", {1: 80.0, 2: 81.0}, many) is None
    assert compare("a", "b", many, many) is None, "no spread to test by"
    # One image of 360 more for each seed: equal gaps, but for rounding, are no certainty.
    one_more = {seed: 100 * (count + 1) / 360 for seed, count in ((1, 340), (2, 337), (3, 344))}
    assert compare("a", "b", one_more, {seed: value - 100 / 360 for seed, value in one_more.items()}) is None
    assert compare("a", "b", {4: 80.0, 5: 80.0, 6: 80.0}, {1: 81.0, 2: 81.0, 3: 81.0}) is None


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_holm_is_its_definition_in_any_order(order):
    p = [0.001, 0.013, 0.04, 0.9]
    differences = [Difference("a", "b", "", 1, 0, 2, p[i]) for i in order]
    holm(differences)
    assert sorted(d.adjusted for d in differences) == pytest.approx([0.004, 0.039, 0.08, 0.9])
    assert [d.is_shown for d in sorted(differences, key=lambda d: d.p)] == [True, True, False, False]


def test_holm_keeps_false_findings_rare():
    """Where nothing differs, a page of ten tests claims something in about 5 % of cases, not in 40 %."""
    false = 0
    for _ in range(400):
        page = [paired("a", "b", list(numbers.normal(0, 1, 3)), list(numbers.normal(0, 1, 3))) for _ in range(10)]
        holm(page)
        false += any(d.is_shown for d in page)
    assert 0 < false < 400 * 0.09
