"""Looks after one model at a time: finds the windows to test and to measure, stores and sends, has them judged.

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
from store.detectors import insert_detections, insert_state, read_fed_windows
from store.markers import read_sink_markers
from store.measurements import NUM_DRIFTED, insert_measurements
from store.summaries import WindowStamp, read_stamps
from store.windows import LabelCount, MeasuredWindow, read_label_counts
from streams.comparing import CompareTask
from streams.explaining import Explanation
from streams.finding import Found, LabelHint, WorkFinder, split_time
from streams.judging import Judge
from streams.logic.completeness import WindowState
from streams.measuring import (
    LabelTask,
    Measured,
    WindowTask,
    compare_windows,
    explain_window,
    measure_labels,
    measure_window,
)
from streams.outlet import Outlet
from streams.processes import ProcessPool

log = logging.getLogger(__name__)

Place = tuple[str, str, int]
Pace = Literal["idle", "waiting"]

_LONG_AGO_MS = -(2**62)

# A window of 50,000 rows, 50 features and 100 segments takes about half a minute on a slow machine.
_MEASURE_TIMEOUT_S = 300.0
_EXPLAIN_TIMEOUT_S = 60.0
# Short, so that a window that closes meanwhile is tested before this one is measured.
_SINK_TIMEOUT_S = 1.0
_SINK_POLL_S, _SINK_POLL_S_MAX = 0.05, 0.5

# Windows whose counts are tested by one call: of 50 features in 100 segments, each takes some 50 ms.
_NUM_TESTED_MAX = 64

# While windows were measured more may have come, often the labels of the window before; so it is asked once more.
_NUM_ROUNDS = 2


@dataclass(slots=True)
class _Seen:
    """Hints that save queries; lost without harm."""

    is_repeated: bool = False  # what an earlier process may have stored and not sent was sent again
    is_judged: bool = False  # nothing was measured since the last judgement
    labels: LabelHint = field(default_factory=LabelHint)
    next_end: int | None = _LONG_AGO_MS  # when the next merged window is complete, event time


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
        self._finder = WorkFinder(ch, job, topic_of, partitions, clock)
        self._seen: dict[str, _Seen] = {}

    def look(self, history: ModelHistory) -> Pace:
        """Measure and judge whatever is complete and new of a model, in the order of time.

        Returns `waiting` when something is known to be under way (the sink, stage 1, labels), so that the next look
        should come soon. Raises `Retryable` when something outside is away; the next look goes on.
        """
        seen = self._seen.setdefault(history.latest.model, _Seen())
        try:
            return self._look(history, seen)
        except BaseException:
            # A window may be measured, and its labels not: nothing but the labels says so, however old they are.
            seen.labels = LabelHint()
            # What was stored may not have been sent.
            seen.is_repeated = seen.is_judged = False
            raise

    def find_next_end(self, model: str) -> int | None:
        """Return when (event time, epoch ms) the model's next merged window is complete; None if there is none.

        Of a model that was not looked at yet this is not known: then it is long ago.
        """
        seen = self._seen.get(model)
        return _LONG_AGO_MS if seen is None else seen.next_end

    def forget(self, model: str) -> None:
        """Drop what is remembered of a model; the next look asks the store for everything."""
        self._seen.pop(model, None)

    def _look(self, history: ModelHistory, seen: _Seen) -> Pace:
        for _ in range(_NUM_ROUNDS):
            found = self._finder.find(history, seen.labels)
            seen.next_end = found.next_end
            newest = max((start for start, _ in found.measured), default=None)
            if not seen.is_judged and newest is not None:
                if not seen.is_repeated:
                    self._judge.repeat(history)
                    self._feed_errors(history)
                self._judge.judge(history, newest)
            seen.is_repeated = seen.is_judged = True
            for published, states in found.untested:
                seen.is_judged = False
                newest = max(states[-1].window_end - published.window_size_ms, newest or 0)
                self._test_counts(history, published, states, newest)
                seen.is_judged = True
            for start in found.starts:
                newest = start if newest is None else max(newest, start)
                seen.is_judged = False
                if self._stop.is_set() or not self._work_on(history, found, start):
                    return "waiting"
                self._judge.judge(history, newest)
                seen.is_judged = True
            # Only now: labels whose windows were not reached are to be found again.
            seen.labels = found.hint
            if not found.starts and not found.untested:
                return "waiting" if seen.labels.is_recent(self._clock.monotonic_s()) else "idle"
        return "waiting"

    def _test_counts(
        self, history: ModelHistory, published: PublishedSpec, states: Sequence[WindowState], newest_start: int
    ) -> None:
        """Test the counts of complete windows, and have them judged at once: nothing waits for the rows.

        1. store all but the markers;
        2. judge;
        3. send all, and wait for the log;
        4. store the markers: the windows are tested.
        A crash before 4 tests the windows again, with the same result under the same revision.
        """
        for first in range(0, len(states), _NUM_TESTED_MAX):
            chosen = tuple(states[first : first + _NUM_TESTED_MAX])
            task = CompareTask(encode_published(published), self._job, dict(self._topic_of), chosen)
            found = self._pool.run(_MEASURE_TIMEOUT_S, compare_windows, task)
            insert_measurements(self._ch, [each for each in found if each.metric != NUM_DRIFTED])
            self._judge.judge(history, newest_start)
            self._outlet.send("measurements", found, published.model)
            insert_measurements(self._ch, [each for each in found if each.metric == NUM_DRIFTED])

    def _work_on(self, history: ModelHistory, found: Found, start: int) -> bool:
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
                self._ch,
                published.model,
                windows.size_ms,
                windows.origin_ms,
                start,
                window.window_end,
                with_records=bool(published.spec.segments),
            )
            measured = {**found.measured, (start, window.window_end): MeasuredWindow(start, window.window_end, 0, 0, 0)}
            counts = self._finder.select_counts(published, fresh, measured)
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
        poll_s = _SINK_POLL_S
        deadline_s = self._clock.monotonic_s() + _SINK_TIMEOUT_S
        while True:
            markers = read_sink_markers(self._ch, {topic for topic, _, _ in needed})
            if all(markers.get(place, 0) >= stamp for place, stamp in needed.items()):
                return True
            if self._clock.monotonic_s() >= deadline_s or self._stop.wait(poll_s):
                return False
            # What is not there soon comes late, and asking costs the store.
            poll_s = min(2 * poll_s, _SINK_POLL_S_MAX)

    def _measure_window(self, published: PublishedSpec, window: WindowState, stamps: Sequence[WindowStamp]) -> None:
        task = WindowTask(
            published=encode_published(published),
            job=self._job,
            topic_of=dict(self._topic_of),
            window_start=window.window_start,
            window_end=window.window_end,
            covered=window.covered,
            revision=window.revision + 1,
            below=_list_ends(stamps),
        )
        self._record(published, self._pool.run(_MEASURE_TIMEOUT_S, measure_window, task))

    def _measure_labels(self, published: PublishedSpec, count: LabelCount) -> None:
        last = [
            each.revision
            for each in self._finder.read_measured_labels(published, count.window_start)
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
        for published, since, until in split_time(history):
            detectors = [each.detector for each in published.spec.online if each.on == "error"]
            if not detectors:
                continue
            fed = read_fed_windows(self._ch, published.model, "error")
            versions = {each.model_version for each in self._finder.read_measured_labels(published, since)}
            # Windows that all versions were fed need not be counted again.
            begin = max(since, min((fed.get(version, since) for version in versions), default=since))
            windows = published.spec.windows
            counts = read_label_counts(self._ch, published.model, windows.size_ms, windows.origin_ms, begin, until)
            for version in sorted(versions):
                mine = [each for each in counts if each.model_version == version]
                self._feed_version(published, fed.get(version), mine)

    def _feed_version(self, published: PublishedSpec, last_fed: int | None, counts: Sequence[LabelCount]) -> None:
        spec = published.spec
        coverage = spec.performance.min_label_coverage
        labelled = [each.window_start for each in counts if each.num_labels >= coverage * each.num_predictions]
        if not labelled:
            return
        given_up_ms = labelled[-1] - spec.windows.retention * spec.windows.size_ms
        for count in counts:
            if last_fed is not None and count.window_start <= last_fed:
                continue
            if count.window_start in labelled:
                task = _label_task(published, count, revision=1, feeds_only=True)
                self._record(published, self._pool.run(_MEASURE_TIMEOUT_S, measure_labels, task))
            elif count.window_start >= given_up_ms:
                return

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
            below=_list_ends(stamps),
        )
        return self._pool.run(_EXPLAIN_TIMEOUT_S, partial(explain_window, task, list(features)))


def _list_ends(stamps: Sequence[WindowStamp]) -> dict[str, dict[Place, int]]:
    """Give by version ('': inputs) and place the offset behind the last event that was counted."""
    ends: dict[str, dict[Place, int]] = {}
    for each in stamps:
        for version, stamp in each.stamps.items():
            ends.setdefault(version, {})[each.place.topic, each.place.topic_id, each.place.partition] = stamp
    return ends


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
