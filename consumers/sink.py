"""The sink: every valid event becomes one row in ClickHouse, and each partition gets a marker of how far that goes.

Marker M of a partition is written only after ClickHouse has confirmed all its rows below M, and an assignment resumes
at the largest marker; so a crash at any point repeats rows (equal keys count once) and loses none.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import msgspec
import pyarrow as pa

from consumers.intake import Intake, Reader
from schemas.catalogue import Catalogue
from schemas.clock import Clock, SystemClock
from schemas.columns import Kind
from schemas.connections import Runtime
from schemas.errors import Retryable
from schemas.events import DeadLetter, decode_event
from schemas.messages import MessageBatch
from schemas.topics import INBOUND
from schemas.validation import Validated, validate
from store.client import ClickHouse
from store.dead_letters import dead_letter_rows
from store.events import event_rows, insert_event_rows
from store.log import SpecFollower
from store.markers import Place, read_sink_markers, write_sink_markers

log = logging.getLogger(__name__)

Result = TypeVar("Result")

GROUP = "driftloop-sink"
DEAD_LETTERS = "dead-letters"

# Rows become visible within half a second, and blocks stay large enough for ClickHouse to merge in peace.
FLUSH_S = 0.3
FLUSH_ROWS = 50_000
FLUSH_BYTES = 64_000_000
_POLL_S = 0.05
_MESSAGES = 10_000
_BACKOFF_S = 0.1
_BACKOFF_S_MAX = 5.0


@dataclass(slots=True)
class Pending:
    """Rows that are not stored yet, and the offsets that they reach up to; bounded by the limits above."""

    blocks: list[tuple[str, Place, pa.Table]] = field(default_factory=list)
    ends: dict[Place, int] = field(default_factory=dict)
    num_rows: int = 0
    num_bytes: int = 0
    since_s: float = 0.0

    def add(self, table: str, place: Place, rows: pa.Table) -> None:
        """Take rows of one place, behind those that came before."""
        self.blocks.append((table, place, rows))
        self.num_rows += rows.num_rows
        self.num_bytes += rows.nbytes

    def keep(self, places: set[Place]) -> None:
        """Forget what came from other places: their log is no more."""
        self.blocks = [block for block in self.blocks if block[1] in places]
        self.ends = {place: end for place, end in self.ends.items() if place in places}


class Sink:
    """Runs one worker of the sink; several share the partitions."""

    def __init__(self, runtime: Runtime, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._privacy_key = runtime.privacy_key
        self._kinds: dict[str, Kind] = {runtime.topics(kind): kind for kind in INBOUND}  # type: ignore[misc]
        self._dead_letters = runtime.topics(DEAD_LETTERS)
        self._ch = ClickHouse(runtime.clickhouse)
        self._specs = SpecFollower(runtime.kafka, runtime.topics)
        self._reader = Reader(
            runtime.kafka,
            [*self._kinds, self._dead_letters],
            runtime.topics(GROUP),
            lambda topics: read_sink_markers(self._ch, topics),
            self._clock,
        )
        self._pending = Pending()
        self._stored: dict[Place, int] = {}
        self.num_rows_stored = 0

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`; then store what is at hand, if ClickHouse takes it at once, and leave."""
        try:
            while not stop.is_set():
                intake = self._until_done(lambda: self._reader.read(_MESSAGES, _POLL_S), stop)
                if intake is None:
                    break
                self._until_done(partial(self._take, intake), stop)
                if self._is_due():
                    self._until_done(self._flush, stop)
            self._flush_at_stop()
        finally:
            self._reader.close()
            self._specs.close()
            self._ch.close()
            log.info("stopped; %d rows stored", self.num_rows_stored)

    def _until_done(self, action: Callable[[], Result], stop: threading.Event) -> Result | None:
        """Repeat an action while something outside is away, taking no messages meanwhile; None when told to stop."""
        backoff_s = _BACKOFF_S
        while True:
            try:
                result = action()
            except Retryable as error:
                log.warning("waiting: %s", error)
                self._wait(backoff_s, stop)
                backoff_s = min(backoff_s * 2, _BACKOFF_S_MAX)
                if stop.is_set():
                    return None
            else:
                if backoff_s > _BACKOFF_S:
                    log.info("going on")
                return result

    def _wait(self, seconds: float, stop: threading.Event) -> None:
        deadline_s = self._clock.monotonic_s() + seconds
        while not stop.is_set() and (left_s := deadline_s - self._clock.monotonic_s()) > 0:
            self._reader.wait(min(left_s, 0.2))

    def _take(self, intake: Intake) -> None:
        """Turn messages into pending rows; a second call after `Retryable` finds nothing half done."""
        taken: list[tuple[str, Place, pa.Table]] = []
        for batch in intake.batches:
            place = (batch.topic, batch.topic_id, batch.partition)
            if batch.topic == self._dead_letters:
                taken.append(("dead_letters", place, dead_letter_rows(_decode_dead_letters(batch))))
            else:
                kind = self._kinds[batch.topic]
                taken += [(kind, place, event_rows(columns, *place)) for columns in self._validate(kind, batch).columns]
        if not self._pending.ends:
            self._pending.since_s = self._clock.monotonic_s()
        for table, place, rows in taken:
            self._pending.add(table, place, rows)
        for batch in intake.batches:
            self._pending.ends[batch.topic, batch.topic_id, batch.partition] = int(batch.offsets[-1]) + 1
        for place, end in intake.ends.items():
            if end > max(self._stored.get(place, 0), self._pending.ends.get(place, 0)):
                self._pending.ends[place] = end

    def _validate(self, kind: Kind, batch: MessageBatch) -> Validated:
        """The valid events of a batch; a model is unknown only after `specs` was read to its present end.

        Refused events are passed over here: the monitor publishes their dead letters.
        """
        validated = validate(kind, batch, self._catalogue, self._privacy_key)
        if validated.unknown_models:
            self._specs.refresh()
            validated = validate(kind, batch, self._catalogue, self._privacy_key)
        return validated

    @property
    def _catalogue(self) -> Catalogue:
        return self._specs.catalogue

    def _is_due(self) -> bool:
        pending = self._pending
        if pending.num_rows >= FLUSH_ROWS or pending.num_bytes >= FLUSH_BYTES:
            return True
        return bool(pending.ends) and self._clock.monotonic_s() - pending.since_s >= FLUSH_S

    def _flush(self) -> None:
        """Store what is pending.

        1. Leave out what came from a topic that is another one by now. 2. Insert the rows. 3. When ClickHouse has
        confirmed them, insert the markers. 4. Commit offsets as a hint. Repeated as a whole after `Retryable`.
        """
        pending = self._pending
        pending.keep(self._reader.current(pending.ends))
        for table in sorted({table for table, _, _ in pending.blocks}):
            insert_event_rows(self._ch, table, [rows for kind, _, rows in pending.blocks if kind == table])
        if pending.ends:
            write_sink_markers(self._ch, pending.ends, self._clock.now_ms())
        self._reader.commit(pending.ends)
        self.num_rows_stored += sum(rows.num_rows for _, _, rows in pending.blocks)
        self._stored.update(pending.ends)
        self._pending = Pending()

    def _flush_at_stop(self) -> None:
        try:
            self._flush()
        except Retryable as error:
            log.warning("%d rows are left to the next start: %s", self._pending.num_rows, error)


def _decode_dead_letters(batch: MessageBatch) -> list[DeadLetter]:
    letters = []
    for offset, value in zip(batch.offsets.tolist(), batch.values, strict=True):
        try:
            letters.append(decode_event(DeadLetter, value or b""))
        except msgspec.MsgspecError as error:
            log.warning("%s/%d offset %d is no dead letter: %s", batch.topic, batch.partition, offset, error)
    return letters
