"""What makes up a column's p-value: nulls, floors, strictness; and the effects."""

from __future__ import annotations

import math

import numpy as np
import pytest

from measures.calibration import compare_categories, compare_numbers
from measures.effects import Floors, bound_ks, bound_shares, measure_ks, measure_linf
from measures.p_values import numeric_p_values

SAME = np.array([100, 100, 100, 100])
REFERENCE = SAME * 100
NONE = np.array(0)


def test_effects_are_the_largest_differences() -> None:
    window, reference = np.array([10, 20, 70]), np.array([300, 300, 400])
    assert measure_ks(window, reference) == pytest.approx(0.3)  # at the second cut: .3 of .6
    assert measure_linf(window, reference) == pytest.approx(0.3)
    assert math.isnan(measure_ks(np.zeros(3), reference))
    assert math.isnan(measure_linf(window, np.zeros(3)))
    assert measure_ks(np.array([5]), np.array([7])) == 0.0


def test_a_column_without_nulls_pays_nothing_for_them() -> None:
    window = np.array([100, 100, 100, 160])
    without = compare_numbers(window, REFERENCE, NONE, NONE)
    assert without.p_value == numeric_p_values(window, REFERENCE)
    one_null = compare_numbers(window, REFERENCE, NONE, NONE + 1)
    assert one_null.p_value == pytest.approx(1.5 * without.p_value)


def test_nulls_alone_can_drift() -> None:
    found = compare_numbers(SAME, REFERENCE, np.array(60), np.array(40))
    assert found.p_value < 1e-20
    assert found.p_alarm == found.p_value
    assert found.effect == 0.0
    assert found.null_effect == pytest.approx(60 / 460 - 40 / 40_040)
    category = compare_categories(SAME, REFERENCE, np.array(60), np.array(40))
    assert category.p_value < 1e-20
    assert category.effect == pytest.approx(category.null_effect)


def test_what_is_below_its_floor_alarms_only_without_one() -> None:
    """A hundredth of ten million rows moved: certain, and of no interest."""
    window, reference = np.array([2_600_000, 2_400_000, 2_500_000, 2_500_000]), SAME * 1_000_000
    for compare in (compare_numbers, compare_categories):
        found = compare(window, reference, NONE, NONE)
        assert found.effect == pytest.approx(0.01)
        assert found.p_value < 1e-100
        assert found.p_alarm == 1.0
        free = compare(window, reference, NONE, NONE, Floors(ks=0.0, share=0.0))
        assert free.p_alarm == free.p_value == found.p_value


def test_each_component_has_its_own_floor() -> None:
    """The values moved by less than their floor, the nulls by more than theirs: only the nulls count."""
    window, reference = np.array([10_300, 9_700, 10_000, 10_000]), SAME * 10_000
    found = compare_numbers(window, reference, np.array(1_300), np.array(10))
    nulls_alone = compare_numbers(SAME * 100, reference, np.array(1_300), np.array(10))
    assert found.effect < 0.04 < nulls_alone.null_effect + 0.02
    assert found.p_alarm == pytest.approx(nulls_alone.p_alarm)


def test_the_strict_floor_asks_for_a_true_effect_above_it() -> None:
    """An estimate of .05 from 400 rows is above the floor, but not surely; from 40,000 it is."""
    strict = Floors(is_strict=True)
    for compare, rows_at_floor in ((compare_numbers, 16), (compare_categories, 8)):
        few = compare(SAME + np.array([20, -20, 0, 0]), SAME * 10_000, NONE, NONE, strict)
        many = compare((SAME + np.array([24, -24, 0, 0])) * 100, SAME * 10_000, NONE, NONE, strict)
        assert few.p_alarm > 0.2
        assert many.p_alarm < 1e-3
        assert few.p_alarm >= few.p_value
        # A true effect of exactly the floor is no drift, however many rows.
        moved = np.array([rows_at_floor, -rows_at_floor, 0, 0])
        at_floor = compare((SAME + moved) * 10_000, SAME * 1_000_000, NONE, NONE, strict)
        assert at_floor.p_value < 1e-100
        assert at_floor.p_alarm > 0.5


def test_bounds_keep_their_level_at_the_floor() -> None:
    """A true change of just the floor; of 4,000 windows at most .05 + four deviations may be called larger."""
    rng = np.random.default_rng(3)
    shares = np.array([0.25, 0.25, 0.25, 0.25])
    window = rng.multinomial(2_000, shares + np.array([0.04, -0.04, 0.0, 0.0]), size=4_000)
    reference = rng.multinomial(20_000, shares, size=4_000)
    allowed = 0.05 + 4.0 * math.sqrt(0.05 / 4_000)
    assert np.mean(bound_ks(window, reference, 0.04) <= 0.05) <= allowed
    assert np.mean(bound_shares(window, reference, 0.04) <= 0.05) <= allowed
    # And they are no empty promise: without the floor the same change is seen nearly always.
    assert np.mean(bound_ks(window, reference, 0.0) <= 0.05) > 0.5
    assert np.mean(bound_shares(window, reference, 0.0) <= 0.05) > 0.9


def test_columns_of_any_shape_are_compared_at_once() -> None:
    rng = np.random.default_rng(1)
    window, reference = rng.integers(0, 50, (3, 4, 6)), rng.integers(0, 500, (3, 4, 6))
    nulls, reference_nulls = rng.integers(0, 9, (3, 4)), rng.integers(0, 90, (3, 4))
    for compare in (compare_numbers, compare_categories):
        together = compare(window, reference, nulls, reference_nulls)
        assert together.p_value.shape == (3, 4)
        alone = compare(window[1, 2], reference[1, 2], nulls[1, 2], reference_nulls[1, 2])
        assert together.p_value[1, 2] == pytest.approx(alone.p_value, rel=1e-9)
        assert together.p_alarm[1, 2] == pytest.approx(alone.p_alarm, rel=1e-9)
