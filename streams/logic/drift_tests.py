"""Tests the counts of a window, or of several merged, against the reference: measurements of kind `drift`. Pure.

Counts are all that is needed, so nothing waits for the rows. Owns what such a measurement says; the tests are
`streams.logic.significance`, what follows from them `streams.logic.drift_decisions`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from measures.calibration import DEFAULT_FLOORS
from schemas.events import Measurement
from schemas.spec import PublishedSpec
from store.measurements import NUM_DRIFTED, TESTED_CATEGORY, TESTED_NUMBER
from store.summaries import SummaryRow
from streams.logic.dependence import SegmentBlocks, hold_back
from streams.logic.layouts import OTHER, NumberField, Part
from streams.logic.measured import WindowContext
from streams.logic.significance import Tested, compare_counts, list_tested
from streams.logic.summaries import decode_counts, part_of

Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class SourceCounts:
    """Counts int64[layout.num_slots] and rows by segment, of the inputs or of one version's outputs."""

    counts: dict[str, Ints] = field(default_factory=dict)
    num_rows: dict[str, int] = field(default_factory=dict)

    def add(self, segment: str, counts: Ints, num_rows: int) -> None:
        """Take in more rows of a segment."""
        known = self.counts.get(segment)
        self.counts[segment] = counts if known is None else known + counts
        self.num_rows[segment] = self.num_rows.get(segment, 0) + num_rows


# By version, '' being the inputs.
WindowCounts = dict[str, SourceCounts]


@dataclass(frozen=True, slots=True)
class ReferenceCounts:
    """What the counts of one source are compared with, by segment; `blocks` where rows depend on each other."""

    counts: Mapping[str, Ints]
    blocks: Mapping[str, SegmentBlocks] | None = None

    @property
    def num_bytes(self) -> int:
        """The memory of the counts."""
        return sum(each.nbytes for each in self.counts.values())


def count_windows(rows: Iterable[SummaryRow], published: PublishedSpec, records_topic: str) -> dict[int, WindowCounts]:
    """Merge the partitions' summaries of one spec version, by window start; inputs from records where there are any."""
    size_ms = published.window_size_ms
    mine = [
        row
        for row in rows
        if row.spec_version == published.spec_version and row.window_end == row.window_start + size_ms
    ]
    has_records = {
        row.window_start
        for row in mine
        if row.place.topic == records_topic and not row.model_version and not row.segment and row.num_rows > 0
    }
    windows: dict[int, WindowCounts] = {}
    for row in mine:
        if row.model_version or (row.place.topic == records_topic) == (row.window_start in has_records):
            sources = windows.setdefault(row.window_start, {})
            source = sources.setdefault(row.model_version, SourceCounts())
            source.add(row.segment, decode_counts(row.state), row.num_rows)
    return windows


def merge_counts(windows: Iterable[WindowCounts]) -> WindowCounts:
    """Sum windows."""
    merged: WindowCounts = {}
    for window in windows:
        for version, source in window.items():
            into = merged.setdefault(version, SourceCounts())
            for segment, counts in source.counts.items():
                into.add(segment, counts, source.num_rows[segment])
    return merged


def drop_unknown_segments(window: WindowCounts, keys: Iterable[str]) -> None:
    """Leave out, for each version, the keys that its predictions do not tell, since their records do.

    Rows that tell no segment count as `__other__`; there are then more of them than inputs.
    """
    inputs = window.get("", SourceCounts()).num_rows
    for version, source in window.items():
        for key in keys if version else ():
            other = f"{key}={OTHER}"
            if source.num_rows.get(other, 0) > inputs.get(other, 0):
                for segment in [each for each in source.counts if each.partition("=")[0] == key]:
                    del source.counts[segment], source.num_rows[segment]


def measure_tests(
    context: WindowContext, version: str, source: SourceCounts, reference: ReferenceCounts, level: float
) -> list[Measurement]:
    """Test every column of every segment that has rows; `level` is that of a first look.

    `value` is the effect and `threshold` its floor; of a number whose values keep below theirs while its nulls do not,
    those of the nulls. `p_value` is the one that alarms where the status is `alert`.
    """
    part = part_of(version)
    filled = {segment: counts for segment, counts in source.counts.items() if source.num_rows[segment] > 0}
    if filled.keys().isdisjoint(reference.counts):
        return []
    found = compare_counts(context.published, part, filled, dict(reference.counts))
    if reference.blocks is not None:
        found = hold_back(found, reference.blocks, filled)
    numbers = _name_numbers(context.published, part)
    return [_make(context, version, each, each.feature in numbers, source.num_rows, level) for each in found]


def attach_tests(measured: Iterable[Measurement], tests: Iterable[Measurement]) -> list[Measurement]:
    """Give each distance among measurements the verdict of its column's test: a distance says how big, not how sure."""
    by_column = {(each.model_version, each.segment, each.feature): each for each in tests}

    def attach(each: Measurement) -> Measurement:
        if each.kind != "drift" or each.status in ("too_few_rows", "no_reference"):
            return each
        test = by_column.get((each.model_version, each.segment, each.feature))
        if test is None:
            return each
        return msgspec.structs.replace(each, p_value=test.p_value, alpha=test.alpha, status=test.status)

    return [attach(each) for each in measured]


def make_marker(context: WindowContext, rows: Iterable[Measurement], num_rows: int) -> Measurement:
    """Return the row that says that all other tests of the window are stored: how many columns have drifted."""
    drifted = {(each.model_version, each.feature) for each in rows if each.status == "alert" and not each.segment}
    return context.make("drift", NUM_DRIFTED, len(drifted), "ok", num_rows)


def _name_numbers(published: PublishedSpec, part: Part) -> set[str]:
    return {each.name for each in list_tested(published, part) if isinstance(each, NumberField)}


def _make(
    context: WindowContext,
    version: str,
    tested: Tested,
    is_number: bool,
    num_rows: Mapping[str, int],
    level: float,
) -> Measurement:
    floor = DEFAULT_FLOORS.ks if is_number else DEFAULT_FLOORS.share
    value, threshold = tested.effect, floor
    if is_number and not value >= floor and tested.null_effect >= DEFAULT_FLOORS.share:
        value, threshold = tested.null_effect, DEFAULT_FLOORS.share
    status = _judge(context, tested, level)
    return context.make(
        "drift",
        TESTED_NUMBER if is_number else TESTED_CATEGORY,
        value,
        status,
        num_rows[tested.segment],
        model_version=version,
        segment=tested.segment,
        feature=tested.feature,
        p_value=tested.p_alarm if status == "alert" else tested.p_value,
        alpha=level,
        threshold=threshold,
    )


def _judge(context: WindowContext, tested: Tested, level: float) -> str:
    """A test rests on the values, not on the rows that lack them."""
    if not tested.num_reference:
        return "no_reference"
    if tested.num_window < context.spec.windows.min_rows:
        return "too_few_rows"
    if math.isnan(tested.p_alarm):
        return "uncalibrated"
    return "alert" if tested.p_alarm <= level else "ok"
