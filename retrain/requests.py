"""Requests as the trainer takes them in: read from `retrain-requests`, done with before they are committed.

Owns the consumer group. It must not know jobs.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import msgspec
from confluent_kafka import Consumer, KafkaException

from schemas.connections import Runtime
from schemas.errors import Retryable
from schemas.events import RetrainRequest, decode_event

log = logging.getLogger(__name__)

_GROUP = "driftloop-train"
_NUM_MESSAGES_MAX = 100


class RequestQueue:
    """The requests of the partitions that this worker has been given."""

    def __init__(self, runtime: Runtime) -> None:
        self._pending: deque[RetrainRequest] = deque()
        self._committed = True
        self._consumer = Consumer(
            runtime.kafka.librdkafka(
                group_id=runtime.topics(_GROUP),
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                session_timeout_ms=10_000,
            )
        )
        self._consumer.subscribe([runtime.topics("retrain-requests")])

    def drain(self, admit: Callable[[RetrainRequest], None], timeout_s: float) -> None:
        """Wait up to `timeout_s` for requests and hand each to `admit`, in order; then commit.

        What `admit` raises leaves the request and those behind it for the next call. A request may come
        again, so `admit` must be safe to repeat.
        """
        if not self._pending:
            self._read(timeout_s)
        while self._pending:
            admit(self._pending[0])
            self._pending.popleft()
        if not self._committed:
            self._commit()

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _read(self, timeout_s: float) -> None:
        for message in self._consumer.consume(_NUM_MESSAGES_MAX, timeout=timeout_s):
            error = message.error()
            if error is not None:
                if not error.retriable():
                    raise Retryable(f"cannot read retrain requests: {error.str()}")
                continue
            self._committed = False
            try:
                self._pending.append(decode_event(RetrainRequest, message.value() or b""))
            except msgspec.MsgspecError as reason:
                place = f"{message.topic()} partition {message.partition()} offset {message.offset()}"
                log.error("%s is no retrain request and is passed over: %s", place, reason)

    def _commit(self) -> None:
        try:
            self._consumer.commit(asynchronous=False)
            self._committed = True
        except KafkaException as error:
            # Another worker may have the partition by now; it then meets known requests, which start nothing.
            log.warning("the place in retrain-requests was not committed, requests may come again: %s", error)
            self._committed = True
