"""A steady stream with everything that goes wrong at producers: late events, repeated ones, too late ones, nonsense.

Events are keyed by `record_id`, as producers are told to, so that repetitions meet in one partition.
"""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np

from bench.events import MODEL, JsonEvents, read_now_ms
from schemas.connections import Runtime
from store.log import Producer

TICK_S = 0.1
FLUSH_TIMEOUT_S = 60.0
# Of all events: sent once more within the time below; given a label after it.
REPEATED, LABELLED = 0.02, 0.1
DELAY_S = 15.0
# Late events come in bursts, as from a producer that was cut off; each burst in milliseconds late, up to:
BURST_S = 5.0
NUM_LATE, NUM_TOO_LATE, NUM_INVALID = 50, 5, 5
TOO_LATE_MS = 86_400_000


class UnrulyStream:
    """Sends from a thread of its own until the block ends; `num_sent` predictions are in the log or on their way."""

    def __init__(self, runtime: Runtime, num_per_s: int, late_ms: int) -> None:
        """`late_ms` is how late an event may be and still count."""
        self._runtime = runtime
        self._num_per_s = num_per_s
        self._late_ms = late_ms
        self._events = JsonEvents()
        self._rng = np.random.default_rng(5)
        self._sent: deque[tuple[float, int, int]] = deque()  # when, number, ts: what may be repeated and labelled
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: Exception | None = None
        self._number = 0
        self.num_sent = 0

    def __enter__(self) -> UnrulyStream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(FLUSH_TIMEOUT_S)

    def require_alive(self) -> None:
        """Raise RuntimeError when sending has failed."""
        if self._failure is not None:
            raise RuntimeError("sending failed") from self._failure

    def _run(self) -> None:
        try:
            self._producer = Producer(self._runtime.kafka)
            self._send()
            self._producer.flush(FLUSH_TIMEOUT_S)
            self._producer.close()
        except Exception as failure:
            self._failure = failure

    def _send(self) -> None:
        started_s = burst_s = time.monotonic()
        num_regular = 0
        while not self._stop.wait(TICK_S):
            now_s = time.monotonic()
            until = int((now_s - started_s) * self._num_per_s)
            for _ in range(until - num_regular):
                self._send_new(read_now_ms(), now_s)
            num_regular = until
            self._send_again(now_s)
            if now_s - burst_s >= BURST_S:
                burst_s = now_s
                self._send_burst(now_s)

    def _send_new(self, ts_ms: int, now_s: float) -> None:
        self._send_prediction(self._number, ts_ms)
        self._sent.append((now_s, self._number, ts_ms))
        self._number += 1

    def _send_again(self, now_s: float) -> None:
        while self._sent and now_s - self._sent[0][0] >= DELAY_S:
            _, number, ts_ms = self._sent.popleft()
            chance = self._rng.random()
            if chance < REPEATED:
                self._send_prediction(number, ts_ms)
            elif chance < REPEATED + LABELLED:
                label = b'{"record_id":"r%010d","model":"%s","ts":%d,"label":%d}'
                value = label % (number, MODEL.encode(), ts_ms + 1, number % 3 == 0)
                self._producer.produce(self._runtime.topics("labels"), f"r{number:010d}", value)

    def _send_burst(self, now_s: float) -> None:
        for _ in range(NUM_LATE):
            self._send_new(read_now_ms() - int(self._rng.integers(self._late_ms)), now_s)
        for _ in range(NUM_TOO_LATE):
            self._send_new(read_now_ms() - TOO_LATE_MS, now_s)
        for _ in range(NUM_INVALID):
            self._producer.produce(self._runtime.topics("predictions"), None, b'{"model":"%s"}' % MODEL.encode())
            self.num_sent += 1

    def _send_prediction(self, number: int, ts_ms: int) -> None:
        value = self._events.make(number, ts_ms)
        self._producer.produce(self._runtime.topics("predictions"), f"r{number:010d}", value)
        self.num_sent += 1
