"""What the monitor tells the world through the log: measurements, alerts and retrain requests."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import msgspec

from schemas.connections import Runtime, TopicNames
from schemas.events import encode_event
from store.log import Producer

_FLUSH_TIMEOUT_S = 30.0


class Outlet(Protocol):
    """Takes events; `send` returns once all of them are in the log, and raises `Retryable` if they are not."""

    def send(self, topic: str, events: Sequence[msgspec.Struct], model: str) -> None: ...


class LogOutlet:
    """Sends events to their topics as JSON, keyed by model; safe for several threads."""

    def __init__(self, runtime: Runtime) -> None:
        self._topics: TopicNames = runtime.topics
        self._producer = Producer(runtime.kafka)
        self._lock = threading.Lock()

    def send(self, topic: str, events: Sequence[msgspec.Struct], model: str) -> None:
        """Send events in order and wait until all are in the log; safe to repeat, their ids do not change."""
        with self._lock:
            for event in events:
                self._producer.produce(self._topics(topic), model, encode_event(event))
            self._producer.flush(_FLUSH_TIMEOUT_S)

    def close(self) -> None:
        """Send what is queued, and forget what cannot be sent in time."""
        self._producer.close()
