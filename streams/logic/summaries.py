"""What stage 1 knows of one window: integer counts, extremes and exact moments, which merge in any order. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.spec import ModelHistory, PublishedSpec
from store.summaries import SummaryRow
from streams.logic.exact_sums import pack_sum, to_fraction, unpack_sum
from streams.logic.layouts import CategoryField, Layout, NumberField, Part, lay_out

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NumberCounts:
    """A numeric feature in a window: `bins` int64[len(cuts)+1], bin i being (cuts[i-1], cuts[i]]."""

    name: str
    cuts: Floats
    bins: Ints
    num_null: int
    num_below: int
    num_above: int
    num_coerced: int
    min: float | None
    max: float | None
    mean: float | None
    variance: float | None  # of the window's rows, ddof 0

    @property
    def num_values(self) -> int:
        """The number of values that are not null."""
        return int(self.bins.sum())


@dataclass(frozen=True, slots=True)
class CategoryCounts:
    """A category feature in a window: `counts` int64[len(values)+1], the last being `__other__`."""

    name: str
    values: tuple[str, ...]
    counts: Ints
    num_null: int
    num_not_allowed: int
    num_coerced: int

    @property
    def num_values(self) -> int:
        """The number of values that are not null."""
        return int(self.counts.sum())


@dataclass(frozen=True, slots=True)
class PresenceCounts:
    """A text, embedding or image in a window."""

    name: str
    num_values: int
    num_null: int
    num_coerced: int


@dataclass(slots=True)
class Summary:
    """Counts of one (model, version, spec_version, segment, window); `counts` int64[layout.num_slots].

    `low` and `high` float64[numbers] are ±inf without values; `sums` has per number Σ(x-centre), then per number
    Σ(x-centre)², as integers in units of 2^-1074.
    """

    counts: Ints
    low: Floats
    high: Floats
    sums: list[int]
    num_rows: int = 0
    num_duplicates: int = 0
    num_late: int = 0

    @classmethod
    def empty(cls, layout: Layout) -> Summary:
        """Give the summary of no events."""
        size = len(layout.numbers)
        return cls(np.zeros(layout.num_slots, np.int64), np.full(size, np.inf), np.full(size, -np.inf), [0] * 2 * size)

    def copy(self) -> Summary:
        """Give one that does not change when this does."""
        return Summary(
            self.counts.copy(), self.low.copy(), self.high.copy(), list(self.sums),
            self.num_rows, self.num_duplicates, self.num_late,
        )  # fmt: skip

    def add(self, other: Summary) -> None:
        """Take in another summary of the same layout: associative and commutative, bit for bit."""
        self.counts += other.counts
        np.minimum(self.low, other.low, out=self.low)
        np.maximum(self.high, other.high, out=self.high)
        self.sums = [a + b for a, b in zip(self.sums, other.sums, strict=True)]
        self.num_rows += other.num_rows
        self.num_duplicates += other.num_duplicates
        self.num_late += other.num_late

    def encode(self) -> bytes:
        """Give the state that a summary row keeps."""
        sums = [pack_sum(total) for total in self.sums]
        # + 0.0 turns -0.0 into 0.0: which of the two a minimum gives depends on the order.
        low, high = self.low + 0.0, self.high + 0.0
        return msgspec.msgpack.encode((self.counts.tolist(), low.tobytes(), high.tobytes(), sums))

    @classmethod
    def decode(cls, state: bytes, num_rows: int, num_duplicates: int, num_late: int) -> Summary:
        """Undo `encode`; msgspec.DecodeError if `state` is none."""
        counts, low, high, sums = _DECODER.decode(state)
        return cls(
            np.array(counts, np.int64),
            np.frombuffer(low, np.float64).copy(),
            np.frombuffer(high, np.float64).copy(),
            [unpack_sum(odd, exponent) for odd, exponent in sums],
            num_rows,
            num_duplicates,
            num_late,
        )


_DECODER = msgspec.msgpack.Decoder(tuple[list[int], bytes, bytes, list[tuple[bytes, int]]])


def decode_counts(state: bytes) -> Ints:
    """Give the counts alone of what `Summary.encode` gave; msgspec.DecodeError if `state` is none."""
    return np.array(_DECODER.decode(state)[0], np.int64)


@dataclass(slots=True)
class Merged:
    """One summary over all partitions of a topic, with the spec version that says what its counts mean."""

    topic: str
    part: Part
    model: str
    model_version: str
    segment: str
    window_start: int
    window_end: int
    published: PublishedSpec
    summary: Summary
    stamps: dict[tuple[str, str, int], int] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """The number of events that counted."""
        return self.summary.num_rows

    def numbers(self) -> list[NumberCounts]:
        """Give the numeric features."""
        layout = lay_out(self.published, self.part)
        return [_read_number(self.summary, layout, index) for index in range(len(layout.numbers))]

    def categories(self) -> list[CategoryCounts]:
        """Give the category features."""
        layout = lay_out(self.published, self.part)
        return [_read_category(self.summary, layout, f) for f in layout.categories]

    def presences(self) -> list[PresenceCounts]:
        """Give the features that are only there or not."""
        layout = lay_out(self.published, self.part)
        found = []
        for f in layout.presences:
            slots = (f.slot, f.slot + 1, layout.coerced_slots[f.name])
            num_values, num_null, num_coerced = (int(self.summary.counts[slot]) for slot in slots)
            found.append(PresenceCounts(f.name, num_values, num_null, num_coerced))
        return found


def part_of(model_version: str) -> Part:
    """Tell whether a summary is of inputs or of outputs."""
    return "outputs" if model_version else "inputs"


def merge_rows(rows: Iterable[SummaryRow], history: ModelHistory) -> list[Merged]:
    """Merge the partitions' summaries of one model's windows: one per (topic, version, spec, segment, window).

    Topics stay apart: inputs are counted from one source only. Rows of a spec version that is no longer known are
    left out; those windows are measured from the stored rows.
    """
    published = {version.spec_version: version for version in history.versions}
    merged: dict[tuple[str, str, int, str, int], Merged] = {}
    for row in rows:
        if row.spec_version not in published:
            continue
        summary = Summary.decode(row.state, row.num_rows, row.num_duplicates, row.num_late)
        key = (row.place.topic, row.model_version, row.spec_version, row.segment, row.window_start)
        known = merged.get(key)
        if known is None:
            known = merged[key] = Merged(
                row.place.topic, part_of(row.model_version), row.model, row.model_version, row.segment,
                row.window_start, row.window_end, published[row.spec_version], summary,
            )  # fmt: skip
        else:
            known.summary.add(summary)
        known.stamps[row.place.topic, row.place.topic_id, row.place.partition] = row.stamp
    return [merged[key] for key in sorted(merged)]


def _read_number(summary: Summary, layout: Layout, index: int) -> NumberCounts:
    f: NumberField = layout.numbers[index]
    bins = summary.counts[f.slot : f.slot + f.num_bins]
    num_null, num_below, num_above = summary.counts[f.slot + f.num_bins : f.slot + f.num_slots].tolist()
    n = int(bins.sum())
    mean = variance = None
    if n:
        first = to_fraction(summary.sums[index]) / n
        second = to_fraction(summary.sums[index + len(layout.numbers)]) / n
        mean, variance = f.centre + float(first), max(0.0, float(second - first * first))
    low, high = float(summary.low[index]), float(summary.high[index])
    return NumberCounts(
        f.name, f.cuts, bins, num_null, num_below, num_above, int(summary.counts[layout.coerced_slots[f.name]]),
        low if math.isfinite(low) else None, high if math.isfinite(high) else None, mean, variance,
    )  # fmt: skip


def _read_category(summary: Summary, layout: Layout, f: CategoryField) -> CategoryCounts:
    size = len(f.values) + 1
    num_null, num_not_allowed = summary.counts[f.slot + size : f.slot + f.num_slots].tolist()
    num_coerced = int(summary.counts[layout.coerced_slots[f.name]])
    counts = summary.counts[f.slot : f.slot + size]
    return CategoryCounts(f.name, f.values, counts, num_null, num_not_allowed, num_coerced)
