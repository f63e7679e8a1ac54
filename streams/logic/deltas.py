"""What one batch adds to one partition's state, worked out without changing that state. Pure.

Everything follows from the log in its order: the watermark before each event says what is too late, the memory says
what is a duplicate, and only then is counted, in columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.columns import EventColumns
from schemas.events import DeadLetter
from schemas.identity import hash_ids
from schemas.instants import format_instant
from schemas.messages import MessageBatch
from schemas.spec import Catalogue, ModelHistory, PublishedSpec
from schemas.validation import Validated
from store.summaries import IdBlock
from streams.logic.counts import CodedRows, code_rows, code_values, count_groups
from streams.logic.dedup import SeenIds
from streams.logic.layouts import OTHER, Part, lay_out
from streams.logic.summaries import Summary
from streams.logic.watermarks import EVERY_VERSION, INPUTS, Watermarks, run_watermark
from streams.logic.windows import Assignment, assign_windows

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

STAGE = "count"


class GroupKey(NamedTuple):
    """What one summary is about."""

    model: str
    model_version: str
    spec_version: int
    segment: str
    window_start: int
    window_end: int
    expires_at: int


class Raise(NamedTuple):
    """A version's watermark after the batch, and the Kafka timestamp of its last message."""

    model: str
    version: str
    watermark_ms: int
    last_append_ms: int


@dataclass(slots=True)
class Delta:
    """What a batch adds; `ids` are in log order."""

    additions: list[tuple[GroupKey, Summary]] = field(default_factory=list)
    ids: list[IdBlock] = field(default_factory=list)
    raises: list[Raise] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    closed: set[tuple[str, str, int]] = field(default_factory=set)  # (model, version, window_start): closed or changed
    num_events: int = 0
    num_late_inputs: int = 0  # predictions that counted, but whose features came too late to count


@dataclass(frozen=True, slots=True)
class Known:
    """The state that a batch meets: `seen` by (model, version); `held_below` says which offsets a group has already."""

    watermarks: Watermarks
    seen: Callable[[str, str], SeenIds]
    held_below: Callable[[GroupKey], int]
    replay_until: int


def compute_delta(validated: Validated, batch: MessageBatch, catalogue: Catalogue, known: Known) -> Delta:
    """Give what the valid events of a batch add to a partition."""
    delta = Delta(dead=list(validated.dead), num_events=validated.num_events)
    raised: dict[str, list[tuple[int, int]]] = {}
    for offset, model, ms in validated.watermarks:
        raised.setdefault(model, []).append((offset, ms))
    for columns in validated.columns:
        history = catalogue.get(columns.model)
        assert history is not None, "only events of known models are valid"
        _Counting(columns, history, batch, known, raised.get(columns.model, []), delta).run()
    for model, messages in raised.items():
        last_append_ms = int(batch.timestamps[np.searchsorted(batch.offsets, messages[-1][0])])
        delta.raises.append(Raise(model, EVERY_VERSION, max(ms for _, ms in messages), last_append_ms))
    _note_closed(delta, catalogue, known.watermarks)
    return delta


def _note_closed(delta: Delta, catalogue: Catalogue, watermarks: Watermarks) -> None:
    """Note the last window that each watermark closes, and the closed windows that changed."""
    after: dict[tuple[str, str], int] = {}
    for model, version, watermark_ms, _ in delta.raises:
        before = watermarks.get(model, version)
        after[model, version] = max(before, watermark_ms)
        history = catalogue.get(model)
        assert history is not None
        published = history.in_force(watermark_ms)
        last_end, previous_end = published.window_of(np.array([after[model, version], before])).tolist()
        if last_end > previous_end:
            name = INPUTS if version == EVERY_VERSION else version
            delta.closed.add((model, name, last_end - published.window_size_ms))
    for key, _ in delta.additions:
        if key.window_end <= after[key.model, key.model_version]:
            delta.closed.add((key.model, key.model_version, key.window_start))


@dataclass(slots=True)
class _Counting:
    """One model's events of one batch."""

    columns: EventColumns
    history: ModelHistory
    batch: MessageBatch
    known: Known
    raised: list[tuple[int, int]]
    delta: Delta

    def run(self) -> None:
        columns = self.columns
        assigned = assign_windows(self.history, columns.ts)
        if columns.kind == "labels":
            # A label is never too late while its prediction is stored, and the join with it happens there.
            self._advance(INPUTS, np.arange(columns.num_rows), assigned)
        elif columns.kind == "records":
            hashes = hash_ids(columns.model, columns.record_id, None)
            self._count_version(INPUTS, "inputs", np.arange(columns.num_rows), hashes, assigned)
        else:
            assert columns.model_version is not None
            hashes = hash_ids(columns.model, columns.record_id, columns.model_version)
            for version, rows in _split(columns.model_version):
                self._count_version(version, "outputs", rows, hashes, assigned)
            self._count_embedded_inputs(assigned)

    def _advance(self, version: str, rows: Ints, assigned: Assignment) -> Ints:
        """Raise a version's watermark; give the one before each of its rows."""
        model = self.columns.model
        offset = self.columns.offset[rows]
        initial = self.known.watermarks.get(model, version)
        before, after = run_watermark(initial, assigned.watermark[rows], offset, self.raised)
        last_append_ms = int(self.batch.timestamps[np.searchsorted(self.batch.offsets, offset[-1])])
        self.delta.raises.append(Raise(model, version, after, last_append_ms))
        return before

    def _count_version(
        self, version: str, part: Part, rows: Ints, hashes: npt.NDArray[np.uint64], assigned: Assignment
    ) -> None:
        before = self._advance(version, rows, assigned)
        is_late = assigned.expires_at[rows] <= before
        for index in np.flatnonzero(is_late).tolist():
            self.delta.dead.append(self._too_late(int(rows[index]), int(before[index])))
        if is_late.any():
            rows, before = rows[~is_late], before[~is_late]
        is_new = self._remember(version, rows, hashes, before, assigned)
        after_close = before >= assigned.end[rows]
        self._count_part(version, part, rows, is_new, after_close & is_new, assigned)

    def _count_embedded_inputs(self, assigned: Assignment) -> None:
        """Count the features that predictions carry, once per record_id whatever versions scored it.

        The inputs' own time is that of all versions together. What an old version scores again after those windows
        are past retention counts for that version, but no longer as input.
        """
        columns = self.columns
        assert columns.has_features is not None
        before = self._advance(INPUTS, np.arange(columns.num_rows), assigned)
        is_late = assigned.expires_at <= before
        self.delta.num_late_inputs += int((is_late & columns.has_features).sum())
        rows = np.flatnonzero(columns.has_features & ~is_late)
        if not len(rows):
            return
        hashes = hash_ids(columns.model, columns.record_id, None)
        is_new = self._remember(INPUTS, rows, hashes, before[rows], assigned)
        rows, before = rows[is_new], before[rows][is_new]
        everything = np.ones(len(rows), np.bool_)
        self._count_part(INPUTS, "inputs", rows, everything, before >= assigned.end[rows], assigned)

    def _remember(
        self, version: str, rows: Ints, hashes: npt.NDArray[np.uint64], before: Ints, assigned: Assignment
    ) -> Mask:
        """Tell first occurrences from duplicates, and add the first to what is to be remembered."""
        chosen, expires_at = hashes[rows], assigned.expires_at[rows]
        is_new = self.known.seen(self.columns.model, version).find_new(chosen, expires_at, before)
        first = rows[is_new]
        start, offset = assigned.start[first], self.columns.offset[first]
        # A window's identities share an expiry, but for windows that two spec versions start at the same instant.
        for window_start, expiry in sorted(set(zip(start.tolist(), assigned.expires_at[first].tolist(), strict=True))):
            own = (start == window_start) & (assigned.expires_at[first] == expiry)
            block = IdBlock(self.columns.model, version, window_start, expiry, chosen[is_new][own], offset[own])
            self.delta.ids.append(block)
        return is_new

    def _count_part(
        self, version: str, part: Part, rows: Ints, is_new: Mask, after_close: Mask, assigned: Assignment
    ) -> None:
        for index in np.unique(assigned.spec[rows]).tolist():
            published = self.history.versions[index]
            of_spec = assigned.spec[rows] == index
            coded = code_rows(lay_out(published, part), self.columns)
            chosen = rows[of_spec]
            for grouping in _list_groupings(self.columns, published, version, chosen, assigned):
                self._count_grouping(grouping, coded, chosen, is_new[of_spec], after_close[of_spec])

    def _count_grouping(
        self, grouping: _Grouping, coded: CodedRows, rows: Ints, is_new: Mask, after_close: Mask
    ) -> None:
        group, size = grouping.group, grouping.num_groups
        if self.known.replay_until > self.columns.offset[0]:
            unseen = self._find_unseen(grouping, rows)
            rows, group, is_new, after_close = rows[unseen], group[unseen], is_new[unseen], after_close[unseen]
        counted = rows[is_new]
        summaries = count_groups(coded.take(counted), group[is_new], size)
        num_duplicates = np.bincount(group[~is_new], minlength=size)
        num_late = np.bincount(group[after_close], minlength=size)
        for index in np.unique(group).tolist():
            summary = summaries[index] or Summary.empty(coded.layout)
            summary.num_duplicates, summary.num_late = int(num_duplicates[index]), int(num_late[index])
            self.delta.additions.append((grouping.key_of(index), summary))

    def _find_unseen(self, grouping: _Grouping, rows: Ints) -> Mask:
        """After a resume: tell the rows that are not in the stored summary of their group."""
        held_below = np.zeros(grouping.num_groups, np.int64)
        for index in np.unique(grouping.group).tolist():
            held_below[index] = self.known.held_below(grouping.key_of(index))
        unseen: Mask = self.columns.offset[rows] >= held_below[grouping.group]
        return unseen

    def _too_late(self, row: int, watermark_ms: int) -> DeadLetter:
        columns, batch = self.columns, self.batch
        offset, index = int(columns.offset[row]), int(np.searchsorted(batch.offsets, columns.offset[row]))
        return DeadLetter(
            model=columns.model,
            reason="too_late",
            message=f"The event's window is past its retention: time has come to {format_instant(watermark_ms)}. "
            "`driftloop backfill` rebuilds older windows from the store.",
            raw=write_row(columns, row),
            stage=STAGE,
            at=int(batch.timestamps[index]),
            topic=batch.topic,
            topic_id=batch.topic_id,
            partition=batch.partition,
            offset=offset,
            row=int(columns.row[row]),
            path="ts",
        )


@dataclass(frozen=True, slots=True)
class _Grouping:
    """Rows by (window, value of one segment key): `group` int64[rows] = window·len(segments) + segment."""

    model: str
    version: str
    published: PublishedSpec
    group: Ints
    window_start: Ints
    segments: list[str]

    @property
    def num_groups(self) -> int:
        return len(self.window_start) * len(self.segments)

    def key_of(self, index: int) -> GroupKey:
        window, segment = divmod(index, len(self.segments))
        windows = self.published.spec.windows
        start = int(self.window_start[window])
        end = start + windows.size_ms
        expires_at = end + windows.retention * windows.size_ms
        name = self.segments[segment]
        return GroupKey(self.model, self.version, self.published.spec_version, name, start, end, expires_at)


def _list_groupings(
    columns: EventColumns, published: PublishedSpec, version: str, rows: Ints, assigned: Assignment
) -> Iterator[_Grouping]:
    window_start, window = np.unique(assigned.start[rows], return_inverse=True)
    yield _Grouping(columns.model, version, published, window, window_start, [""])
    listed = None if len(rows) == columns.num_rows else rows.tolist()
    for key in published.spec.segments:
        values = columns.segment_values(key)
        texts = values if listed is None else [values[row] for row in listed]
        published_values = published.segment_values.get(key, [])
        codes: Mapping[str | None, int] = {value: code for code, value in enumerate(published_values)}
        segment = code_values(texts, dict(codes), len(published_values))
        names = [f"{key}={value}" for value in [*published_values, OTHER]]
        yield _Grouping(columns.model, version, published, window * len(names) + segment, window_start, names)


def _split(versions: list[str]) -> Iterator[tuple[str, Ints]]:
    """Give each version with its rows, in the order of first appearance."""
    codes: dict[str | None, int] = {version: code for code, version in enumerate(dict.fromkeys(versions))}
    if len(codes) == 1:
        yield versions[0], np.arange(len(versions))
        return
    code = code_values(list(versions), codes, 0)
    for version, number in codes.items():
        assert version is not None
        yield version, np.flatnonzero(code == number)


def write_row(columns: EventColumns, row: int) -> str:
    """Give one valid event as JSON, the personal-data policy applied; its message may have held thousands."""
    event: dict[str, object] = {
        "record_id": columns.record_id[row],
        "model": columns.model,
        "ts": int(columns.ts[row]),
    }
    if columns.model_version is not None:
        event["model_version"] = columns.model_version[row]
    for name, output in (("prediction", columns.prediction), ("score", columns.score)):
        if output is not None and not np.isnan(output[row]):
            event[name] = float(output[row])
    if columns.prediction_text is not None and columns.prediction_text[row] is not None:
        event["prediction"] = columns.prediction_text[row]
    features: dict[str, object] = {
        name: float(values[row]) for name, values in columns.numbers.items() if not np.isnan(values[row])
    }
    features |= {name: values[row] for name, values in columns.texts.items() if values[row] is not None}
    if columns.kind == "records" or features:
        event["features"] = features
    return msgspec.json.encode(event).decode()
