"""Stage 1's state in the store, as the agent needs it: load a partition, make a flush durable, delete what expired.

Everything here blocks and runs in an executor's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from schemas.clock import Clock
from schemas.columns import Kind
from schemas.connections import Runtime
from schemas.errors import Retryable
from schemas.events import DeadLetter, encode_event
from schemas.spec import Catalogue, PublishedSpec
from store.client import ClickHouse
from store.dead_letters import dead_letter_rows
from store.expiry import delete_ids, delete_other_lives, delete_windows
from store.log import Producer
from store.partitions import load_partitions
from store.summaries import (
    Place,
    insert_ids,
    insert_markers,
    insert_summaries,
    read_markers,
)
from store.windows import read_unmeasured
from streams.logic.dedup import SEEN_EVENTS_MAX
from streams.logic.partition import Partition, Snapshot
from streams.logic.watermarks import Watermarks, list_sources
from streams.logic.windows import is_in_force

log = logging.getLogger(__name__)

_DELIVERY_TIMEOUT_S = 20.0
# DateTime64(3) ends in 2299.
_NEVER_MS = 10_413_792_000_000


class StateStore:
    """`store` may be any ClickHouse; `job` names the monitor whose state this is."""

    def __init__(self, runtime: Runtime, store: ClickHouse, job: str, clock: Clock) -> None:
        self._runtime = runtime
        self._store = store
        self._job = job
        self._clock = clock
        self._producer = Producer(runtime.kafka)

    def load(self, kinds: Mapping[Place, Kind], starts: Mapping[Place, int], catalogue: Catalogue) -> list[Partition]:
        """Give partitions as the last true markers have them; `starts` are the earliest offsets of the log."""
        stored = load_partitions(self._store, self._job, kinds, SEEN_EVENTS_MAX)
        return [
            Partition.restore(place, kind, stored[place], starts[place], catalogue) for place, kind in kinds.items()
        ]

    def forget_other_lives(self, topic_ids: Mapping[str, str]) -> None:
        """Delete what belongs to topics of these names that were deleted."""
        markers = read_markers(self._store, self._job, topic_ids)
        for topic in {place.topic for place in (m.place for m in markers) if place.topic_id != topic_ids[place.topic]}:
            delete_other_lives(self._store, self._job, topic, topic_ids[topic])

    def write(self, snapshots: Sequence[Snapshot]) -> None:
        """Make snapshots durable; safe to repeat, and when it fails nobody needs to know how far it came.

        1. Append the identities. 2. Insert the summaries, stamped. 3. Store the dead letters and send them, awaited.
        4. Only now insert the markers: they say that all of this is there. 5. Tell stage 2, which only makes it prompt.
        """
        insert_ids(self._store, self._job, [(taken.place, block) for taken in snapshots for block in taken.ids])
        insert_summaries(self._store, self._job, [row for taken in snapshots for row in taken.rows()])
        self._write_dead([letter for taken in snapshots for letter in taken.dead])
        insert_markers(self._store, self._job, [taken.marker for taken in snapshots])
        self._send_progress(snapshots)

    def delete_expired(self, owned: Sequence[Partition], catalogue: Catalogue) -> None:
        """Delete identities and summaries that no event can change any more: the watermark has passed retention.

        By the time of the markers, not of memory, which is ahead: who begins at a marker reads again what follows it,
        and must remember what its first owner did.
        """
        places = {partition.place for partition in owned}
        for marker in read_markers(self._store, self._job, {place.topic for place in places}):
            if marker.place in places:
                watermarks = Watermarks(marker.watermarks)
                before = {
                    (model, version): watermarks.get(model, version)
                    for model in watermarks.models()
                    for version in watermarks.versions(model)
                }
                delete_ids(self._store, self._job, marker.place, before, marker.next_ordinal - SEEN_EVENTS_MAX)
        topics = {partition.place.topic for partition in owned if partition.place.partition == 0}
        unmeasured = self._find_first_unmeasured(catalogue) if topics else {}
        for topic in topics:
            before = {
                (model, version): min(expired_ms, unmeasured.get(model, _NEVER_MS))
                for (model, version), expired_ms in self._find_expiries(topic, catalogue).items()
            }
            delete_windows(self._store, self._job, topic, before)

    def _find_first_unmeasured(self, catalogue: Catalogue) -> dict[str, int]:
        """Give by model the start of the first window that stage 2 has yet to measure, however far it is behind."""
        first = {}
        for model, windows in read_unmeasured(self._store, self._job).items():
            history = catalogue.get(model)
            starts = [start for start, end in windows if history is None or is_in_force(history, start, end)]
            if starts:
                first[model] = min(starts)
        return first

    def close(self) -> None:
        """Leave the broker."""
        self._producer.close()

    def _find_expiries(self, topic: str, catalogue: Catalogue) -> Mapping[tuple[str, str], int]:
        """Give per (model, version) the instant that all partitions where it was seen have left behind.

        The slowest decides: it may still restate the window, for which the others' summaries are needed.
        """
        slowest: dict[tuple[str, str], int] = {}
        for marker in read_markers(self._store, self._job, [topic]):
            for model in marker.watermarks:
                for version, progressed in list_sources(marker.watermarks, model).items():
                    known = slowest.get((model, version), progressed.watermark_ms)
                    slowest[model, version] = min(known, progressed.watermark_ms)
        expiries = {}
        for (model, version), watermark_ms in slowest.items():
            if (history := catalogue.get(model)) is not None:
                kept_ms = max(_find_kept_ms(published) for published in history.versions)
                expiries[model, version] = watermark_ms - kept_ms
        return expiries

    def _write_dead(self, letters: list[DeadLetter]) -> None:
        if not letters:
            return
        self._store.insert_arrow("dead_letters", dead_letter_rows(letters))
        topic = self._runtime.topics("dead-letters")
        for letter in letters:
            self._producer.produce(topic, letter.model or None, encode_event(letter))
        self._producer.flush(_DELIVERY_TIMEOUT_S)

    def _send_progress(self, snapshots: Sequence[Snapshot]) -> None:
        news = [progress for taken in snapshots for progress in taken.progress]
        if not news:
            return
        try:
            topic = self._runtime.topics("progress")
            for progress in news:
                self._producer.produce(topic, progress.model, encode_event(progress))
            self._producer.flush(_DELIVERY_TIMEOUT_S)
        except Retryable as error:
            # The markers are durable, and stage 2 looks at them every few seconds anyway.
            log.warning("stage 2 is not told of %d closed windows: %s", len(news), error)


def _find_kept_ms(published: PublishedSpec) -> int:
    """Give how long after its end a window's summary is needed: its retention, and that of those merged with it."""
    # SciPy takes longer to import than stage 1 needs to start.
    from streams.logic.significance import find_budget

    budget = find_budget(published)
    num_merged = 0 if budget is None else max(budget.scales)
    return (published.spec.windows.retention + num_merged) * published.window_size_ms
