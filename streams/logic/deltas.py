"""What one batch adds to one partition's state, worked out without changing that state. Pure.

Everything follows from the log in its order: the watermark before each event says what is too late, the memory says
what is a duplicate, and only then is counted, in columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.columns import EventColumns, concatenate
from schemas.events import DeadLetter
from schemas.identity import hash_ids
from schemas.instants import format_instant
from schemas.messages import MessageBatch
from schemas.spec import Catalogue, ModelHistory, PublishedSpec
from schemas.texts import TextColumn
from schemas.validation import Validated
from store.summaries import IdBlock
from streams.logic.counts import CodedRows, GroupCounts, code_texts, tally_rows
from streams.logic.dedup import Asked, SeenIds
from streams.logic.layouts import OTHER, Part, lay_out
from streams.logic.runs import find_runs, list_distinct, list_pairs, measure_runs, number_values, pick, place
from streams.logic.summaries import Summary
from streams.logic.watermarks import EVERY_VERSION, INPUTS, Watermarks, run_watermark
from streams.logic.windows import Assignment, assign_windows

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]

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


class Addition(NamedTuple):
    """What a batch adds to one summary; `end` is the offset behind the last of its events."""

    key: GroupKey
    summary: Summary
    end: int


class Raise(NamedTuple):
    """A version's watermark after the batch, and the Kafka timestamp of its last message."""

    model: str
    version: str
    watermark_ms: int
    last_append_ms: int


@dataclass(slots=True)
class Delta:
    """What a batch adds; `ids` are in log order."""

    additions: list[Addition] = field(default_factory=list)
    ids: list[IdBlock] = field(default_factory=list)
    raises: list[Raise] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    closed: set[tuple[str, str, int]] = field(default_factory=set)  # (model, version, window_start): closed or changed
    num_events: int = 0
    num_ordinals: int = 0  # how many numbers of events the batch takes; a message takes one at least
    num_late_inputs: int = 0  # predictions that counted, but whose features came too late to count


@dataclass(frozen=True, slots=True)
class Known:
    """The state that a batch meets: `seen` by model; `held_below` says which offsets a group has already.

    `next_ordinal` is the number of the batch's first event in its partition.
    """

    watermarks: Watermarks
    seen: Callable[[str], SeenIds]
    held_below: Callable[[GroupKey], int]
    replay_until: int
    next_ordinal: int


def compute_delta(validated: Validated, batch: MessageBatch, catalogue: Catalogue, known: Known) -> Delta:
    """Give what the valid events of a batch add to a partition."""
    delta = Delta(dead=list(validated.dead), num_events=validated.num_events)
    raised: dict[str, list[tuple[int, int]]] = {}
    for offset, model, ms in validated.watermarks:
        raised.setdefault(model, []).append((offset, ms))
    first_ordinals, delta.num_ordinals = number_messages(batch, validated)
    by_model: dict[str, list[EventColumns]] = {}
    for block in validated.columns:
        by_model.setdefault(block.model, []).append(block)
    for model, blocks in by_model.items():
        history = catalogue.get(model)
        assert history is not None, "only events of known models are valid"
        columns = join_blocks(blocks, history)
        index = locate(batch, columns.offset)
        ordinals = known.next_ordinal + first_ordinals[index] + columns.row
        _Counting(columns, blocks, history, batch, known, raised.get(model, []), delta, ordinals).run()
    for model, messages in raised.items():
        last_append_ms = int(batch.timestamps[np.searchsorted(batch.offsets, messages[-1][0])])
        delta.raises.append(Raise(model, EVERY_VERSION, max(ms for _, ms in messages), last_append_ms))
    _note_closed(delta, catalogue, known.watermarks)
    return delta


def join_blocks(blocks: list[EventColumns], history: ModelHistory) -> EventColumns:
    """Join a model's blocks of one batch: an event's duplicate, or what makes it late, may be in another block.

    There are several where events bring ever new names; of those nothing is counted, so the joined table stays narrow.
    """
    if len(blocks) == 1:
        return blocks[0]
    names = {name for published in history.versions for name in (*published.spec.features, *published.spec.segments)}
    return concatenate(
        [
            replace(
                block,
                numbers={name: values for name, values in block.numbers.items() if name in names},
                texts={name: values for name, values in block.texts.items() if name in names},
                coerced={name: values for name, values in block.coerced.items() if name in names},
                segment={name: values for name, values in block.segment.items() if name in names},
                scores={},
                trace_id=None,
                extra=None,
            )
            for block in blocks
        ]
    )


def number_messages(batch: MessageBatch, validated: Validated) -> tuple[Ints, int]:
    """Number the events of a batch from 0 in log order: the first of each message (int64[messages]), and how many.

    A message takes as many numbers as it has rows, valid or not, and one if it has none.
    """
    num_rows = np.ones(len(batch), np.int64)
    for columns in validated.columns:
        if columns.row.any():
            # A message's last row here is its largest: columns are in the order of the log.
            begins = find_runs(columns.offset)
            last = begins + measure_runs(begins, columns.num_rows) - 1
            index = locate(batch, columns.offset[last])
            num_rows[index] = np.maximum(num_rows[index], columns.row[last] + 1)
    for letter in validated.dead:
        if letter.row:
            message = int(np.searchsorted(batch.offsets, letter.offset))
            num_rows[message] = max(int(num_rows[message]), letter.row + 1)
    ends = np.cumsum(num_rows)
    return ends - num_rows, int(ends[-1]) if len(ends) else 0


def locate(batch: MessageBatch, offsets: Ints) -> Ints:
    """Give which messages of a batch have these offsets."""
    if batch.offsets[-1] - batch.offsets[0] == len(batch) - 1:  # no holes
        return offsets - int(batch.offsets[0])
    index: Ints = np.searchsorted(batch.offsets, offsets)
    return index


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
    for key, _, _ in delta.additions:
        if key.window_end <= after[key.model, key.model_version]:
            delta.closed.add((key.model, key.model_version, key.window_start))


@dataclass(slots=True)
class _Counting:
    """One model's events of one batch: `columns` are its blocks joined."""

    columns: EventColumns
    blocks: list[EventColumns]
    history: ModelHistory
    batch: MessageBatch
    known: Known
    raised: list[tuple[int, int]]
    delta: Delta
    ordinals: Ints
    hashes: Hashes = field(init=False)

    def run(self) -> None:
        columns = self.columns
        assigned = assign_windows(self.history, columns.ts)
        if columns.kind == "labels":
            # A label is never too late while its prediction is stored, and the join with it happens there.
            self._advance(INPUTS, np.arange(columns.num_rows), assigned)
        elif columns.kind == "records":
            self._count_records(assigned)
        else:
            self._count_predictions(assigned)

    def _count_records(self, assigned: Assignment) -> None:
        size = self.columns.num_rows
        rows, before = self._admit(INPUTS, np.arange(size), assigned)
        asks, watermark = np.zeros(size, np.bool_), np.zeros(size, np.int64)
        place(asks, rows, True)
        place(watermark, rows, before)
        _, is_new = self._find_new(np.full(size, -1), watermark, asks, watermark, assigned)
        self._note_ids(INPUTS, is_new, False, assigned)
        self._count_version(INPUTS, "inputs", rows, is_new, watermark, assigned)

    def _count_predictions(self, assigned: Assignment) -> None:
        """Count predictions by version, and the features that they carry.

        These count once per record_id whatever versions scored it, and their own time is that of all versions together.
        What an old version scores again after those windows are past retention counts for that version, but no longer
        as input.
        """
        columns, seen = self.columns, self.known.seen(self.columns.model)
        assert columns.model_version is not None
        assert columns.has_features is not None
        number, watermark = np.full(columns.num_rows, -1), np.zeros(columns.num_rows, np.int64)
        versions: list[tuple[str, Ints]] = []
        for version, rows in _split(columns.model_version):
            rows, before = self._admit(version, rows, assigned)
            place(number, rows, seen.number(version))
            place(watermark, rows, before)
            versions.append((version, rows))
        input_watermark = self._advance(INPUTS, np.arange(columns.num_rows), assigned)
        is_late = assigned.expires_at <= input_watermark
        self.delta.num_late_inputs += int((is_late & columns.has_features).sum())
        asks_input = columns.has_features & ~is_late
        is_new, is_new_input = self._find_new(number, watermark, asks_input, input_watermark, assigned)
        for version, _ in versions:
            of_version = is_new & (number == seen.number(version))
            self._note_ids(version, of_version & is_new_input, True, assigned)
            self._note_ids(version, of_version & ~is_new_input, False, assigned)
        self._note_ids(INPUTS, is_new_input & ~is_new, False, assigned)
        for version, rows in versions:
            self._count_version(version, "outputs", rows, is_new, watermark, assigned)
        # No duplicates are counted here: another version may have scored the same record.
        self._count_version(INPUTS, "inputs", np.flatnonzero(is_new_input), is_new_input, input_watermark, assigned)

    def _advance(self, version: str, rows: Ints, assigned: Assignment) -> Ints:
        """Raise a version's watermark; give the one before each of its rows."""
        model = self.columns.model
        offset = pick(self.columns.offset, rows)
        initial = self.known.watermarks.get(model, version)
        before, after = run_watermark(initial, pick(assigned.watermark, rows), offset, self.raised)
        last_append_ms = int(self.batch.timestamps[np.searchsorted(self.batch.offsets, offset[-1])])
        self.delta.raises.append(Raise(model, version, after, last_append_ms))
        return before

    def _admit(self, version: str, rows: Ints, assigned: Assignment) -> tuple[Ints, Ints]:
        """Raise a version's watermark and refuse what is too late; give the rows left and the watermark before each."""
        before = self._advance(version, rows, assigned)
        is_late = pick(assigned.expires_at, rows) <= before
        for index in np.flatnonzero(is_late).tolist():
            self.delta.dead.append(self._too_late(int(rows[index]), int(before[index])))
        return (rows[~is_late], before[~is_late]) if is_late.any() else (rows, before)

    def _find_new(
        self, version: Ints, watermark: Ints, asks_input: Mask, input_watermark: Ints, assigned: Assignment
    ) -> tuple[Mask, Mask]:
        """Tell which rows are first occurrences as outputs, and which as inputs."""
        hashes = self.hashes = hash_ids(self.columns.model, self.columns.record_id)
        asked = Asked(hashes, assigned.expires_at, self.ordinals, version, watermark, asks_input, input_watermark)
        return self.known.seen(self.columns.model).find_new(asked)

    def _note_ids(self, version: str, chosen: Mask, with_inputs: bool, assigned: Assignment) -> None:
        """Add the identities of the chosen rows to what is to be remembered."""
        rows = np.flatnonzero(chosen)
        hashes, ordinals = pick(self.hashes, rows), pick(self.ordinals, rows)
        start, expires_at = pick(assigned.start, rows), pick(assigned.expires_at, rows)
        # A window's identities share an expiry, but for windows that two spec versions start at the same instant.
        pairs = list_pairs(start, expires_at)
        for window_start, expiry in pairs:
            own: Mask | slice = slice(None)
            if len(pairs) > 1:
                own = (start == window_start) & (expires_at == expiry)
            block = IdBlock(self.columns.model, version, window_start, expiry, hashes[own], ordinals[own], with_inputs)
            self.delta.ids.append(block)

    def _count_version(
        self, version: str, part: Part, rows: Ints, is_new: Mask, watermark: Ints, assigned: Assignment
    ) -> None:
        new = pick(is_new, rows)
        after_close = pick(watermark, rows) >= pick(assigned.end, rows)
        self._count_part(version, part, rows, new, after_close & new, assigned)

    def _count_part(
        self, version: str, part: Part, rows: Ints, is_new: Mask, after_close: Mask, assigned: Assignment
    ) -> None:
        spec = pick(assigned.spec, rows)
        present = list_distinct(spec)
        for index in present.tolist():
            published = self.history.versions[index]
            coded = CodedRows(lay_out(published, part), self.columns)
            chosen = _Chosen(rows, is_new, after_close)
            if len(present) > 1:
                of_spec = spec == index
                chosen = _Chosen(rows[of_spec], is_new[of_spec], after_close[of_spec])
            self._count_spec(published, version, coded, chosen, assigned)

    def _count_spec(
        self, published: PublishedSpec, version: str, coded: CodedRows, chosen: _Chosen, assigned: Assignment
    ) -> None:
        """Count rows as a whole and by segment: the whole is the sum of the segments of one key."""
        window_start, window = number_values(pick(assigned.start, chosen.rows))
        whole = _Grouping(self.columns.model, version, published, window, window_start, [""])
        by_key = list(_list_segments(self.columns, whole, chosen.rows))
        if self.known.replay_until > self.columns.offset[0]:
            # Each group is to skip what its own stored summary has.
            for grouping in [whole, *by_key]:
                self._count_grouping(grouping, coded, chosen.take(self._find_unseen(grouping, chosen.rows)))
            return
        counted = [self._count_grouping(grouping, coded, chosen) for grouping in by_key]
        if not counted:
            self._count_grouping(whole, coded, chosen)
        else:
            self._add(whole, counted[0].join(len(by_key[0].segments)))

    def _count_grouping(self, grouping: _Grouping, coded: CodedRows, chosen: _Chosen) -> _Tallies:
        group, size = np.ascontiguousarray(grouping.group[chosen.positions]), grouping.num_groups
        new = (chosen.rows, group) if chosen.is_all_new else (chosen.rows[chosen.is_new], group[chosen.is_new])
        counts = coded.count(*new, size)
        found = tally_rows(self.columns.offset, chosen.rows, group, chosen.is_new, chosen.after_close, size)
        tallies = _Tallies(counts, *found)
        self._add(grouping, tallies)
        return tallies

    def _add(self, grouping: _Grouping, tallies: _Tallies) -> None:
        num_seen = tallies.counts.num_rows + tallies.num_duplicates
        groups = np.flatnonzero(num_seen)
        for index, summary in zip(groups.tolist(), tallies.counts.read(groups), strict=True):
            summary.num_duplicates, summary.num_late = int(tallies.num_duplicates[index]), int(tallies.num_late[index])
            self.delta.additions.append(Addition(grouping.key_of(index), summary, int(tallies.ends[index])))

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
            raw=self._write_whole(row),
            stage=STAGE,
            at=int(batch.timestamps[index]),
            topic=batch.topic,
            topic_id=batch.topic_id,
            partition=batch.partition,
            offset=offset,
            row=int(columns.row[row]),
            path="ts",
        )

    def _write_whole(self, row: int) -> str:
        for block in self.blocks:
            if row < block.num_rows:
                return write_row(block, row)
            row -= block.num_rows
        raise AssertionError("the blocks have as many rows as their join")


class _Chosen:
    """Rows of a batch that are counted alike: `rows` int64[n], and of each whether it is new and came after its window

    had closed. `positions` are theirs among the rows that groupings are made of.
    """

    def __init__(self, rows: Ints, is_new: Mask, after_close: Mask, positions: Ints | None = None) -> None:
        self.rows = rows
        self.is_new = is_new
        self.after_close = after_close
        self.positions = slice(None) if positions is None else positions
        self.is_all_new = bool(is_new.all())

    def take(self, chosen: Mask) -> _Chosen:
        """Give some of them."""
        return _Chosen(self.rows[chosen], self.is_new[chosen], self.after_close[chosen], np.flatnonzero(chosen))


@dataclass(frozen=True, slots=True)
class _Tallies:
    """What was counted, by group; `ends` are the offsets behind the last events."""

    counts: GroupCounts
    num_duplicates: Ints
    num_late: Ints
    ends: Ints

    def join(self, num_parts: int) -> _Tallies:
        """Put consecutive groups together."""
        return _Tallies(
            self.counts.join(num_parts),
            self.num_duplicates.reshape(-1, num_parts).sum(axis=1),
            self.num_late.reshape(-1, num_parts).sum(axis=1),
            self.ends.reshape(-1, num_parts).max(axis=1),
        )


@dataclass(frozen=True, slots=True)
class _Grouping:
    """Rows by (window, value of one segment key): `group` int32[rows] = window·len(segments) + segment."""

    model: str
    version: str
    published: PublishedSpec
    group: Codes
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


def _list_segments(columns: EventColumns, whole: _Grouping, rows: Ints) -> Iterator[_Grouping]:
    """Give one grouping a segment key, of the same rows."""
    published = whole.published
    for key in published.spec.segments:
        known = published.segment_values.get(key, [])
        codes = {value: code for code, value in enumerate(known)}
        segment = code_texts(columns.segment_values(key)).map_to(codes, len(known))
        names = [f"{key}={value}" for value in [*known, OTHER]]
        group = whole.group * np.int32(len(names)) + pick(segment, rows)
        yield _Grouping(whole.model, whole.version, published, group, whole.window_start, names)


def _split(versions: TextColumn) -> Iterator[tuple[str, Ints]]:
    """Give each version with its rows, in the order of first appearance."""
    codes, names = versions.factorize()
    if len(names) == 1:
        yield names[0], np.arange(len(versions))
        return
    for code, name in enumerate(names):
        yield name, np.flatnonzero(codes == code)


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
