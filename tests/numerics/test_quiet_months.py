"""A budget of B alerts a month is kept where nothing changes, and spent: months of windows, all scales, one reference.

Counts alarms of the whole family of tests, which are at least as many as alerts. Seeded. The bench program
`bench.bench_false_alarms` does the same through counting and judging, with more shapes.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from measures.budget import DAY_MS, HOUR_MS, Budget
from measures.calibration import compare_categories, compare_numbers
from measures.effects import Floors
from schemas.inference import QUANTILES

NUM_NUMBERS, NUM_CATEGORIES = 10, 10
# Budgets are kept without any floor; floors only take alarms away.
NO_FLOORS = Floors(ks=0.0, share=0.0)
SHARES = 1.0 / np.arange(1, 11) ** 1.1
SHARES /= SHARES.sum()


def draw_month(
    rng: np.random.Generator, num_reference: int, num_rows: int, num_windows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Counts [windows, features, cells] of numbers of any continuous distribution and of categories, and references."""
    ranks = np.ceil(num_reference * np.array(QUANTILES) - 1e-9).astype(int)
    reference = np.diff([0, *ranks, num_reference])
    shares = rng.dirichlet(np.diff([0, *ranks, num_reference + 1]), size=NUM_NUMBERS)
    numbers = np.stack([rng.multinomial(num_rows, each, size=num_windows) for each in shares], axis=1)
    categories = rng.multinomial(num_rows, SHARES, size=(num_windows, NUM_CATEGORIES))
    category_reference = rng.multinomial(num_reference, SHARES, size=NUM_CATEGORIES)
    return numbers, np.tile(reference, (NUM_NUMBERS, 1)), categories, category_reference


def merge(counts: np.ndarray, scale: int) -> np.ndarray:
    return counts.reshape(len(counts) // scale, scale, *counts.shape[1:]).sum(axis=1)


def count_alarms(budget: Budget, month: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]) -> int:
    numbers, number_reference, categories, category_reference = month
    alarms = 0
    for scale in budget.scales:
        for compare, counts, reference in (
            (compare_numbers, merge(numbers, scale), number_reference),
            (compare_categories, merge(categories, scale), category_reference),
        ):
            nulls = np.zeros(counts.shape[:-1], np.int64)
            found = compare(counts, np.broadcast_to(reference, counts.shape), nulls, nulls, NO_FLOORS)
            alarms += int((found.p_alarm <= budget.level(scale)).any(axis=1).sum())
    return alarms


@pytest.mark.parametrize(
    ("count", "num_months", "window_ms", "num_reference", "num_rows"),
    [(1.0, 10, HOUR_MS, 10_000, 200), (1.0, 200, DAY_MS, 35_000, 500), (0.35, 200, DAY_MS, 5_000, 500)],
)
def test_a_quiet_month_spends_at_most_its_budget(
    count: float, num_months: int, window_ms: int, num_reference: int, num_rows: int
) -> None:
    budget = Budget(count, 30 * DAY_MS, window_ms, 0, NUM_NUMBERS + NUM_CATEGORIES)
    num_windows = 30 * DAY_MS // window_ms // max(budget.scales) * max(budget.scales)
    rng = np.random.default_rng([num_months, num_rows, window_ms])
    total = sum(count_alarms(budget, draw_month(rng, num_reference, num_rows, num_windows)) for _ in range(num_months))
    expected = count * num_months
    assert total <= expected + 2.0 * math.sqrt(expected)
    if expected >= 50:
        # Blind tests would keep any budget; measured 0.5 to 0.8 of it.
        assert total >= 0.3 * expected
