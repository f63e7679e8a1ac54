"""Claims on jobs: messages on `retrain-events`, keyed by job; of two on one attempt the first counts.

Owns who may work on an attempt, and the publishing of every step. ClickHouse has a copy only: the
order of the log is the arbiter.
"""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from schemas.clock import Clock
from schemas.connections import Runtime
from schemas.events import RetrainEvent, RetrainEventType, decode_event, encode_event
from store.log import Producer, TopicReader

_TIMEOUT_S = 10.0


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
        self._owners: dict[str, dict[int, str]] = {}
        self._started: dict[str, set[int]] = {}

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
        if attempt not in self._owners.get(job_id, {}):
            self.publish(job_id, model, "claimed", attempt, {"instance": self.instance})
        return self.holds(job_id, attempt)

    def holds(self, job_id: str, attempt: int) -> bool:
        """Say whether the attempt is ours and is the last one claimed, as of the log's present end."""
        self.refresh()
        owners = self._owners.get(job_id, {})
        return bool(owners) and attempt == max(owners) and owners[attempt] == self.instance

    def find_last_attempt(self, job_id: str) -> int:
        """Return the last attempt that anybody has claimed, 0 if none; as of the last refresh."""
        return max(self._owners.get(job_id, {}), default=0)

    def count_started(self, job_id: str) -> int:
        """Count the attempts that came as far as training; as of the last refresh."""
        return len(self._started.get(job_id, ()))

    def refresh(self) -> None:
        """Read the log to its present end."""
        for message in self._reader.read_to_end(_TIMEOUT_S):
            if message.value is None:
                continue
            try:
                event = decode_event(RetrainEvent, message.value)
            except msgspec.MsgspecError:
                continue  # somebody else's message; it claims nothing
            if event.type == "claimed":
                owners = self._owners.setdefault(event.job_id, {})
                owners.setdefault(event.attempt, str(event.detail.get("instance", "")))
            elif event.type == "started":
                self._started.setdefault(event.job_id, set()).add(event.attempt)

    def forget(self, job_id: str) -> None:
        """Drop what is known of a job that is over."""
        self._owners.pop(job_id, None)
        self._started.pop(job_id, None)

    def close(self) -> None:
        """Leave the broker."""
        self._producer.close()
        self._reader.close()
