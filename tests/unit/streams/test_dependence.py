"""Which windows of the reference make a block of a scale, and how block mode enters a test."""

from __future__ import annotations

import math

import numpy as np

from measures.budget import HOUR_MS, Budget
from streams.logic.dependence import hold_back, learn_blocks, merge_windows
from streams.logic.reference_counts import count_reference, count_reference_windows
from streams.logic.significance import compare_counts
from tests.mixed_rows import NUM_ROWS, PUBLISHED, SIZE_MS, draw_rows


def test_blocks_are_merged_windows_that_the_reference_covers() -> None:
    """Hours 4 to 20, none at 9: spans of six hours begin at 0, 6, 12 and 18, of which 6 and 12 are covered."""
    budget = Budget(1.0, 1, HOUR_MS, 0, num_tests=1)
    hours = np.array([hour for hour in range(4, 21) if hour != 9])
    counts = np.stack([hours, np.ones_like(hours)], axis=1)
    assert merge_windows(budget, hours * HOUR_MS, counts, 6).tolist() == [[6 + 7 + 8 + 10 + 11, 5], [87, 6]]
    assert merge_windows(budget, hours * HOUR_MS, counts, 1).tolist() == counts.tolist()
    assert merge_windows(budget, hours * HOUR_MS, counts, 24).tolist() == []
    assert merge_windows(budget, hours[:0], counts[:0], 6).tolist() == []


def test_the_larger_p_value_counts_and_too_few_blocks_are_uncalibrated() -> None:
    """Forty windows of 75 independent rows."""
    reference = draw_rows(1)
    reference.ts = np.arange(NUM_ROWS) * 40 * SIZE_MS // NUM_ROWS
    window = count_reference(PUBLISHED, draw_rows(2, 300), "inputs")
    tested = compare_counts(PUBLISHED, "inputs", window, count_reference(PUBLISHED, reference, "inputs"))
    whole = [each for each in tested if each.segment in ("", "flag=1")]
    blocks = {"": learn_blocks(PUBLISHED, "inputs", *count_reference_windows(PUBLISHED, reference, "inputs"), 1)}
    held = {(each.feature, each.segment): each for each in hold_back(whole, blocks, window)}
    own = blocks[""].p_values(window[""])
    assert own.keys() == {"amount", "country", "flag"}
    calibrated = [name for name, p_value in own.items() if not math.isnan(p_value)]
    assert calibrated
    for each in whole:
        found = held[each.feature, each.segment]
        if each.segment or each.feature not in calibrated:
            assert math.isnan(found.p_value)
            assert math.isnan(found.p_alarm)
        else:
            assert found.p_value == max(each.p_value, own[each.feature])
            assert found.p_alarm == max(each.p_alarm, own[each.feature])
        assert (found.effect, found.num_window) == (each.effect, each.num_window)
    few = learn_blocks(PUBLISHED, "inputs", *count_reference_windows(PUBLISHED, reference, "inputs"), 24)
    assert all(math.isnan(p_value) for p_value in few.p_values(window[""]).values())
