"""Fisher's tails against SciPy's hypergeometric distribution, and against every permutation of small samples."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from measures.exact_tails import fisher_p_values


def twice_the_smaller_tail(hits: np.ndarray, drawn: np.ndarray, marked: np.ndarray, total: np.ndarray) -> np.ndarray:
    lower = stats.hypergeom.cdf(hits, total, marked, drawn)
    upper = stats.hypergeom.sf(hits - 1, total, marked, drawn)
    return np.minimum(1.0, 2.0 * np.where(hits * total < drawn * marked, lower, upper))


def draw_tables(total: int, num: int, seed: int) -> tuple[np.ndarray, ...]:
    """Tables of all shapes, counts up to some seven deviations off."""
    rng = np.random.default_rng(seed)
    drawn, marked = rng.integers(1, total, num), rng.integers(0, total + 1, num)
    if total > 100:  # few rows on a side, and rare categories
        drawn = np.where(rng.random(num) < 0.5, rng.integers(1, 60, num), drawn)
        marked = np.where(rng.random(num) < 0.5, rng.integers(0, 60, num), marked)
    mean = drawn * marked / total
    deviation = np.sqrt(mean * (1 - marked / total) * (total - drawn) / (total - 1))
    hits = np.round(mean + 3.0 * deviation * rng.normal(size=num)).astype(int)
    hits = np.clip(hits, np.maximum(0, drawn + marked - total), np.minimum(drawn, marked))
    return hits, drawn, marked, np.full(num, total)


@pytest.mark.parametrize("total", [2, 20, 100, 1_000, 20_000, 1_000_000])
def test_tails_are_scipys(total: int) -> None:
    tables = draw_tables(total, 3_000, seed=total)
    ours, theirs = fisher_p_values(*tables), twice_the_smaller_tail(*tables)
    assert np.abs(ours - theirs).max() < 1e-3
    small = (theirs < 0.04) & (theirs > 1e-290)
    # The logarithms of factorials of a million leave nine digits.
    assert np.allclose(ours[small], theirs[small], rtol=1e-14 * total + 1e-11, atol=0.0)


def test_tails_are_shares_of_permutations() -> None:
    """Every way to choose the window's 4 of 9 pooled rows, of which 3 are marked."""
    chosen = [sum(row < 3 for row in rows) for rows in combinations(range(9), 4)]
    for hits in range(4):
        upper = np.mean([each >= hits for each in chosen])
        lower = np.mean([each <= hits for each in chosen])
        assert fisher_p_values(hits, 4, 3, 9) == pytest.approx(min(1.0, 2.0 * min(upper, lower)))


def test_what_cannot_differ_is_no_evidence() -> None:
    assert fisher_p_values([0, 5, 0, 3], [5, 5, 0, 3], [0, 9, 4, 2 + 1], [9, 9, 9, 3]).tolist() == [1.0] * 4


def test_a_tail_too_long_to_sum_is_bounded_from_above() -> None:
    """With 10^9 rows a deviation is 11,000 counts; 2,000 terms are a fifth of one."""
    total, drawn, marked = 10**9, 5 * 10**8, 5 * 10**8
    deviation = np.sqrt(drawn * 0.5 * 0.5 * 0.5)
    for z in (2.5, 4.0, 6.0):
        exact = 2.0 * stats.norm.sf(z)  # what the distribution is at this size, to a few parts in 10^4
        found = float(fisher_p_values(drawn // 2 + round(z * deviation), drawn, marked, total))
        assert exact * 0.999 < found < exact * 1.3


def test_a_table_alone_has_the_value_that_it_has_among_others() -> None:
    hits, drawn, marked, total = draw_tables(1_000, 200, seed=5)
    together = fisher_p_values(hits, drawn, marked, total)
    alone = [float(fisher_p_values(*table)) for table in zip(hits, drawn, marked, total, strict=True)]
    # Others may keep the sum going for a few terms below its own precision.
    assert np.allclose(together, alone, rtol=1e-11, atol=0.0)
