"""Claims on jobs: messages on `retrain-events`, keyed by job; of two on one attempt the first counts.

Owns who may work on an attempt and for how long, and the publishing of every step. ClickHouse has a copy only: the
order of the log is the arbiter, and the time at which the broker took a message in is the clock.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import msgspec

from schemas.clock import Clock
from schemas.connections import Runtime
from schemas.events import RetrainEvent, RetrainEventType, decode_event, encode_event
from store.log import Producer, TopicReader

HEARTBEAT_S = 5.0
# A claim whose worker has been silent for longer has lapsed: three beats, and some for a busy machine.
LEASE_MS = int(4 * HEARTBEAT_S * 1000)

_TIMEOUT_S = 10.0


@dataclass(slots=True)
class _Known:
    """What the log says of one job; `owners` are instances by attempt."""

    owners: dict[int, str] = field(default_factory=dict)
    started: set[int] = field(default_factory=set)
    cancelled: str = ""


class ClaimLog:
    """The claims on all jobs as the log has them, and this worker's own voice in it.

    `instance` is new with every start: a worker that starts again under its old name is another one.
    """

    def __init__(self, runtime: Runtime, worker: str, clock: Clock) -> None:
        self.worker = worker
        self.instance = uuid.uuid4().hex
        self._clock = clock
        self._topic = runtime.topics("retrain-events")
        self._producer = Producer(runtime.kafka)
        self._reader = TopicReader(runtime.kafka, self._topic)
        self._jobs: dict[str, _Known] = {}
        # When each instance has last said that it lives, broker time.
        self._alive_ms: dict[str, int] = {}
        # The newest broker time that was read, and when it was.
        self._newest_ms, self._newest_s = 0, clock.monotonic_s()

    def publish(self, job_id: str, model: str, kind: RetrainEventType, attempt: int, detail: dict[str, Any]) -> None:
        """Put one step of a job on the log; in it when this returns. Readers may see a step twice."""
        event = RetrainEvent(
            job_id=job_id,
            model=model,
            type=kind,
            attempt=attempt,
            worker=self.worker,
            at=self._clock.now_ms(),
            detail=detail,
        )
        self._producer.produce(self._topic, job_id, encode_event(event))
        self._producer.flush(_TIMEOUT_S)

    def claim(self, job_id: str, model: str, attempt: int) -> bool:
        """Claim an attempt; True if ours is the first claim on it and no later attempt is claimed."""
        self.refresh()
        if attempt not in self._know(job_id).owners:
            self.publish(job_id, model, "claimed", attempt, {"instance": self.instance})
        return self.holds(job_id, attempt)

    def holds(self, job_id: str, attempt: int) -> bool:
        """Say whether the attempt is ours and is the last one claimed, as of the log's present end."""
        self.refresh()
        owners = self._know(job_id).owners
        return bool(owners) and attempt == max(owners) and owners[attempt] == self.instance

    def beat(self) -> None:
        """Give a sign of life: one message, however many jobs are held."""
        self.publish(f"worker/{self.worker}", "", "heartbeat", 0, {"instance": self.instance})

    def has_lapsed(self, job_id: str) -> bool:
        """Say whether nobody has claimed a job, or whoever did has been silent for the lease; as of the last refresh.

        The broker's present time is not known, but it is at least its newest message's plus the time since that was
        read: so a claim lapses late rather than early, and a worker that has just started waits for one lease.
        """
        known = self._know(job_id)
        if not known.owners:
            return True
        now_ms = self._newest_ms + int((self._clock.monotonic_s() - self._newest_s) * 1000)
        return now_ms - self._alive_ms.get(known.owners[max(known.owners)], 0) > LEASE_MS

    def find_cancelled(self, job_id: str) -> str:
        """Return why a job is to be cancelled, empty if nobody asks for it; as of the last refresh."""
        return self._know(job_id).cancelled

    def find_last_attempt(self, job_id: str) -> int:
        """Return the last attempt that anybody has claimed, 0 if none; as of the last refresh."""
        return max(self._know(job_id).owners, default=0)

    def count_started(self, job_id: str) -> int:
        """Count the attempts that came as far as training; as of the last refresh."""
        return len(self._know(job_id).started)

    def refresh(self) -> None:
        """Read the log to its present end."""
        for message in self._reader.read_to_end(_TIMEOUT_S):
            if message.timestamp_ms > self._newest_ms:
                self._newest_ms, self._newest_s = message.timestamp_ms, self._clock.monotonic_s()
            if message.value is None:
                continue
            try:
                event = decode_event(RetrainEvent, message.value)
            except msgspec.MsgspecError:
                continue  # somebody else's message; it claims nothing
            self._take_in(event, message.timestamp_ms)

    def forget(self, job_id: str) -> None:
        """Drop what is known of a job that is over."""
        self._jobs.pop(job_id, None)

    def close(self) -> None:
        """Leave the broker."""
        self._producer.close()
        self._reader.close()

    def _take_in(self, event: RetrainEvent, broker_ms: int) -> None:
        instance = str(event.detail.get("instance", ""))
        if event.type in ("claimed", "heartbeat"):
            self._alive_ms[instance] = max(self._alive_ms.get(instance, 0), broker_ms)
        if event.type == "heartbeat":
            return
        known = self._jobs.setdefault(event.job_id, _Known())
        if event.type == "claimed":
            known.owners.setdefault(event.attempt, instance)
        elif event.type == "started":
            known.started.add(event.attempt)
        elif event.type == "cancel":
            known.cancelled = str(event.detail.get("reason", "")) or "cancelled"

    def _know(self, job_id: str) -> _Known:
        return self._jobs.get(job_id) or _Known()
