"""One model whose events are counted, tested and judged by the real code of stages 1 to 3, in memory.

What the monitor reads and writes in the store between the stages goes from hand to hand here: the summaries, and of the
tests what `store.measurements.read_drift` says of them (`rank_tests`). An integration test holds both equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa

from bench.shapes import VALUES, Columns, Shape
from measures.budget import DAY_MS
from schemas.clock import ManualClock
from schemas.columns import EventColumns, Kind
from schemas.events import Measurement
from schemas.inference import summarise_reference
from schemas.messages import MessageBatch
from schemas.spec import (
    Catalogue,
    DriftSpec,
    FalseAlarms,
    FeatureSpec,
    ModelSpec,
    PublishedSpec,
    ReferenceSource,
    WindowSpec,
    default_alerts,
    default_performance,
)
from schemas.texts import TextColumn
from schemas.validation import Validated
from store.measurements import TESTED_CATEGORY, TESTED_NUMBER, DriftRow
from store.summaries import Place, StoredPartition
from streams.comparing import Comparer
from streams.finding import list_spans
from streams.logic.alerts import Standing, Transition, advance
from streams.logic.distances import SampledRows
from streams.logic.drift_decisions import Window, decide_windows, group_by_window
from streams.logic.drift_tests import WindowCounts, count_windows, merge_counts
from streams.logic.measured import WindowContext
from streams.logic.partition import Partition
from streams.logic.rows import from_reference
from streams.references import References

MODEL, VERSION = "bench", "1"
TOPIC: Kind = "predictions"
RECORDS: Kind = "records"
TOPIC_ID = "00000000-0000-0000-0000-000000000001"
NUM_PARTITIONS = 2
# Windows are merged from a multiple of the week on.
START_MS = 2_900 * 7 * DAY_MS
LATEST_MS = 2 * START_MS
MONTH_MS = 30 * DAY_MS
# Tests keep their level from here on; the default of 100 would leave columns with nulls in small windows untested.
NUM_ROWS_MIN = 50
# The most that are merged.
NUM_MERGED_MAX = 24
# As far back as the judge reads.
NUM_JUDGED_WINDOWS = 200
# As `store.measurements`.
UNDECIDED = ("too_few_rows", "no_reference", "uncalibrated")
BELOW_ONE = 0.999


@dataclass(frozen=True, slots=True)
class Cell:
    """Streams of one shape: `num_rows` in each window of `size_ms`, and `num_reference` rows of reference."""

    shape: Shape
    num_rows: int
    size_ms: int
    num_reference: int
    rows: Literal["independent", "blocks"] = "independent"

    def __str__(self) -> str:
        unit = "a day" if self.size_ms == DAY_MS else "an hour"
        return f"{self.shape.name}, {self.num_rows:,} rows {unit}, reference of {self.num_reference:,}"


@dataclass(frozen=True, slots=True)
class Fired:
    """An alert that fires: under which budget, of which segment, at the end of which window."""

    budget: float
    segment: str
    window_end: int


class MemoryReferences(References):
    """One reference that is in memory already; the rest is as it is."""

    def __init__(self, rows: SampledRows) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # there is no store
        self._read = rows

    def read(self, published: PublishedSpec, reference_hash: str) -> SampledRows:
        """Return the reference's rows."""
        return self._read


class WatchedModel:
    """A model with a reference of its own, drawn first; `budgets` are false alerts a month, each judged by itself."""

    def __init__(self, cell: Cell, rng: np.random.Generator, budgets: Sequence[float] = (1.0,)) -> None:
        self.cell = cell
        self.reference = cell.shape.draw(rng, cell.num_reference)
        frame = frame_reference(cell, self.reference)
        published = publish(cell, frame)
        rows = SampledRows(from_reference(frame, cell.shape.segments), published.segment_values)
        self._comparer = Comparer(None, MemoryReferences(rows), ManualClock())  # type: ignore[arg-type]
        self._counter = EventCounter(published, cell)
        self._windows: dict[int, WindowCounts] = {}
        self._judges = {count: (set_budget(published, count), DriftJudge(cell.size_ms)) for count in budgets}

    def take(self, columns: Columns) -> list[Fired]:
        """Take in the rows of the next windows, all of each, and give the alerts that fire, in order."""
        counted = self._counter.count(columns)
        fired = []
        for start in sorted(counted):
            self._windows[start] = counted[start]
            for count, (published, judge) in self._judges.items():
                for segment, transition in judge.judge(self._test(published, start)):
                    if transition.state == "firing":
                        fired.append(Fired(count, segment, transition.window_end))
        oldest = max(self._windows) - NUM_MERGED_MAX * self.cell.size_ms
        self._windows = {start: each for start, each in self._windows.items() if start > oldest}
        return fired

    def is_open(self, budget: float) -> bool:
        """Say whether any alert is open."""
        return self._judges[budget][1].is_open

    def _test(self, published: PublishedSpec, newest: int) -> list[Measurement]:
        """Test a window, and the merged ones that end with it."""
        end = newest + self.cell.size_ms
        found: list[Measurement] = []
        for span_start, span_end, scale in list_spans(published, START_MS, LATEST_MS, {newest: ()}):
            if span_end == end:
                members = (each for start, each in self._windows.items() if span_start <= start < span_end)
                context = WindowContext(published, span_start, span_end, 1, 1, 0, scale=scale)
                found += self._comparer.compare_window(context, merge_counts(members), {})
        return found


class EventCounter:
    """Stage 1 on two partitions that get every second event."""

    def __init__(self, published: PublishedSpec, cell: Cell) -> None:
        self._published = published
        self._cell = cell
        self._catalogue = Catalogue()
        self._catalogue.add(published)
        self._num_taken = 0
        self._num_batches = 0
        self._partitions = [
            Partition.restore(Place(TOPIC, TOPIC_ID, index), TOPIC, StoredPartition(None), 0, self._catalogue)
            for index in range(NUM_PARTITIONS)
        ]

    def count(self, columns: Columns) -> dict[int, WindowCounts]:
        """Count the rows of the next windows, all of each; gives the counts by window start."""
        numbers = np.arange(self._num_taken, self._num_taken + len(columns))
        ts = place_rows(START_MS, numbers, self._cell)
        summaries = []
        for index, state in enumerate(self._partitions):
            rows = slice(index, None, NUM_PARTITIONS)
            events = make_events(columns.take(rows), numbers[rows], ts[rows], self._num_batches)
            batch = MessageBatch(TOPIC, TOPIC_ID, index, np.array([self._num_batches]), ts[-1:], [None])
            validated = Validated([events], num_events=events.num_rows)
            state.advance(state.compute(batch, validated, self._catalogue), self._num_batches + 1)
            taken = state.snapshot()
            assert not taken.dead, "no event of a stream is late"
            summaries += taken.rows()
            state.confirm(taken)
            state.forget_expired()
        self._num_taken += len(columns)
        self._num_batches += 1
        return count_windows(summaries, self._published, RECORDS)


class DriftJudge:
    """What `streams.judging.Judge` does with tests, for a model with one version and without a store."""

    def __init__(self, size_ms: int) -> None:
        self._size_ms = size_ms
        self._rows: dict[str, dict[Window, list[DriftRow]]] = {}
        self._standing: dict[str, Standing] = {}

    @property
    def is_open(self) -> bool:
        """Say whether any alert is open."""
        return any(each.state != "resolved" for each in self._standing.values())

    def judge(self, tested: Iterable[Measurement]) -> list[tuple[str, Transition]]:
        """Judge a window by all its tests, once each; gives the transitions with their segments."""
        found: list[tuple[str, Transition]] = []
        for window, rows in group_by_window(rank_tests(tested), self._size_ms).items():
            for row in rows:
                self._rows.setdefault(row.segment, {}).setdefault(window, []).append(row)
            oldest = window[0] - NUM_JUDGED_WINDOWS * self._size_ms
            for segment in sorted({row.segment for row in rows}):
                known = self._rows[segment] = {each: of for each, of in self._rows[segment].items() if each[0] > oldest}
                standing = self._standing.get(segment)
                is_open = standing is not None and standing.state != "resolved"
                if not is_open and all(row.ratio < 1.0 for row in known[window]):
                    continue  # nothing to open, nothing to resolve
                observed = [each.observation for each in decide_windows(known, standing)]
                for transition in advance(observed, standing):
                    found.append((segment, transition))
                    self._standing[segment] = Standing(
                        transition.state, transition.first_window_start, transition.window_start
                    )
        return found


def rank_tests(tested: Iterable[Measurement]) -> list[DriftRow]:
    """Give what `store.measurements.read_drift` says of these tests of counts; the last revision of each counts."""
    last: dict[tuple[int, int, str, str, str], Measurement] = {}
    for each in tested:
        if each.kind != "drift" or each.metric not in (TESTED_NUMBER, TESTED_CATEGORY):
            continue
        key = (each.window_end, each.window_start, each.segment, each.model_version, each.feature)
        known = last.get(key)
        if known is None or _rank_revision(each) > _rank_revision(known):
            last[key] = each
    by_source: dict[tuple[int, int, str, str], list[tuple[float, Measurement]]] = {}
    for each in last.values():
        if each.status not in UNDECIDED and np.isfinite(ratio := _compare(each)):
            source = (each.window_end, each.window_start, each.segment, each.model_version)
            by_source.setdefault(source, []).append((ratio, each))
    rows = []
    for source in sorted(by_source):
        ranked = sorted(by_source[source], key=lambda reading: (-reading[0], reading[1].feature))
        ratio, worst = ranked[0]
        rows.append(
            DriftRow(
                worst.window_start, worst.window_end, worst.segment, worst.model_version, worst.feature, worst.metric,
                np.nan if worst.value is None else worst.value,
                np.nan if worst.threshold is None else worst.threshold,
                ratio, sum(each >= 1.0 for each, _ in ranked), max(each.revision for _, each in ranked), worst.scale,
                max(each.num_rows for _, each in ranked), worst.p_value, worst.alpha,
            )
        )  # fmt: skip
    return rows


def _rank_revision(each: Measurement) -> tuple[int, int, int]:
    return each.spec_version, each.covered, each.revision


def _compare(each: Measurement) -> float:
    if each.alpha is not None and each.p_value is not None:
        ratio = each.alpha / max(each.p_value, 1e-300)
    elif each.value is not None and each.threshold:
        ratio = each.value / each.threshold
    else:
        return float("nan")
    return ratio if each.status == "alert" else min(ratio, BELOW_ONE)


def frame_reference(cell: Cell, reference: Columns) -> pd.DataFrame:
    """Give a reference as it is frozen; its rows end where the stream begins."""
    first_ms = START_MS - cell.num_reference // cell.num_rows * cell.size_ms
    texts = np.array([*VALUES, None], object)
    return pd.DataFrame(
        {
            "ts": place_rows(first_ms, np.arange(len(reference)), cell).astype("datetime64[ms]"),
            **reference.numbers,
            **{name: texts[codes] for name, codes in reference.codes.items()},
            "score": reference.score,
            "prediction": predict(reference),
        }
    )


def publish(cell: Cell, frame: pd.DataFrame) -> PublishedSpec:
    """Give the spec as `apply` publishes it for this reference."""
    features = {
        name: FeatureSpec(type="number" if name.startswith("number") else "category")
        for name in frame.columns.difference(["ts", "score", "prediction"])
    }
    spec = ModelSpec(
        model=MODEL, task="binary", reference=ReferenceSource(file="reference.parquet"), features=features,
        segments=list(cell.shape.segments), drift=DriftSpec(rows=cell.rows), alerts=default_alerts(),
        windows=WindowSpec(size_ms=cell.size_ms, lateness_ms=0, min_rows=NUM_ROWS_MIN, retention=2),
        performance=default_performance("binary"),
    )  # fmt: skip
    summary = summarise_reference(frame, spec, frame["score"].tolist(), frame["prediction"].tolist())
    return PublishedSpec(
        spec=spec, spec_version=1, effective_from=0, published_at=0, reference_hash="reference",
        reference_rows=len(frame), cuts=summary.cuts, categories=summary.categories,
        segment_values=summary.segment_values,
    )  # fmt: skip


def set_budget(published: PublishedSpec, count: float) -> PublishedSpec:
    """Give the same spec with so many false alerts a month."""
    spec = published.spec
    drift = msgspec.structs.replace(spec.drift, false_alarms=FalseAlarms(count, MONTH_MS))
    return msgspec.structs.replace(published, spec=msgspec.structs.replace(spec, drift=drift))


def predict(columns: Columns) -> np.ndarray:
    """Give the model's decisions."""
    return (columns.score >= 0.5).astype(np.float64)


def place_rows(first_ms: int, numbers: np.ndarray, cell: Cell) -> np.ndarray:
    """Give the instants of rows by number, spread evenly over their windows."""
    return first_ms + numbers * cell.size_ms // cell.num_rows


def make_events(columns: Columns, numbers: np.ndarray, ts: np.ndarray, offset: int) -> EventColumns:
    """Give rows as the predictions, features included, of one message."""
    size = len(columns)
    return EventColumns(
        kind=TOPIC, model=MODEL, offset=np.full(size, offset), row=np.arange(size, dtype=np.int32), ts=ts,
        record_id=TextColumn.of_arrow(pa.array(numbers).cast(pa.large_string())),
        model_version=TextColumn.repeat(VERSION, size), numbers=columns.numbers,
        texts={name: TextColumn.of_codes(codes, VALUES) for name, codes in columns.codes.items()},
        prediction=predict(columns), score=columns.score,
        has_features=np.ones(size, np.bool_),
    )  # fmt: skip
