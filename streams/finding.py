"""Finds the windows that are to be measured: what is complete and new, by what the store says alone."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.clock import Clock
from schemas.spec import ModelHistory, PublishedSpec
from store.client import ClickHouse
from store.dead_letters import read_late_ends
from store.markers import Place, read_sink_markers
from store.summaries import Marker, WindowStamp, read_markers, read_stamps
from store.windows import (
    LabelCount,
    MeasuredLabels,
    MeasuredWindow,
    read_label_counts,
    read_last_label_at,
    read_measured_labels,
    read_measured_windows,
    read_tested_windows,
)
from streams.logic.completeness import PartitionTime, WindowState, find_horizon, select_dirty
from streams.logic.significance import find_budget
from streams.logic.watermarks import list_sources

# A label's time of storing is taken when its insert begins, so one may appear later than a newer one.
LABEL_OVERLAP_MS = 60_000

# DateTime64(3) begins in 1900.
_EARLIEST_MS = -2_208_988_800_000
_LATEST_MS = 253_402_300_799_000


@dataclass(slots=True)
class LabelHint:
    """Up to when (the store's clock) labels were dealt with, and when (monotonic) that was seen first.

    And up to which places (`late_ends`) what came too late: no summary tells of it, but it is stored, and measured with
    the labels as any other. It saves reading all labels each time, and is lost without harm.
    """

    label_at: int | None = None
    seen_s: float = 0.0
    late_ends: Mapping[Place, int] = field(default_factory=dict)

    def is_recent(self, now_s: float) -> bool:
        """Say whether labels came lately, so that more may come, or appear, at any moment."""
        return self.label_at is not None and now_s - self.seen_s <= LABEL_OVERLAP_MS / 1000


@dataclass(frozen=True, slots=True)
class Found:
    """What the store says of a model's windows: by start, the stamps of all, and the label counts to be measured.

    `untested` are the windows, single and merged, whose counts are to be tested, by spec; `next_end` is the end of the
    first merged window that is not complete (epoch ms; None without any).
    """

    dirty: list[WindowState]
    untested: list[tuple[PublishedSpec, list[WindowState]]]
    next_end: int | None
    stamps: Mapping[int, list[WindowStamp]]
    measured: Mapping[tuple[int, int], MeasuredWindow]
    counts: Mapping[int, list[LabelCount]]
    hint: LabelHint

    @property
    def starts(self) -> list[int]:
        """The windows in which there is anything to do, in order."""
        return sorted({each.window_start for each in self.dirty} | set(self.counts))


class WorkFinder:
    """Asks the store; safe for several threads."""

    def __init__(
        self,
        ch: ClickHouse,
        job: str,
        topic_of: Mapping[str, str],
        partitions: Callable[[], Mapping[tuple[str, str], int]],
        clock: Clock,
    ) -> None:
        """`topic_of` names the topics; `partitions` gives the sizes of the present ones by (topic, topic_id)."""
        self._ch = ch
        self._job = job
        self._topic_of = topic_of
        self._partitions = partitions
        self._clock = clock

    def find(self, history: ModelHistory, hint: LabelHint) -> Found:
        """Return what is to be done now; `hint` says which labels were dealt with, the one found what it is then."""
        model = history.latest.model
        sizes = self._partitions()
        # Before the summaries: what is flushed in between looks unconfirmed, and is asked for again.
        markers = read_markers(self._ch, self._job, model=model)
        stamps: dict[int, list[WindowStamp]] = {}
        for stamp in read_stamps(self._ch, self._job, model, markers=markers):
            published = history.in_force(stamp.window_start)
            # Counted under a spec that is not in force there: of no use.
            if stamp.window_end == stamp.window_start + published.window_size_ms:
                stamps.setdefault(stamp.window_start, []).append(stamp)
        measured = read_measured_windows(self._ch, model, _EARLIEST_MS)
        states = []
        for start, parts in stamps.items():
            end, covered = parts[0].window_end, sum(each.stamp for each in parts)
            states.append(_make_state(history.in_force(start), start, end, covered, measured.get((start, end))))
        horizon_ms = find_model_horizon(history, markers, sizes)
        untested, next_end = self._find_untested(history, stamps, horizon_ms)
        counts, hint = self._find_labels(history, measured, hint)
        return Found(select_dirty(states, horizon_ms), untested, next_end, stamps, measured, counts, hint)

    def _find_untested(
        self, history: ModelHistory, stamps: Mapping[int, list[WindowStamp]], horizon_ms: int | None
    ) -> tuple[list[tuple[PublishedSpec, list[WindowState]]], int | None]:
        """Return, by spec, the complete windows whose counts were not tested, and when the next merged one will end."""
        by_spec = [
            (published, list_spans(published, begin, end, stamps)) for published, begin, end in split_time(history)
        ]
        first = min((start for _, spans in by_spec for start, _, _ in spans), default=None)
        if first is None:
            return [], None
        tested = read_tested_windows(self._ch, history.latest.model, first)
        found: list[tuple[PublishedSpec, list[WindowState]]] = []
        ends = []
        for published, spans in by_spec:
            states = []
            for (start, end, scale), members in spans.items():
                last = tested.get((start, end))
                covered = sum(each.stamp for each in members)
                if scale > 1 and (horizon_ms is None or end > horizon_ms):
                    ends.append(end)
                # While a flush is under way, its rows may disagree.
                elif all(each.is_confirmed for each in members):
                    states.append(_make_state(published, start, end, covered, last, scale))
            if dirty := select_dirty(states, horizon_ms):
                found.append((published, dirty))
        return found, min(ends, default=None)

    def _find_labels(
        self, history: ModelHistory, measured: Mapping[tuple[int, int], MeasuredWindow], hint: LabelHint
    ) -> tuple[dict[int, list[LabelCount]], LabelHint]:
        """Return, of measured windows, the versions whose predictions and labels exceed their last measurement.

        And what is then dealt with.
        """
        model = history.latest.model
        last_at = read_last_label_at(self._ch, model)
        if last_at is None or not measured:
            return {}, LabelHint()
        found_ends = find_late_ends(self._ch, self._topic_of, self._partitions(), {model: history})
        late_ends = found_ends.get(model, hint.late_ends)
        is_old = late_ends == hint.late_ends
        if is_old and last_at == hint.label_at and not hint.is_recent(self._clock.monotonic_s()):
            return {}, hint
        since = None if hint.label_at is None or not is_old else hint.label_at - LABEL_OVERLAP_MS
        found: dict[int, list[LabelCount]] = {}
        for published, start, end in split_time(history):
            windows = published.spec.windows
            counts = read_label_counts(
                self._ch,
                model,
                windows.size_ms,
                windows.origin_ms,
                start,
                end,
                since,
                with_records=bool(published.spec.segments),
            )
            for count in self.select_counts(published, counts, measured):
                found.setdefault(count.window_start, []).append(count)
        seen_s = hint.seen_s if last_at == hint.label_at else self._clock.monotonic_s()
        return found, LabelHint(last_at, seen_s, late_ends)

    def select_counts(
        self,
        published: PublishedSpec,
        counts: Sequence[LabelCount],
        measured: Mapping[tuple[int, int], MeasuredWindow],
    ) -> list[LabelCount]:
        """Return, of measured windows, the counts that exceed what was last measured with labels."""
        if not counts:
            return []
        since = min(each.window_start for each in counts)
        known = {
            (each.window_start, each.model_version): each.covered
            for each in self.read_measured_labels(published, since)
        }
        return [
            each
            for each in counts
            if each.num_labels > 0
            and (each.window_start, each.window_start + published.window_size_ms) in measured
            and each.covered > known.get((each.window_start, each.model_version), 0)
        ]

    def read_measured_labels(self, published: PublishedSpec, since_ms: int) -> list[MeasuredLabels]:
        """Return the last measurements with labels of the windows since then."""
        return read_measured_labels(self._ch, published.model, published.spec.performance.metrics[0], since_ms)


def _make_state(
    published: PublishedSpec, start: int, end: int, covered: int, last: MeasuredWindow | None, scale: int = 1
) -> WindowState:
    """Join what is counted of a window with its last measurement, which is of use under the same spec only."""
    known = last is not None and last.spec_version == published.spec_version
    return WindowState(
        start,
        end,
        published.spec_version,
        covered,
        last.covered if last is not None and known else None,
        0 if last is None else last.revision,
        scale,
    )


def list_spans(
    published: PublishedSpec, begin_ms: int, end_ms: int, stamps: Mapping[int, Sequence[WindowStamp]]
) -> dict[tuple[int, int, int], list[WindowStamp]]:
    """Return the windows that a spec tests, (start, end, number of windows in it), with the stamps of what is in them.

    Only those that lie in the interval in which the spec is in force; none where a fixed threshold decides.
    """
    spans: dict[tuple[int, int, int], list[WindowStamp]] = {}
    if (budget := find_budget(published)) is None:
        return spans
    for window_start, members in stamps.items():
        for scale in budget.scales if begin_ms <= window_start < end_ms else ():
            start, end = budget.span(window_start, scale)
            if begin_ms <= start and end <= end_ms:
                spans.setdefault((start, end, scale), []).extend(members)
    return spans


def find_model_horizon(
    history: ModelHistory, markers: Iterable[Marker], sizes: Mapping[tuple[str, str], int]
) -> int | None:
    """Return the instant (epoch ms) before which all of a model's time has passed; None while nothing can be said.

    `sizes` gives the present topics' sizes by (topic, topic_id); other topics' markers count for nothing.
    """
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


def find_late_ends(
    ch: ClickHouse,
    topic_of: Mapping[str, str],
    present: Container[tuple[str, str]],
    histories: Mapping[str, ModelHistory],
) -> dict[str, dict[Place, int]]:
    """Return up to where events came too late that realized performance rests on, of models of which all is stored.

    These are predictions, and of models with segments records, which say what segment a prediction belongs to.
    """
    topics = [topic_of["records"], topic_of["predictions"]]
    found = read_late_ends(ch, topics, next(iter(histories)) if len(histories) == 1 else None)
    stored = read_sink_markers(ch, topics) if found else {}
    late_ends = {}
    for model, ends in found.items():
        history = histories.get(model)
        if history is None:
            continue
        if not any(published.spec.segments for published in history.versions):
            ends = {place: end for place, end in ends.items() if place[0] == topic_of["predictions"]}
        if all(stored.get(place, 0) >= end for place, end in ends.items() if place[:2] in present):
            late_ends[model] = ends
    return late_ends


def split_time(history: ModelHistory) -> list[tuple[PublishedSpec, int, int]]:
    """Return each spec version with the interval in which it is in force; the first from the beginning of time."""
    versions = history.versions
    starts = [_EARLIEST_MS, *(each.effective_from for each in versions[1:])]
    ends = [*starts[1:], _LATEST_MS]
    return [(each, start, end) for each, start, end in zip(versions, starts, ends, strict=True) if start < end]
