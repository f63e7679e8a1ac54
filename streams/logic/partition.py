"""The state of stage 1 for one partition: a pure function of the log up to `next_offset`. Pure.

The rule that makes it exact whoever writes it and however often it is begun again:
1. Every row is a true statement about the log below its stamp, which is where the last event ends that it counts.
2. A flush at N writes identities and the summaries that changed, and only when those are durable marker N: no window
   has an event between its stamp and N but those that came too late.
3. A new owner begins at the largest marker, with the newest row of each summary and the identities below the marker.
4. What it reads again goes into the memory of identities, and into a summary only from that summary's stamp on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from schemas.columns import Kind
from schemas.events import DeadLetter, Progress
from schemas.messages import MessageBatch
from schemas.spec import Catalogue
from schemas.validation import Validated
from store.summaries import IdBlock, Marker, Place, StoredPartition, SummaryRow
from streams.logic.dedup import SEEN_EVENTS_MAX, SeenIds
from streams.logic.deltas import Delta, GroupKey, Known, compute_delta
from streams.logic.summaries import Summary
from streams.logic.watermarks import Watermarks


@dataclass(slots=True)
class Counted:
    """A summary, and the offset behind the last event in it: of what comes later, all is too late or another window's.

    Rows below that offset are what it counts, so it says which of the stored rows belong to it. The offset of a flush
    would not: events that came too late may lie below it.
    """

    summary: Summary
    end: int

    def add(self, summary: Summary, end: int) -> None:
        """Take in what later events add."""
        self.summary.add(summary)
        self.end = max(self.end, end)

    def copy(self) -> Counted:
        """Give one that does not change when this does."""
        return Counted(self.summary.copy(), self.end)


@dataclass(slots=True)
class Snapshot:
    """What one flush makes durable, in this order: ids and rows and dead letters, then the marker, then progress."""

    place: Place
    next_offset: int
    summaries: list[tuple[GroupKey, Counted]]
    ids: list[IdBlock]
    dead: list[DeadLetter]
    marker: Marker
    progress: list[Progress]
    num_unflushed: int

    def rows(self) -> list[SummaryRow]:
        """Give the summaries as stamped rows."""
        return [
            SummaryRow(
                self.place, key.model, key.model_version, key.spec_version, key.segment, key.window_start,
                key.window_end, counted.end, counted.summary.num_rows, counted.summary.num_duplicates,
                counted.summary.num_late, counted.summary.encode(),
            )
            for key, counted in self.summaries
        ]  # fmt: skip


@dataclass(slots=True)
class Partition:
    """One partition of an inbound topic; `start` is where to begin when the store has no marker."""

    place: Place
    kind: Kind
    next_offset: int
    durable: int
    watermarks: Watermarks = field(default_factory=Watermarks)
    at_end_at: int = 0
    next_ordinal: int = 0  # the number of the next event, counted from the partition's beginning
    is_urgent: bool = False  # a window closed, or a closed one changed: flush at once
    num_unflushed: int = 0
    num_late_inputs: int = 0
    num_seen_max: int = SEEN_EVENTS_MAX
    _summaries: dict[GroupKey, Counted] = field(default_factory=dict)
    _stamps: dict[GroupKey, int] = field(default_factory=dict)
    _replay_until: int = 0
    _seen: dict[str, SeenIds] = field(default_factory=dict)
    _dirty: set[GroupKey] = field(default_factory=set)
    _ids: list[IdBlock] = field(default_factory=list)
    _dead: list[DeadLetter] = field(default_factory=list)
    _progress: dict[tuple[str, str], int] = field(default_factory=dict)  # newest closed window by (model, version)

    @classmethod
    def restore(
        cls,
        place: Place,
        kind: Kind,
        stored: StoredPartition,
        start: int,
        catalogue: Catalogue,
        num_seen_max: int = SEEN_EVENTS_MAX,
    ) -> Partition:
        """Begin where the last true marker ends; `start` is the earliest offset, for when there is none."""
        marker = stored.marker
        begin = marker.next_offset if marker is not None else start
        self = cls(place, kind, begin, begin if marker is not None else -1, num_seen_max=num_seen_max)
        if marker is not None:
            self.next_ordinal = marker.next_ordinal
            self.watermarks = Watermarks(marker.watermarks)
            self.at_end_at = marker.at_end_at
        for row in stored.summaries:
            key = _key_of(row, catalogue)
            if key is not None:
                summary = Summary.decode(row.state, row.num_rows, row.num_duplicates, row.num_late)
                self._summaries[key] = Counted(summary, row.stamp)
                if row.stamp > begin:
                    self._stamps[key] = row.stamp
        self._replay_until = max(self._stamps.values(), default=0)
        for block in stored.ids:
            self._remember(block)
        return self

    def compute(self, batch: MessageBatch, validated: Validated, catalogue: Catalogue) -> Delta:
        """Work out what a batch adds; changes nothing, so that a batch that cannot be counted leaves no trace."""
        known = Known(
            self.watermarks, self._seen_of, lambda key: self._stamps.get(key, 0), self._replay_until, self.next_ordinal
        )
        return compute_delta(validated, batch, catalogue, known)

    def advance(self, delta: Delta, next_offset: int) -> None:
        """Take in what the messages below `next_offset` add."""
        self.remember(delta)
        self.take_in(delta, next_offset)

    def remember(self, delta: Delta) -> None:
        """Take in the identities only: a thread may do that, as long as `take_in` follows and nothing else happens."""
        for block in delta.ids:
            self._remember(block)

    def take_in(self, delta: Delta, next_offset: int) -> None:
        """Take in the rest of what the messages below `next_offset` add."""
        assert next_offset >= self.next_offset
        self.next_offset = next_offset
        self.next_ordinal += delta.num_ordinals
        for key, summary, end in delta.additions:
            known = self._summaries.get(key)
            if known is None:
                self._summaries[key] = Counted(summary, end)
            else:
                known.add(summary, end)
            self._dirty.add(key)
        self._ids += delta.ids
        self._dead += delta.dead
        self.num_unflushed += delta.num_events
        self.num_late_inputs += delta.num_late_inputs
        for raised in delta.raises:
            self.watermarks.raise_to(*raised)
        for model, version, window_start in delta.closed:
            self._progress[model, version] = max(self._progress.get((model, version), window_start), window_start)
        self.is_urgent = self.is_urgent or bool(delta.closed)
        if self.next_offset >= self._replay_until:
            self._stamps.clear()

    def refuse(self, letter: DeadLetter, next_offset: int) -> None:
        """Pass over a message that cannot be counted."""
        self.advance(Delta(dead=[letter], num_events=1, num_ordinals=1), next_offset)

    def skip_to(self, next_offset: int) -> None:
        """Pass over offsets that hold no messages, or whose messages are lost."""
        self.next_offset = max(self.next_offset, next_offset)

    def snapshot(self) -> Snapshot:
        """Take out what is not durable yet; `confirm` or `give_back` must follow."""
        taken = Snapshot(
            self.place,
            self.next_offset,
            [(key, self._summaries[key].copy()) for key in self._dirty],
            _join(self._ids),
            self._dead,
            Marker(self.place, self.next_offset, self.watermarks.dump(), self.at_end_at, self.next_ordinal),
            [self._progress_of(*closed) for closed in self._progress.items()],
            self.num_unflushed,
        )
        self._dirty, self._ids, self._dead, self._progress = set(), [], [], {}
        self.is_urgent = False
        return taken

    def confirm(self, taken: Snapshot) -> None:
        """Take in that a snapshot is durable, and let go of what is past retention."""
        self.durable = max(self.durable, taken.next_offset)
        self.num_unflushed -= taken.num_unflushed
        for key, _ in taken.summaries:
            if key.expires_at <= self.watermarks.get(key.model, key.model_version) and key not in self._dirty:
                self._summaries.pop(key, None)

    def give_back(self, taken: Snapshot) -> None:
        """Take back a snapshot of which nobody knows what arrived; the next one covers it."""
        self._dirty |= {key for key, _ in taken.summaries}
        self._ids = taken.ids + self._ids
        self._dead = taken.dead + self._dead
        self._progress = {(p.model, p.model_version): p.window_start for p in taken.progress} | self._progress
        self.is_urgent = True

    def forget_expired(self) -> int:
        """Let go of summaries and identities that are past retention; gives how many summaries."""
        expired = [
            key
            for key in self._summaries
            if key not in self._dirty and key.expires_at <= self.watermarks.get(key.model, key.model_version)
        ]
        for key in expired:
            del self._summaries[key]
        for model, seen in self._seen.items():
            seen.forget(self._time_of(model), self.next_ordinal)
        return len(expired)

    @property
    def has_news(self) -> bool:
        """True if a flush would make more durable than is."""
        return self.next_offset > self.durable or bool(self._dirty or self._ids or self._dead)

    def _remember(self, block: IdBlock) -> None:
        self._seen_of(block.model).add(
            block.hashes, block.ordinals, block.expires_at, block.model_version, block.with_inputs,
            self._time_of(block.model),
        )  # fmt: skip

    def _time_of(self, model: str) -> Callable[[str], int]:
        """Give what tells how far each version of a model has come."""
        return lambda version: self.watermarks.get(model, version)

    def _seen_of(self, model: str) -> SeenIds:
        seen = self._seen.get(model)
        if seen is None:
            seen = self._seen[model] = SeenIds(self.num_seen_max)
        return seen

    def _progress_of(self, source: tuple[str, str], window_start: int) -> Progress:
        # Stage 2 asks the store which windows changed; this only says when to ask.
        model, version = source
        place = self.place
        return Progress(
            model=model,
            window_start=window_start,
            topic=place.topic,
            topic_id=place.topic_id,
            partition=place.partition,
            stamp=self.next_offset,
            watermark=self.watermarks.get(model, version),
            model_version=version,
        )


def _key_of(row: SummaryRow, catalogue: Catalogue) -> GroupKey | None:
    history = catalogue.get(row.model)
    for published in history.versions if history is not None else ():
        if published.spec_version == row.spec_version:
            windows = published.spec.windows
            expires_at = row.window_end + windows.retention * windows.size_ms
            return GroupKey(
                row.model,
                row.model_version,
                row.spec_version,
                row.segment,
                row.window_start,
                row.window_end,
                expires_at,
            )
    return None


def _join(blocks: list[IdBlock]) -> list[IdBlock]:
    """Join the blocks of one window: a flush then writes one row for it, not one for every chunk."""
    joined: dict[tuple[str, str, int, int, bool], list[IdBlock]] = {}
    for block in blocks:
        key = (block.model, block.model_version, block.window_start, block.expires_at, block.with_inputs)
        joined.setdefault(key, []).append(block)
    return [
        replace(
            parts[0],
            hashes=np.concatenate([each.hashes for each in parts]),
            ordinals=np.concatenate([each.ordinals for each in parts]),
        )
        for parts in joined.values()
    ]
