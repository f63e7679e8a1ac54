"""Sends a source as events: window by window, as fast as asked for, in lockstep or not, drained or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from driftloop.replay.settling import Settling
from driftloop.replay.source import ReplaySource
from schemas.connections import Runtime
from schemas.errors import ConfigurationError
from schemas.spec import ModelSpec
from schemas.topics import INBOUND, WATERMARK_HEADER
from store.log import Producer, describe_topics

FLUSH_TIMEOUT_S = 120.0
# Events between two looks at the clock when a speed is asked for.
PACE_EVERY_ROWS = 200


@dataclass(frozen=True, slots=True)
class Pace:
    """`speed` is event time over clock time; None is as fast as it goes."""

    speed: float | None = None
    lockstep: bool = False
    drain: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What is sent until the watermark may say `end_ms`: rows [row_from, row_to), labels [label_from, label_to)."""

    end_ms: int
    row_from: int
    row_to: int
    label_from: int
    label_to: int


@dataclass(slots=True)
class Progress:
    num_records: int = 0
    num_predictions: int = 0
    num_labels: int = 0
    num_windows: int = 0


def cut_into_steps(source: ReplaySource, size_ms: int, origin_ms: int) -> list[Step]:
    """One step a window in which anything happens; labels that arrive later get steps of their own."""
    ends = np.union1d(
        (source.ts_ms - origin_ms) // size_ms, (source.label_ts_ms - origin_ms) // size_ms
    ) * size_ms + origin_ms + size_ms  # fmt: skip
    rows = np.searchsorted(source.ts_ms, ends, side="left")
    labels = np.searchsorted(source.label_ts_ms, ends, side="left")
    row_from, label_from = np.r_[0, rows][:-1], np.r_[0, labels][:-1]
    return [Step(*map(int, step)) for step in zip(ends, row_from, rows, label_from, labels, strict=True)]


def encode_plain(value: object) -> object:
    """What a Parquet file holds beside plain values: embeddings are arrays, and other types go as their text."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def inline_bytes(values: list[object]) -> list[object]:
    """Bare bytes, such as an image's, as events carry them; all else as it is."""
    return [{"bytes": value} if isinstance(value, bytes) else value for value in values]


class Replay:
    """One replay of one model. `run` returns what was sent; safe to repeat: events keep their ids."""

    def __init__(
        self,
        runtime: Runtime,
        spec: ModelSpec,
        source: ReplaySource,
        pace: Pace,
        model_version: str | None = None,
        on_step: Callable[[Step, Progress], None] | None = None,
    ) -> None:
        self.runtime = runtime
        self.spec = spec
        self.source = source
        self.pace = pace
        self.model_version = model_version
        self.on_step = on_step
        self.progress = Progress()
        self.steps = cut_into_steps(source, spec.windows.size_ms, spec.windows.origin_ms)
        self._encoder = msgspec.json.Encoder(enc_hook=encode_plain)

    def run(self, timeout_s: float) -> Progress:
        """Send everything; with lockstep or drain also wait until it is measured. Raises when that takes too long."""
        names = {name: self.runtime.topics(name) for name in INBOUND}
        described = describe_topics(self.runtime.kafka, names.values())
        partitions = {topic: count for topic, (_, count) in described.items()}
        missing = [topic for topic in names.values() if topic not in partitions]
        if missing:
            raise ConfigurationError(f"there is no topic {missing[0]!r}", remedy="Run `driftloop topics apply`")
        settling = Settling(self.runtime, self.spec.model)
        producer = Producer(self.runtime.kafka)
        began_s = time.monotonic()
        try:
            for step in self.steps:
                self.send(producer, names, step, began_s)
                if self.pace.lockstep or (self.pace.drain and step is self.steps[-1]):
                    self.advance_watermarks(producer, partitions, step.end_ms)
                    producer.flush(FLUSH_TIMEOUT_S)
                    settling.wait(self.find_since(step), step.end_ms, timeout_s)
                self.progress.num_windows += 1
                if self.on_step:
                    self.on_step(step, self.progress)
            producer.flush(FLUSH_TIMEOUT_S)
        finally:
            settling.close()
        return self.progress

    def find_since(self, step: Step) -> int:
        """The start of the first window that the step can have changed: by its rows, or by labels of earlier ones."""
        if not self.pace.lockstep:
            return int(self.source.ts_ms[0]) - self.spec.windows.size_ms
        return step.end_ms - 2 * self.spec.windows.size_ms - self.source.label_delay_ms

    def send(self, producer: Producer, names: dict[str, str], step: Step, began_s: float) -> None:
        for row, event in enumerate(self.build_records(step), step.row_from):
            if self.pace.speed and row % PACE_EVERY_ROWS == 0:
                self.keep_pace(int(self.source.ts_ms[row]), began_s)
            record_id = self.source.record_id[row]
            producer.produce(names["records"], record_id, event)
            self.progress.num_records += 1
            prediction = self.build_prediction(row)
            if prediction is not None:
                producer.produce(names["predictions"], record_id, prediction)
                self.progress.num_predictions += 1
        for i in range(step.label_from, step.label_to):
            label = {
                "record_id": self.source.label_id[i],
                "model": self.spec.model,
                "ts": int(self.source.label_ts_ms[i]),
                "label": self.source.label[i],
            }
            producer.produce(names["labels"], self.source.label_id[i], self._encoder.encode(label))
            self.progress.num_labels += 1

    def keep_pace(self, ts_ms: int, began_s: float) -> None:
        assert self.pace.speed
        due_s = began_s + (ts_ms - int(self.source.ts_ms[0])) / 1000 / self.pace.speed
        time.sleep(max(0.0, due_s - time.monotonic()))

    def build_records(self, step: Step) -> Iterator[bytes]:
        frame = self.source.features.iloc[step.row_from : step.row_to]
        names = list(frame.columns)
        columns = [inline_bytes(frame[name].astype(object).where(frame[name].notna(), None).tolist()) for name in names]
        encode, model = self._encoder.encode, self.spec.model
        ids = self.source.record_id[step.row_from : step.row_to]
        times = self.source.ts_ms[step.row_from : step.row_to].tolist()
        for record_id, ts_ms, *values in zip(ids, times, *columns, strict=True):
            yield encode(
                {"record_id": record_id, "model": model, "ts": ts_ms, "features": dict(zip(names, values, strict=True))}
            )

    def build_prediction(self, row: int) -> bytes | None:
        source = self.source
        event: dict[str, object] = {
            "record_id": source.record_id[row],
            "model": self.spec.model,
            "ts": int(source.ts_ms[row]),
        }
        if self.model_version:
            event["model_version"] = self.model_version
        if source.prediction is not None:
            event["prediction"] = source.prediction[row]
        if source.score is not None:
            event["score"] = source.score[row]
        if source.scores:
            event["scores"] = {name: values[row] for name, values in source.scores.items()}
        outputs = event.keys() & {"prediction", "score", "scores"}
        if not outputs or all(event[name] is None for name in outputs):
            return None
        return self._encoder.encode(event)

    def advance_watermarks(self, producer: Producer, partitions: dict[str, int], end_ms: int) -> None:
        """Say on every partition that nothing of the model before `end_ms` will follow."""
        headers = [(WATERMARK_HEADER, str(end_ms).encode())]
        for topic, count in partitions.items():
            for partition in range(count):
                producer.produce(topic, self.spec.model, None, headers=headers, partition=partition)
