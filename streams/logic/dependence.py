"""Block mode (`rows: blocks`): what a window's counts say when its rows depend on each other. Pure.

Owns the splitting of the reference into blocks of a scale. The test is `measures.blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from measures.blocks import BlockProfile, profile_categories, profile_numbers
from measures.budget import Budget
from schemas.spec import PublishedSpec
from streams.logic.layouts import NumberField, Part
from streams.logic.significance import Field, Tested, batch_columns, gather_columns, list_tested

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SegmentBlocks:
    """What the blocks of one segment, part and scale have taught, in batches of columns."""

    batches: list[tuple[list[Field], BlockProfile]]

    def p_values(self, window: Ints) -> dict[str, float]:
        """Give each column's p-value for a window's counts int64[layout.num_slots]; NaN where uncalibrated."""
        found: dict[str, float] = {}
        for columns, profile in self.batches:
            values, nulls = gather_columns(columns, window[None])
            p_values = profile.p_values(values[:, 0], nulls[:, 0]).tolist()
            found |= dict(zip((each.name for each in columns), p_values, strict=True))
        return found


def learn_blocks(published: PublishedSpec, part: Part, starts: Ints, counts: Ints, scale: int) -> SegmentBlocks:
    """Learn from the windows of a reference, as `count_reference_windows` gives them, merged to a scale."""
    budget = Budget(1.0, 1, published.window_size_ms, published.spec.windows.origin_ms, num_tests=1)
    merged = merge_windows(budget, starts, counts, scale)
    batches = []
    for columns in batch_columns(list_tested(published, part), len(merged)):
        values, nulls = gather_columns(columns, merged)
        profile = profile_numbers if isinstance(columns[0], NumberField) else profile_categories
        batches.append((columns, profile(values.swapaxes(0, 1), nulls.T)))
    return SegmentBlocks(batches)


def merge_windows(budget: Budget, starts: Ints, counts: Ints, scale: int) -> Ints:
    """Sum windows (ascending) to merged ones, without those at either end that the windows do not cover."""
    if not len(starts):
        return counts
    spans = [budget.span(start, scale) for start in starts.tolist()]
    group = np.unique([start for start, _ in spans], return_index=True)[1]
    merged = np.add.reduceat(counts, group, axis=0)
    begin = 0 if spans[0][0] == starts[0] else 1
    end = len(merged) if spans[-1][1] == starts[-1] + budget.window_ms else len(merged) - 1
    return merged[begin:end]


def hold_back(
    tested: Sequence[Tested], blocks: Mapping[str, SegmentBlocks], window: Mapping[str, Ints]
) -> list[Tested]:
    """Give each test the larger of its p-values, for independent rows and for blocks; NaN where uncalibrated.

    `blocks` and `window` are by segment; a segment without blocks is uncalibrated.
    """
    p_values = {
        (name, segment): p_value
        for segment in {each.segment for each in tested} & blocks.keys()
        for name, p_value in blocks[segment].p_values(window[segment]).items()
    }
    held = []
    for each in tested:
        p_value = p_values.get((each.feature, each.segment), math.nan)
        both = [math.nan if math.isnan(p_value) else max(p_value, own) for own in (each.p_value, each.p_alarm)]
        held.append(replace(each, p_value=both[0], p_alarm=both[1]))
    return held
