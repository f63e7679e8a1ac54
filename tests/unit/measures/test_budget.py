"""The budget is spent once, over everything that is tested."""

from __future__ import annotations

import math

import pytest

from measures.budget import DAY_MS, HOUR_MS, LEVEL_MAX, Budget, choose_scales, is_reference_small

MONTH_MS = 30 * DAY_MS


@pytest.mark.parametrize(
    ("window_ms", "scales"),
    [
        (60_000, (1, 6, 24)),
        (12 * HOUR_MS - 1, (1, 6, 24)),
        (12 * HOUR_MS, (1, 7)),
        (4 * DAY_MS - 1, (1, 7)),
        (4 * DAY_MS, (1,)),
        (30 * DAY_MS, (1,)),
    ],
)
def test_scales_by_length(window_ms: int, scales: tuple[int, ...]) -> None:
    assert choose_scales(window_ms) == scales


@pytest.mark.parametrize("window_ms", [60_000, HOUR_MS, DAY_MS, 7 * DAY_MS])
@pytest.mark.parametrize("count", [1.0, 0.35, 4.0])
def test_all_levels_of_a_month_are_the_budget(window_ms: int, count: float) -> None:
    budget = Budget(count, MONTH_MS, window_ms, 0, num_tests=420)
    spent = math.fsum(
        420 * (MONTH_MS / (window_ms * scale)) * budget.level(scale, look)
        for scale in budget.scales
        for look in range(1, 40)
    )
    assert spent == pytest.approx(count)


def test_a_second_look_is_another_test() -> None:
    budget = Budget(1.0, MONTH_MS, HOUR_MS, 0, num_tests=20)
    assert budget.level(1, 2) == pytest.approx(budget.level(1, 1) / 10)
    assert budget.level(1, 500) >= 0.0


def test_no_level_is_so_high_that_a_p_value_says_nothing() -> None:
    assert Budget(5.0, MONTH_MS, MONTH_MS, 0, num_tests=1).level(1) == LEVEL_MAX


def test_merged_windows_tile_time_from_the_origin() -> None:
    origin = 13 * 60_000
    budget = Budget(1.0, MONTH_MS, HOUR_MS, origin, num_tests=1)
    for scale in budget.scales:
        spans = [budget.span(origin + hour * HOUR_MS, scale) for hour in range(-48, 48)]
        assert len(set(spans)) == 96 // scale
        assert all(
            (end - start) == scale * HOUR_MS and (start - origin) % (scale * HOUR_MS) == 0 for start, end in spans
        )
        assert all(
            start <= origin + hour * HOUR_MS < end for hour, (start, end) in zip(range(-48, 48), spans, strict=True)
        )
        last = [hour for hour in range(-48, 48) if budget.completes(origin + hour * HOUR_MS, scale)]
        assert last == list(range(-48 + scale - 1, 48, scale))


def test_a_reference_is_small_below_ten_windows() -> None:
    assert is_reference_small(9_999, 1_000)
    assert not is_reference_small(10_000, 1_000)
