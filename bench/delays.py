"""How many windows pass from a small change of one column to the alert: ours, and a threshold of Evidently's distances.

The distances are those of `measures.distances`, equal to Evidently's, of every window and all twenty features; one
feature at or above the threshold alarms. Two thresholds: Evidently's default, and the one that alarms as often where
nothing changes as our budget allows, found on streams without change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.results import Result, format_number
from bench.shapes import CATEGORIES, SHAPES, VALUES, Columns, Shape
from bench.watched import START_MS, Cell, WatchedModel
from measures.budget import HOUR_MS
from measures.distances import measure_jensenshannon, measure_wasserstein
from measures.drift import METHODS
from measures.samples import CategorySample, Sample, sort_numbers

Floats = npt.NDArray[np.float64]

BUDGET = 1.0
NUM_DAY_WINDOWS = 24
NUM_MONTH_DAYS = 30
# What is not found in twenty days is not found.
NUM_DAYS_MAX = 20


@dataclass(frozen=True, slots=True)
class Change:
    """A small change of one of twenty columns, in place, and the distance that Evidently measures of such columns."""

    name: str
    shape: Shape
    metric: str
    distance: Callable[[Any, Any], float]
    apply: Callable[[np.random.Generator, Columns], None]


@dataclass(frozen=True, slots=True)
class Quiet:
    """What is seen without change: our alerts, each window's largest distance by stream, and the equal threshold."""

    num_alerts: int
    largest: list[Floats]
    threshold: float

    def share(self, threshold: float) -> float:
        """Give the share of windows that alarm."""
        return float(np.mean(np.concatenate(self.largest) >= threshold))


def shift_number(_: np.random.Generator, columns: Columns) -> None:
    """Move a number by a tenth of its standard deviation."""
    columns.numbers["number_00"] += 0.1


def move_category(rng: np.random.Generator, columns: Columns) -> None:
    """Give 5 of 100 rows the third value instead of the first."""
    codes = columns.codes["category_00"]
    share = 1.0 / np.sum(np.arange(1, 11) ** -1.1)
    codes[(codes == 0) & (rng.random(len(codes)) < 0.05 / share)] = 2


CHANGES = (
    Change(".1 sd of a number", SHAPES[0], "wasserstein", measure_wasserstein, shift_number),
    Change("5 points of a category", CATEGORIES, "jensenshannon", measure_jensenshannon, move_category),
)


def run_delays(seed: int, *, is_short: bool) -> Iterator[Result]:
    """Give the delays of every change at two sizes."""
    for change in CHANGES:
        for num_rows, num_reference in ((200, 10_000), (2_000, 20_000)):
            cell = Cell(change.shape, num_rows, HOUR_MS, num_reference)
            if not is_short:
                yield from report_delays(change, cell, seed, num_months=10, num_streams=40)
            elif num_rows == 200:
                yield from report_delays(change, cell, seed, num_months=1, num_streams=5)


def report_delays(change: Change, cell: Cell, seed: int, num_months: int, num_streams: int) -> Iterator[Result]:
    """Give the median delay beside those of two thresholds; a stream that finds nothing counts as the longest."""
    rng = np.random.default_rng([seed, *change.name.encode(), cell.num_rows])
    quiet = watch_quiet(change, cell, rng, num_months)
    yield Result(f"false alerts, B = {BUDGET:g}: {cell}, {num_months} months", quiet.num_alerts, "")
    thresholds = (quiet.threshold, METHODS[change.metric].threshold)
    delays = [measure_delays(change, cell, rng, thresholds) for _ in range(num_streams)]
    ours, *theirs = (np.array(each) for each in zip(*delays, strict=True))
    name = f"delay of {change.name}, {cell}, median of {num_streams} streams{_tell_lost(ours)}"
    for threshold, found in zip(thresholds, theirs, strict=True):
        share = format_number(100.0 * quiet.share(threshold))
        peer = f"{change.metric} ≥ {threshold:.3g}, {share} % of windows without change: {np.median(found):g}"
        ratio = float(np.median(ours) / np.median(found))
        yield Result(name, float(np.median(ours)), "windows", peer + _tell_lost(found), ratio)


def watch_quiet(change: Change, cell: Cell, rng: np.random.Generator, num_months: int) -> Quiet:
    """Watch streams of a month in which nothing changes."""
    num_alerts, largest = 0, []
    for _ in range(num_months):
        model = WatchedModel(cell, rng, (BUDGET,))
        distances = Distances(change, model.reference)
        days = []
        for _ in range(NUM_MONTH_DAYS):
            columns = cell.shape.draw(rng, cell.num_rows * NUM_DAY_WINDOWS)
            num_alerts += len(model.take(columns))
            days.append(distances.measure(columns, cell.num_rows))
        largest.append(np.concatenate(days))
    return Quiet(num_alerts, largest, find_threshold(largest, round(BUDGET * num_months)))


def measure_delays(
    change: Change, cell: Cell, rng: np.random.Generator, thresholds: Sequence[float]
) -> tuple[float, ...]:
    """Give after how many windows a new stream's change is found: by us, and by a distance at each threshold.

    The change begins at any hour of the second day. NUM_DAYS_MAX days where it is not found.
    """
    while True:
        model = WatchedModel(cell, rng, (BUDGET,))
        distances = Distances(change, model.reference)
        num_quiet = NUM_DAY_WINDOWS + int(rng.integers(NUM_DAY_WINDOWS))
        num_before, first = divmod(num_quiet, NUM_DAY_WINDOWS)
        model.take(cell.shape.draw(rng, cell.num_rows * num_before * NUM_DAY_WINDOWS))
        if not model.is_open(BUDGET):  # else nothing could open
            break
    num_max = NUM_DAYS_MAX * NUM_DAY_WINDOWS
    found = [float(num_max)] * (1 + len(thresholds))
    for day in range(NUM_DAYS_MAX + 1):
        columns = cell.shape.draw(rng, cell.num_rows * NUM_DAY_WINDOWS)
        begin = first if day == 0 else 0
        changed = columns.take(slice(begin * cell.num_rows, None))  # views: what is done to them is done to all
        change.apply(rng, changed)
        num_passed = day * NUM_DAY_WINDOWS + begin - first
        if found[0] == num_max:
            ends = [(each.window_end - START_MS) // HOUR_MS - num_quiet for each in model.take(columns)]
            found[0] = min([num_max, *(end for end in ends if end > 0)])
        if max(found[1:]) == num_max:
            largest = distances.measure(changed, cell.num_rows)
            for index, threshold in enumerate(thresholds, 1):
                above = np.flatnonzero(largest >= threshold)
                if found[index] == num_max and len(above):
                    found[index] = min(num_max, float(num_passed + above[0] + 1))
        if max(found) < num_max:
            break
    return tuple(found)


class Distances:
    """The distances of windows from one reference."""

    def __init__(self, change: Change, reference: Columns) -> None:
        self._change = change
        self._reference = make_samples(reference)

    def measure(self, columns: Columns, num_rows: int) -> Floats:
        """Give the largest distance of all columns in each window of so many rows."""
        largest = []
        for begin in range(0, len(columns), num_rows):
            samples = make_samples(columns.take(slice(begin, begin + num_rows)))
            pairs = zip(self._reference, samples, strict=True)
            largest.append(max(self._change.distance(before, now) for before, now in pairs))
        return np.array(largest)


_VOCABULARY = tuple(VALUES)


def make_samples(columns: Columns) -> list[Sample]:
    """Make every feature ready to be compared."""
    codes = columns.codes.values()
    counted = [CategorySample(_VOCABULARY, np.bincount(each, minlength=len(VALUES))) for each in codes]
    return [*map(sort_numbers, columns.numbers.values()), *counted]


def find_threshold(largest: Sequence[Floats], num_alerts: int) -> float:
    """Give the smallest threshold that opens at most so many alerts: windows in a row at or above it are one."""
    chosen = np.inf
    for threshold in np.unique(np.concatenate(largest))[::-1]:
        above = [np.concatenate([[False], each >= threshold]) for each in largest]
        if sum(int((each[1:] & ~each[:-1]).sum()) for each in above) > num_alerts:
            break
        chosen = threshold
    return float(chosen)


def _tell_lost(found: Floats) -> str:
    """Say how many streams found nothing."""
    num_lost = int((found == NUM_DAYS_MAX * NUM_DAY_WINDOWS).sum())
    return f", {num_lost} not found" if num_lost else ""
