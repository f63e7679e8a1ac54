"""Do p-values keep their level, and are they what the textbooks' tests give? Everything drawn is seeded.

A level is checked by counting: of R draws without drift, at most αR + 4·√(αR) may have p ≤ α. A test that kept its
level exactly would fail that in one of 30,000 seeds; one that exceeds it by half fails it at the R used here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise

import numpy as np
import pytest
from scipy import stats

from measures.p_values import (
    categorical_p_values,
    contingency_p_values,
    numeric_p_values,
    rank_p_values,
    scan_p_values,
    share_p_values,
)
from schemas.inference import QUANTILES, find_cuts

Draw = Callable[[int], tuple[np.ndarray, np.ndarray]]

LEVELS = np.array([1e-2, 1e-3])
NUM_DRAWS = 40_000


def zipf(num: int) -> np.ndarray:
    shares = 1.0 / np.arange(1, num + 1) ** 1.1
    return shares / shares.sum()


def draw_numbers(rng: np.random.Generator, num_reference: int, num_window: int) -> Draw:
    """Bins of any continuous distribution: between order statistics, shares are Dirichlet of the rank gaps."""
    ranks = np.ceil(num_reference * np.array(QUANTILES) - 1e-9).astype(int)
    reference = np.diff([0, *ranks, num_reference])
    gaps = np.diff([0, *ranks, num_reference + 1])

    def draw(size: int) -> tuple[np.ndarray, np.ndarray]:
        window = rng.multinomial(num_window, rng.dirichlet(gaps, size=size))
        return window, np.broadcast_to(reference, window.shape)

    return draw


def draw_shares(rng: np.random.Generator, shares: np.ndarray, num_reference: int, num_window: int) -> Draw:
    def draw(size: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.multinomial(num_window, shares, size=size), rng.multinomial(num_reference, shares, size=size)

    return draw


def mostly_zeros(zeros: float) -> np.ndarray:
    shares = stats.poisson.pmf(np.arange(15), 3) * (1 - zeros)
    shares[0] += 1 - shares.sum()
    return shares


def count_alarms(draw: Draw, test: Callable[[np.ndarray, np.ndarray], np.ndarray], num_draws: int) -> np.ndarray:
    found = np.zeros(len(LEVELS))
    for size in split(num_draws, 5_000):
        found += (test(*draw(size))[:, None] <= LEVELS).sum(axis=0)
    return found


def split(total: int, step: int) -> Iterator[int]:
    yield from (min(step, total - begin) for begin in range(0, total, step))


def assert_level_is_kept(found: np.ndarray, num_draws: int) -> None:
    expected = LEVELS * num_draws
    assert np.all(found <= expected + 4.0 * np.sqrt(expected)), found / expected


# The shares of draws at or below 0.01 and 0.001, over the level, that the recipe was published with.
PUBLISHED = {
    "continuous 500, 50": (0.56, 0.52),
    "continuous 500, 5000": (0.74, 0.72),
    "continuous 10000, 50": (0.55, 0.49),
    "continuous 10000, 500": (0.72, 0.76),
    "95 % zeros 500, 50": (0.22, 0.15),
    "99 % zeros 500, 50": (0.13, 0.04),
    "20 levels 500, 5000": (0.67, 0.67),
    "20 levels 10000, 500": (0.68, 0.73),
    "200 levels 500, 50": (0.01, 0.0),
    "200 levels 500, 5000": (0.59, 0.56),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_levels_are_the_published_ones(case: str) -> None:
    shape, sizes = case.rsplit(" ", 2)[0], case.rsplit(" ", 2)[1:]
    num_reference, num_window = (int(each.strip(",")) for each in sizes)
    rng = np.random.default_rng(len(case) + num_window)
    # 200 categories take ten times as long.
    num_draws = NUM_DRAWS // 10 if shape == "200 levels" else NUM_DRAWS
    if shape == "continuous":
        found = count_alarms(draw_numbers(rng, num_reference, num_window), numeric_p_values, num_draws)
    elif shape.endswith("zeros"):
        shares = mostly_zeros(float(shape.split()[0]) / 100)
        found = count_alarms(draw_shares(rng, shares, num_reference, num_window), numeric_p_values, num_draws)
    else:
        shares = zipf(int(shape.split()[0]))
        found = count_alarms(draw_shares(rng, shares, num_reference, num_window), categorical_p_values, num_draws)
    assert_level_is_kept(found, num_draws)
    published = np.array(PUBLISHED[case]) * LEVELS * num_draws
    # Four deviations of the count here, and the published figures' own noise and rounding.
    assert np.all(np.abs(found - published) <= 4.0 * np.sqrt(published) + 0.06 * LEVELS * num_draws + 2.0), (
        found / num_draws / LEVELS
    )


SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "heavy tails": lambda rng, size: rng.standard_cauchy(size=size),
    "seven values": lambda rng, size: rng.binomial(6, 0.3, size=size).astype(float),
    "70 % zeros": lambda rng, size: np.where(rng.random(size) < 0.7, 0.0, rng.poisson(3, size=size)).astype(float),
    "constant": lambda rng, size: np.full(size, 3.0),
    "rounded": lambda rng, size: np.round(rng.lognormal(size=size), 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_levels_hold_with_cuts_of_the_reference(name: str) -> None:
    """From values to cuts to counts, ties dropped, a new reference every 10 windows."""
    rng, found, num_draws = np.random.default_rng(len(name)), np.zeros(2), 20_000
    for _ in range(num_draws // 10):
        reference = SHAPES[name](rng, 1_000)
        cuts = np.array(find_cuts(reference))
        counts = np.bincount(np.searchsorted(cuts, reference), minlength=len(cuts) + 1)
        values = SHAPES[name](rng, 10 * 200)
        bins = np.searchsorted(cuts, values).reshape(10, 200)
        window = np.stack([np.bincount(each, minlength=len(cuts) + 1) for each in bins])
        found += (numeric_p_values(window, np.broadcast_to(counts, window.shape))[:, None] <= LEVELS).sum(axis=0)
    # Ten windows share a reference, so that alarms come in bunches: allow for twice the variance.
    expected = LEVELS * num_draws
    assert np.all(found <= expected + 4.0 * np.sqrt(2.0 * expected)), found / expected


def test_a_segment_keeps_its_level_with_cuts_of_the_whole_reference() -> None:
    rng, found, num_draws = np.random.default_rng(11), np.zeros(2), 20_000
    for _ in range(num_draws // 10):
        is_own, reference = rng.random(2_000) < 0.3, rng.normal(size=2_000)
        reference[is_own] += 1.0
        cuts = np.array(find_cuts(reference))
        counts = np.bincount(np.searchsorted(cuts, reference[is_own]), minlength=len(cuts) + 1)
        bins = np.searchsorted(cuts, rng.normal(1.0, 1.0, size=(10, 100)))
        window = np.stack([np.bincount(each, minlength=len(cuts) + 1) for each in bins])
        found += (numeric_p_values(window, np.broadcast_to(counts, window.shape))[:, None] <= LEVELS).sum(axis=0)
    expected = LEVELS * num_draws
    assert np.all(found <= expected + 4.0 * np.sqrt(2.0 * expected)), found / expected


def permute(window: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Counts of every way to choose the window's rows from the pooled ones."""
    pooled = np.repeat(np.arange(len(window)), window + reference)
    chosen = np.array(list(combinations(range(len(pooled)), int(window.sum()))))
    return np.stack([np.bincount(pooled[rows], minlength=len(window)) for rows in chosen])


TINY = [
    (np.array([3, 1, 1, 0]), np.array([1, 2, 3, 3])),
    (np.array([0, 0, 2, 2]), np.array([4, 3, 1, 0])),
    (np.array([5, 0, 1]), np.array([2, 4, 2])),
    (np.array([1, 0, 1, 0, 1]), np.array([3, 2, 2, 2, 2])),
]


@pytest.mark.parametrize(("window", "reference"), TINY)
def test_tiny_samples_against_every_permutation(window: np.ndarray, reference: np.ndarray) -> None:
    """Given the pooled counts, a valid p-value is at or below u for a share of at most u of the permutations.

    Exact for shares; the rank sum approximates, by at most the probability of one value and 0.04 even here.
    """
    every = permute(window, reference)
    pooled = np.broadcast_to(window + reference, every.shape)
    found = share_p_values(every, pooled - every)
    for u in np.unique(found):
        assert np.mean(found <= u + 1e-12) <= u + 1e-9
    ranks = np.cumsum(pooled[0]) - (pooled[0] - 1) / 2
    sums = every @ ranks
    exact = 2.0 * np.array([min(np.mean(sums >= each - 1e-9), np.mean(sums <= each + 1e-9)) for each in sums])
    # A continuous approximation has half of the probability of the value itself on either side.
    itself = np.array([np.mean(np.abs(sums - each) < 1e-9) for each in sums])
    approximate, small = rank_p_values(every, pooled - every), exact < 0.3
    assert small.any()
    assert np.all(np.abs(approximate - (exact - itself))[small] <= itself[small] + 0.04)


def test_the_rank_sum_is_wilcoxons() -> None:
    """With sides of one size the skewness vanishes, and SciPy's normal approximation is the same."""
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.2, 0.5):
        a, b = rng.integers(0, 8, 300), np.minimum(rng.integers(0, 8, 300) + (rng.random(300) < shift), 7)
        window, reference = np.bincount(a, minlength=8), np.bincount(b, minlength=8)
        theirs = stats.mannwhitneyu(a, b, use_continuity=False, method="asymptotic").pvalue
        assert rank_p_values(window, reference) == pytest.approx(theirs, rel=1e-9)


def test_the_contingency_test_is_pearsons() -> None:
    window, reference = np.array([60, 50, 90]), np.array([400, 300, 300])
    theirs = stats.chi2_contingency(np.stack([window, reference]), correction=False).pvalue
    assert contingency_p_values(window, reference) == pytest.approx(theirs, rel=1e-9)


def test_rare_categories_are_folded() -> None:
    """Expected in the window of 200: 10 and 12 of the two rare ones, so they count as one cell of 22."""
    window, reference = np.array([100, 78, 14, 8]), np.array([500, 398, 46, 56])
    theirs = stats.chi2_contingency([[100, 78, 22], [500, 398, 102]], correction=False).pvalue
    assert contingency_p_values(window, reference) == pytest.approx(theirs, rel=1e-9)
    # All rare together still too few: χ² says nothing, Fisher's test of each does.
    assert contingency_p_values(np.array([190, 10]), np.array([999, 1])) == 1.0
    assert share_p_values(np.array([190, 10]), np.array([999, 1])) < 1e-6


def test_more_rows_and_larger_shifts_are_surer() -> None:
    reference = np.full(20, 500)
    shares = np.linspace(1.0, 2.0, 20)
    for test in (numeric_p_values, categorical_p_values, rank_p_values, scan_p_values):
        by_size = [float(test(np.round(shares * size).astype(int), reference)) for size in (5, 20, 80, 320)]
        assert all(more < fewer or fewer < 1e-300 for fewer, more in pairwise(by_size)), test
        tilts = (0.0, 0.2, 0.5, 1.0)
        by_tilt = [
            float(test(np.round(200 * (1 + tilt * np.linspace(-1, 1, 20))).astype(int), reference)) for tilt in tilts
        ]
        assert by_tilt[0] > 0.5
        assert sorted(by_tilt, reverse=True) == by_tilt


def test_the_scan_sees_tails_that_the_rank_sum_does_not() -> None:
    """3 % of the rows above the reference's 99 %, the rest where it was."""
    reference = np.array([1_000] * 9 + [900, 100])
    window = np.array([196] * 9 + [176, 60])
    assert scan_p_values(window, reference) < 1e-6 < rank_p_values(window, reference)


def test_padding_and_company_change_nothing() -> None:
    rng = np.random.default_rng(4)
    window, reference = rng.multinomial(300, zipf(12), size=50), rng.multinomial(3_000, zipf(12), size=50)
    for test in (numeric_p_values, categorical_p_values):
        together = test(window, reference)
        padded = test(np.pad(window, ((0, 0), (0, 5))), np.pad(reference, ((0, 0), (0, 5))))
        alone = [float(test(w, r)) for w, r in zip(window, reference, strict=True)]
        assert np.allclose(padded, together, rtol=1e-9, atol=0.0)
        assert np.allclose(alone, together, rtol=1e-9, atol=0.0)


def test_nothing_can_be_said_of_nothing() -> None:
    empty, some, one = np.zeros(5, int), np.array([1, 2, 3, 2, 1]), np.array([9, 0, 0, 0, 0])
    for test in (numeric_p_values, categorical_p_values, rank_p_values, scan_p_values, share_p_values):
        for pair in ((empty, some), (some, empty), (empty, empty), (one, one * 7)):
            assert test(*pair) == 1.0
            assert not math.isnan(float(test(*pair)))
