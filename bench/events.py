"""Events of one invented model: a score, ten numbers, two categories, one of them a segment; about 350 bytes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from driftloop.applying import apply_spec
from schemas.connections import Runtime
from store.log import Producer

MODEL = "bench"
NUM_NUMBERS = 10
COUNTRIES = ("DE", "FR", "US", "GB", "IT")
CHANNELS = ("web", "app", "branch", "partner", "phone", "mail", "kiosk", "other")
NUM_POOL_ROWS = 20_000
NUM_REFERENCE_ROWS = 10_000
ARROW_HEADERS = [("content-type", b"application/vnd.apache.arrow.stream")]
FLUSH_TIMEOUT_S = 120.0
TICK_S = 0.01
# Numbers move by one standard deviation, which every distance notices.
SHIFT = 1.0


def make_frame(num_rows: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """Give features and score; `shift` moves the numbers by so many standard deviations and leaves the score alone."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        f"number_{i}": np.round(rng.normal(10.0 * i + shift, 1.0, num_rows), 6) for i in range(NUM_NUMBERS)
    }
    columns["country"] = rng.choice(COUNTRIES, num_rows)
    columns["channel"] = rng.choice(CHANNELS, num_rows)
    columns["score"] = np.round(rng.beta(2.0, 5.0, num_rows), 6)
    return pd.DataFrame(columns)


def apply_model(runtime: Runtime, window: str, more: str = "", threshold: str = "0.1") -> None:
    """Make topics and tables, and publish the model with windows of this duration, `more` being added to them.

    `threshold` is that of drift, a number or `calibrated`.
    """
    reference = make_frame(NUM_REFERENCE_ROWS, seed=1)
    reference["label"] = (np.random.default_rng(2).random(len(reference)) < reference["score"]).astype(int)
    folder = Path(runtime.data) / runtime.topics(MODEL)
    folder.mkdir()
    reference.to_parquet(folder / "reference.parquet")
    (folder / "bench.yaml").write_text(
        f"model: {MODEL}\ntask: binary\nreference: {{file: reference.parquet, interval: 1s}}\n"
        f"windows: {{size: {window}, lateness: 0s{more}}}\nsegments: [country]\ndrift: {{threshold: {threshold}}}\n"
        # A report would take memory and time that are no measuring's.
        "alerts: [{when: harm, report: false}, {when: drift, report: false}]\n"
    )
    apply_spec(runtime, folder / "bench.yaml")


class JsonEvents:
    """JSON predictions that carry their features; the features repeat after NUM_POOL_ROWS, the identities never."""

    def __init__(self, shift: float = 0.0) -> None:
        rows = make_frame(NUM_POOL_ROWS, seed=3, shift=shift).to_dict("records")
        scores = [row.pop("score") for row in rows]
        self._tails = [
            f'"score":{score},"features":{json.dumps(row, separators=(",", ":"))}}}'.encode()
            for score, row in zip(scores, rows, strict=True)
        ]

    def make(self, number: int, ts_ms: int) -> bytes:
        return b'{"record_id":"r%010d","model":"%s","ts":%d,%s' % (
            number,
            MODEL.encode(),
            ts_ms,
            self._tails[number % NUM_POOL_ROWS],
        )


def read_now_ms() -> int:
    return time.time_ns() // 1_000_000


class Feeder:
    """Sends events at an even pace from a thread of its own.

    `next_ts` gives their time (never falling), `is_shifted(ts_ms)` chooses between plain and shifted ones.
    """

    def __init__(
        self, runtime: Runtime, num_per_s: int, next_ts: Callable[[], int], is_shifted: Callable[[int], bool]
    ) -> None:
        self._runtime = runtime
        self._num_per_s = num_per_s
        self._next_ts = next_ts
        self._is_shifted = is_shifted
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._plain, self._shifted = JsonEvents(), JsonEvents(SHIFT)
        # The time of each tick's events, and when they had been handed to the producer (time.monotonic), in order.
        self.sent: list[tuple[int, float]] = []
        self._failure: Exception | None = None

    def __enter__(self) -> Feeder:
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
            self._send()
        except Exception as failure:
            self._failure = failure

    def _send(self) -> None:
        producer = Producer(self._runtime.kafka)
        topic = self._runtime.topics("predictions")
        number, started_s = 0, time.monotonic()
        while not self._stop.wait(TICK_S):
            until = int((time.monotonic() - started_s) * self._num_per_s)
            # One instant a tick: then the last event of a window is the last of a tick, on every partition.
            ts_ms = self._next_ts()
            events = self._shifted if self._is_shifted(ts_ms) else self._plain
            while number < until:
                partition = number % self._runtime.num_partitions
                producer.produce(topic, None, events.make(number, ts_ms), partition=partition)
                number += 1
            self.sent.append((ts_ms, time.monotonic()))
        producer.flush(FLUSH_TIMEOUT_S)
        producer.close()
