"""What a partition knows of its producers: sequence numbers, open transactions, aborted ones.

The state is a pure function of the partition's batches, so a start rebuilds it by reading them; each sealed segment has
a snapshot next to it so that only the last segment is read.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from driftloop.embedded.broker.batches import BatchHeader
from driftloop.embedded.broker.errors import Code, Refusal

# Kafka's own number: clients have at most five requests in flight, so an older duplicate cannot arrive.
NUM_REMEMBERED_BATCHES = 5
# As producer.id.expiration.ms: an idempotent producer that is silent for a day is forgotten.
EXPIRY_MS = 86_400_000
LAST_SEQUENCE = 0x7FFFFFFF


class SentBatch(NamedTuple):
    first_sequence: int
    last_sequence: int
    base_offset: int


class AbortedTransaction(NamedTuple):
    """Offsets first..last of this producer are hidden from readers of committed data; last is the marker's."""

    producer_id: int
    first_offset: int
    last_offset: int


@dataclass
class Producer:
    """One producer's last epoch and batches."""

    epoch: int
    seen_ms: int
    batches: deque[SentBatch] = field(default_factory=lambda: deque(maxlen=NUM_REMEMBERED_BATCHES))


def _add_sequence(sequence: int, delta: int) -> int:
    """Sequence numbers wrap from 2^31 - 1 to 0."""
    return (sequence + delta) & LAST_SEQUENCE


class ProducerState:
    """The producers of one partition."""

    def __init__(self) -> None:
        self.producers: dict[int, Producer] = {}
        self.open_since: dict[int, int] = {}
        self.aborted: list[AbortedTransaction] = []

    def find_duplicate(self, header: BatchHeader) -> SentBatch | None:
        """The batch that this one repeats; None for a new one; refuses a stale epoch or a gap in the sequence."""
        known = self.producers.get(header.producer_id)
        if known is None:
            return None  # Retention may have removed all that was known of a producer: any sequence is welcome.
        if header.producer_epoch < known.epoch:
            raise Refusal(
                Code.INVALID_PRODUCER_EPOCH, f"producer {header.producer_id} is at epoch {known.epoch} by now"
            )
        is_new_epoch = header.producer_epoch > known.epoch
        last = LAST_SEQUENCE if is_new_epoch or not known.batches else known.batches[-1].last_sequence
        if header.base_sequence == _add_sequence(last, 1):
            return None
        last_sequence = _add_sequence(header.base_sequence, header.last_offset_delta)
        if not is_new_epoch:
            for batch in known.batches:
                if batch[:2] == (header.base_sequence, last_sequence):
                    return batch
            if known.batches and last_sequence < known.batches[0].first_sequence:
                raise Refusal(Code.DUPLICATE_SEQUENCE_NUMBER, f"sequence {header.base_sequence} is long stored")
        raise Refusal(Code.OUT_OF_ORDER_SEQUENCE_NUMBER, f"sequence {header.base_sequence} does not follow {last}")

    def note(self, header: BatchHeader, is_commit: bool | None) -> None:
        """Takes in one batch of the log; `is_commit` says which way a control batch ended its transaction."""
        if not header.has_producer:
            return
        known = self.producers.get(header.producer_id)
        if known is None or known.epoch != header.producer_epoch:
            known = self.producers[header.producer_id] = Producer(header.producer_epoch, header.max_timestamp_ms)
        known.seen_ms = max(known.seen_ms, header.max_timestamp_ms)
        if header.is_control:
            first = self.open_since.pop(header.producer_id, None)
            if first is not None and not is_commit:
                self.aborted.append(AbortedTransaction(header.producer_id, first, header.last_offset))
            return
        last_sequence = _add_sequence(header.base_sequence, header.last_offset_delta)
        known.batches.append(SentBatch(header.base_sequence, last_sequence, header.base_offset))
        if header.is_transactional:
            self.open_since.setdefault(header.producer_id, header.base_offset)

    def is_aborted(self, producer_id: int, offset: int) -> bool:
        return any(
            aborted.producer_id == producer_id and aborted.first_offset <= offset <= aborted.last_offset
            for aborted in self.aborted
        )

    def forget(self, start_offset: int, now_ms: int) -> None:
        """Drops aborted transactions below the log's start and producers that have been silent for a day."""
        self.aborted = [aborted for aborted in self.aborted if aborted.last_offset >= start_offset]
        silent = [
            producer_id
            for producer_id, producer in self.producers.items()
            if producer.seen_ms < now_ms - EXPIRY_MS and producer_id not in self.open_since
        ]
        for producer_id in silent:
            del self.producers[producer_id]

    def dump(self) -> dict[str, Any]:
        """The state as plain JSON values."""
        return {
            "producers": [
                [producer_id, producer.epoch, producer.seen_ms, list(producer.batches)]
                for producer_id, producer in self.producers.items()
            ],
            "open": list(self.open_since.items()),
            "aborted": self.aborted,
        }

    @classmethod
    def load(cls, dump: dict[str, Any]) -> "ProducerState":
        state = cls()
        for producer_id, epoch, seen_ms, batches in dump["producers"]:
            producer = state.producers[producer_id] = Producer(epoch, seen_ms)
            producer.batches.extend(SentBatch(*batch) for batch in batches)
        state.open_since = dict(dump["open"])
        state.aborted = [AbortedTransaction(*aborted) for aborted in dump["aborted"]]
        return state
