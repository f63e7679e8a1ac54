"""Looks after one model at a time: finds the windows to measure, has them measured, stores and sends, has them judged.

Nothing is remembered that could not be read again: what is to be done is asked of the store, so a look can be taken at
any time, by anyone, and be broken off anywhere. Everything here blocks; it runs in threads beside Faust's event loop.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from schemas.clock import Clock
from schemas.events import Measurement
from schemas.spec import ModelHistory, PublishedSpec, encode_published
from store.client import ClickHouse
from store.detectors import DetectorKey, insert_detections, insert_state, read_last_state
from store.markers import read_sink_markers
from store.measurements import insert_measurements
from store.summaries import WindowStamp, read_markers, read_stamps
from store.windows import (
    LabelCount,
    MeasuredLabels,
    MeasuredWindow,
    read_label_counts,
    read_last_label_at,
    read_measured_labels,
    read_measured_windows,
)
from streams.judging import Judge
from streams.logic.completeness import PartitionTime, WindowState, find_horizon, select_dirty
from streams.logic.watermarks import list_sources
from streams.measuring import (
    Explanation,
    LabelTask,
    Measured,
    WindowTask,
    explain_window,
    measure_labels,
    measure_window,
)
from streams.outlet import Outlet
from streams.processes import ProcessPool

log = logging.getLogger(__name__)

Place = tuple[str, str, int]
Pace = Literal["idle", "waiting"]

# A window of 50,000 rows, 50 features and 100 segments takes about half a minute on a slow machine.
_MEASURE_TIMEOUT_S = 300.0
_EXPLAIN_TIMEOUT_S = 60.0
_SINK_TIMEOUT_S = 5.0
_SINK_POLL_S = 0.05

# A label's time of storing is taken when its insert begins, so one may appear later than a newer one.
_LABEL_OVERLAP_MS = 60_000

# DateTime64(3) begins in 1900.
_EARLIEST_MS = -2_208_988_800_000
_LATEST_MS = 253_402_300_799_000


@dataclass(slots=True)
class _Seen:
    """Hints that save queries; lost without harm."""

    is_repeated: bool = False  # what an earlier process may have stored and not sent was sent again
    is_judged: bool = False  # nothing was measured since the last judgement
    label_at: int | None = None
    label_seen_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Found:
    """What the store says of a model's windows."""

    dirty: list[WindowState]
    stamps: Mapping[int, list[WindowStamp]]
    measured: Mapping[tuple[int, int], MeasuredWindow]
    counts: Mapping[int, list[LabelCount]] = field(default_factory=dict)


class Monitor:
    """Stages 2 and 3 for any model; each model by one thread at a time."""

    def __init__(
        self,
        ch: ClickHouse,
        job: str,
        topic_of: Mapping[str, str],
        pool: ProcessPool,
        outlet: Outlet,
        judge: Callable[[Callable[..., list[Explanation]]], Judge],
        partitions: Callable[[], Mapping[tuple[str, str], int]],
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        """`topic_of` maps `records`, `predictions` and `labels` to their names; `partitions` gives the present topics'
        sizes by (topic, topic_id); `judge` makes the judge, given what explains a window."""
        self._ch = ch
        self._job = job
        self._topic_of = topic_of
        self._pool = pool
        self._outlet = outlet
        self._judge = judge(self._explain)
        self._partitions = partitions
        self._clock = clock
        self._stop = stop
        self._seen: dict[str, _Seen] = {}

    def look(self, history: ModelHistory) -> Pace:
        """Measure and judge whatever is complete and new of a model, in the order of time.

        Returns `waiting` when something is known to be under way (the sink, stage 1, labels), so that the next look
        should come soon. Raises `Retryable` when something outside is away; the next look goes on.
        """
        model = history.latest.model
        seen = self._seen.setdefault(model, _Seen())
        found = self._find(history, seen)
        newest = max((start for start, _ in found.measured), default=None)
        if not seen.is_judged and newest is not None:
            if not seen.is_repeated:
                self._judge.repeat(history)
                self._feed_errors(history)
            self._judge.judge(history, newest)
        seen.is_repeated = seen.is_judged = True
        for start in sorted({each.window_start for each in found.dirty} | set(found.counts)):
            if self._stop.is_set():
                return "waiting"
            seen.is_judged = False
            if not self._work_on(history, found, start):
                return "waiting"
            newest = start if newest is None else max(newest, start)
            self._judge.judge(history, newest)
            seen.is_judged = True
        return "waiting" if self._awaits_labels(history, found, seen) else "idle"

    def _find(self, history: ModelHistory, seen: _Seen) -> _Found:
        model = history.latest.model
        stamps: dict[int, list[WindowStamp]] = {}
        for stamp in read_stamps(self._ch, self._job, model):
            published = history.in_force(stamp.window_start)
            # Counted under a spec that is not in force there: of no use.
            if stamp.window_end == stamp.window_start + published.window_size_ms:
                stamps.setdefault(stamp.window_start, []).append(stamp)
        measured = read_measured_windows(self._ch, model, _EARLIEST_MS)
        states = []
        for start, parts in stamps.items():
            published = history.in_force(start)
            last = measured.get((start, parts[0].window_end))
            known = last is not None and last.spec_version == published.spec_version
            states.append(
                WindowState(
                    start,
                    parts[0].window_end,
                    published.spec_version,
                    sum(each.stamp for each in parts),
                    last.covered if last is not None and known else None,
                    0 if last is None else last.revision,
                )
            )
        dirty = select_dirty(states, self._find_horizon(history))
        return _Found(dirty, stamps, measured, self._find_labels(history, measured, seen))

    def _find_horizon(self, history: ModelHistory) -> int | None:
        sizes = self._partitions()
        markers = read_markers(self._ch, self._job, {topic for topic, _ in sizes})
        latest = history.latest
        partitions = [
            PartitionTime(
                each.place.topic,
                each.place.topic_id,
                each.place.partition,
                each.at_end_at,
                list_sources(each.watermarks, latest.model),
            )
            for each in markers
        ]
        return find_horizon(partitions, sizes, latest.published_at, latest.spec.windows.idle_ms)

    def _find_labels(
        self, history: ModelHistory, measured: Mapping[tuple[int, int], MeasuredWindow], seen: _Seen
    ) -> dict[int, list[LabelCount]]:
        """Return, of measured windows, the versions whose predictions and labels exceed their last measurement."""
        model = history.latest.model
        last_at = read_last_label_at(self._ch, model)
        now_s = self._clock.monotonic_s()
        if last_at is None or not measured:
            return {}
        is_new = last_at != seen.label_at
        if not is_new and now_s - seen.label_seen_s > _LABEL_OVERLAP_MS / 1000:
            return {}
        since = None if seen.label_at is None else seen.label_at - _LABEL_OVERLAP_MS
        found: dict[int, list[LabelCount]] = {}
        for published, start, end in _split_time(history):
            windows = published.spec.windows
            counts = read_label_counts(self._ch, model, windows.size_ms, windows.origin_ms, start, end, since)
            for count in self._select_counts(published, counts, measured):
                found.setdefault(count.window_start, []).append(count)
        if is_new:
            seen.label_at, seen.label_seen_s = last_at, now_s
        return found

    def _select_counts(
        self,
        published: PublishedSpec,
        counts: Sequence[LabelCount],
        measured: Mapping[tuple[int, int], MeasuredWindow],
    ) -> list[LabelCount]:
        if not counts:
            return []
        since = min(each.window_start for each in counts)
        known = {
            (each.window_start, each.model_version): each.covered
            for each in self._read_measured_labels(published, since)
        }
        return [
            each
            for each in counts
            if each.num_labels > 0
            and (each.window_start, each.window_start + published.window_size_ms) in measured
            and each.covered > known.get((each.window_start, each.model_version), 0)
        ]

    def _read_measured_labels(self, published: PublishedSpec, since_ms: int) -> list[MeasuredLabels]:
        return read_measured_labels(self._ch, published.model, published.spec.performance.metrics[0], since_ms)

    def _work_on(self, history: ModelHistory, found: _Found, start: int) -> bool:
        """Measure one window, first what needs no labels; false if it has to wait."""
        published = history.in_force(start)
        window = next((each for each in found.dirty if each.window_start == start), None)
        counts: Sequence[LabelCount] = found.counts.get(start, [])
        if window is not None:
            stamps = found.stamps[start]
            if not all(each.is_confirmed for each in stamps) or not self._wait_for_sink(stamps):
                return False
            self._measure_window(published, window, stamps)
            # Predictions may have come that join labels stored long ago.
            windows = published.spec.windows
            fresh = read_label_counts(
                self._ch, published.model, windows.size_ms, windows.origin_ms, start, window.window_end
            )
            measured = {**found.measured, (start, window.window_end): MeasuredWindow(start, window.window_end, 0, 0, 0)}
            counts = self._select_counts(published, fresh, measured)
        for count in counts:
            self._measure_labels(published, count)
        if counts:
            self._feed_errors(history)
        return True

    def _wait_for_sink(self, stamps: Sequence[WindowStamp]) -> bool:
        """Wait until everything that the summaries counted is stored; places of deleted topics are not waited for."""
        present = self._partitions()
        needed = {
            (each.place.topic, each.place.topic_id, each.place.partition): each.stamp
            for each in stamps
            if (each.place.topic, each.place.topic_id) in present
        }
        deadline_s = self._clock.monotonic_s() + _SINK_TIMEOUT_S
        while True:
            markers = read_sink_markers(self._ch, {topic for topic, _, _ in needed})
            if all(markers.get(place, 0) >= stamp for place, stamp in needed.items()):
                return True
            if self._clock.monotonic_s() >= deadline_s or self._stop.wait(_SINK_POLL_S):
                return False

    def _measure_window(self, published: PublishedSpec, window: WindowState, stamps: Sequence[WindowStamp]) -> None:
        task = WindowTask(
            published=encode_published(published),
            job=self._job,
            topic_of=dict(self._topic_of),
            window_start=window.window_start,
            window_end=window.window_end,
            covered=window.covered,
            revision=window.revision + 1,
            below={(each.place.topic, each.place.topic_id, each.place.partition): each.stamp for each in stamps},
        )
        self._record(published, self._pool.run(_MEASURE_TIMEOUT_S, measure_window, task))

    def _measure_labels(self, published: PublishedSpec, count: LabelCount) -> None:
        last = [
            each.revision
            for each in self._read_measured_labels(published, count.window_start)
            if (each.window_start, each.model_version) == (count.window_start, count.model_version)
        ]
        task = _label_task(published, count, revision=max(last, default=0) + 1)
        self._record(published, self._pool.run(_MEASURE_TIMEOUT_S, measure_labels, task))

    def _record(self, published: PublishedSpec, measured: Measured) -> None:
        """Store and send what a window gave.

        1. store its measurements and detections, all but the marker;
        2. send all of them, marker included, and wait for the log;
        3. store the detectors' states: what is in them will not be fed again;
        4. store the marker: the window is measured.
        A crash before 4 measures the window again, with the same result under the same revision.
        """
        for feed in measured.feeds:
            insert_detections(self._ch, feed.key, feed.detections)
        insert_measurements(self._ch, measured.measurements)
        markers: list[Measurement] = [] if measured.marker is None else [measured.marker]
        if measured.measurements or markers:
            self._outlet.send("measurements", [*measured.measurements, *markers], published.model)
        for feed in measured.feeds:
            insert_state(self._ch, feed.key, feed.state)
        insert_measurements(self._ch, markers)

    def _feed_errors(self, history: ModelHistory) -> None:
        """Feed error detectors the windows that are labelled, in order, stopping at the first that still waits.

        A window without labels holds the later ones back until it is past its retention.
        """
        for published, since, until in _split_time(history):
            detectors = [each.detector for each in published.spec.online if each.on == "error"]
            if not detectors:
                continue
            windows = published.spec.windows
            counts = read_label_counts(self._ch, published.model, windows.size_ms, windows.origin_ms, since, until)
            versions = {each.model_version for each in counts}
            for version in sorted(versions):
                self._feed_version(published, detectors[0], [each for each in counts if each.model_version == version])

    def _feed_version(self, published: PublishedSpec, detector: str, counts: Sequence[LabelCount]) -> None:
        last = read_last_state(self._ch, DetectorKey(published.model, counts[0].model_version, detector, "error"))
        spec = published.spec
        labelled = [
            each for each in counts if each.num_labels >= spec.performance.min_label_coverage * each.num_predictions
        ]
        for count in counts:
            if last is not None and count.window_start <= last.window_start:
                continue
            if count not in labelled:
                horizon = labelled[-1].window_start - spec.windows.retention * spec.windows.size_ms if labelled else 0
                if not labelled or count.window_start >= horizon:
                    return
                continue
            task = _label_task(published, count, revision=1, feeds_only=True)
            self._record(published, self._pool.run(_MEASURE_TIMEOUT_S, measure_labels, task))

    def _awaits_labels(self, history: ModelHistory, found: _Found, seen: _Seen) -> bool:
        """Say whether labels came lately, so that more are to be expected at any moment."""
        return seen.label_at is not None and self._clock.monotonic_s() - seen.label_seen_s < _LABEL_OVERLAP_MS / 1000

    def _explain(self, published: PublishedSpec, start: int, end: int, features: Sequence[str]) -> list[Explanation]:
        stamps = [
            each for each in read_stamps(self._ch, self._job, published.model, start) if each.window_start == start
        ]
        task = WindowTask(
            published=encode_published(published),
            job=self._job,
            topic_of=dict(self._topic_of),
            window_start=start,
            window_end=end,
            covered=0,
            revision=0,
            below={(each.place.topic, each.place.topic_id, each.place.partition): each.stamp for each in stamps},
        )
        return self._pool.run(_EXPLAIN_TIMEOUT_S, partial(explain_window, task, list(features)))


def _label_task(published: PublishedSpec, count: LabelCount, *, revision: int, feeds_only: bool = False) -> LabelTask:
    return LabelTask(
        published=encode_published(published),
        window_start=count.window_start,
        window_end=count.window_start + published.window_size_ms,
        model_version=count.model_version,
        covered=count.covered,
        revision=revision,
        label_coverage=count.num_labels / count.num_predictions,
        num_predictions=count.num_predictions,
        feeds_only=feeds_only,
    )


def _split_time(history: ModelHistory) -> list[tuple[PublishedSpec, int, int]]:
    """Return each spec version with the interval in which it is in force; the first from the beginning of time."""
    versions = history.versions
    starts = [_EARLIEST_MS, *(each.effective_from for each in versions[1:])]
    ends = [*starts[1:], _LATEST_MS]
    return [(each, start, end) for each, start, end in zip(versions, starts, ends, strict=True) if start < end]
