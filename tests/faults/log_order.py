"""The oracle's first half: what became of every event, decided one by one in the order of the log.

Written to be read, not to be fast: a loop per event, a dictionary per question. Imports nothing of the product.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tests.faults.arrivals import ARROW, read_time
from tests.faults.models import MODELS, Model

Place = tuple[str, int, int, int]  # topic, partition, offset, row
CountKey = tuple[str, int, str, str, str, int]  # topic, partition, model, version, segment, window_start

_FUTURE_MS = 300_000
_SECONDS_BELOW = 100_000_000_000


@dataclass(frozen=True)
class Entry:
    """One message as a plain consumer reads it back."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: bytes
    headers: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass(frozen=True)
class Refused:
    """Why a row is a dead letter; `raw` is None where it is not the message as it was sent."""

    reason: str
    model: str
    stage: str
    raw: bytes | None


@dataclass(slots=True)
class Event:
    """A valid event and what became of it in the order of its partition."""

    topic: str
    partition: int
    offset: int
    row: int
    model: Model
    record_id: str
    ts: int
    window: int
    body: dict[str, Any]
    version: str = ""
    is_counted: bool = False
    is_counted_input: bool = False

    @property
    def place(self) -> tuple[int, int, int]:
        return self.partition, self.offset, self.row


@dataclass
class Counts:
    """One partition's counts of one window, as stage 1 is to have them."""

    num_rows: int = 0
    num_duplicates: int = 0
    num_late: int = 0


@dataclass
class Replayed:
    """The whole log, decided."""

    events: list[Event] = field(default_factory=list)
    refused: dict[Place, Refused] = field(default_factory=dict)
    counts: dict[CountKey, Counts] = field(default_factory=dict)


def replay(entries: Iterable[Entry], segments: dict[str, dict[str, set[str]]]) -> Replayed:
    """Decide every row; `entries` are in order within their partition, `segments` has each key's known values."""
    found = Replayed()
    partitions: dict[tuple[str, int], _Partition] = {}
    for entry in entries:
        place = (entry.topic, entry.partition)
        if place not in partitions:
            partitions[place] = _Partition(found, segments)
        partitions[place].take(entry)
    return found


class _Partition:
    """One partition's time and memory. A watermark is the largest time so far less the lateness, per model and version.

    '' is the version of records, and of the features that predictions carry.
    """

    def __init__(self, found: Replayed, segments: dict[str, dict[str, set[str]]]) -> None:
        self.found = found
        self.segments = segments
        self.watermarks: dict[tuple[str, str], float] = {}
        self.seen_until: dict[tuple[str, str, str], int] = {}

    def take(self, entry: Entry) -> None:
        """Decide a message's rows; all of them meet the watermarks from before the message."""
        before = dict(self.watermarks)
        for row, content in _read_rows(entry):
            reason = content if isinstance(content, str) else _find_reason(entry, content)
            if reason:
                whole = row == 0 and entry.value[:1] != b"[" and not entry.headers
                name = content.get("model") if isinstance(content, dict) else ""
                letter = Refused(reason, name or "", "validate", entry.value if whole else None)
                self.found.refused[entry.topic, entry.partition, entry.offset, row] = letter
            elif isinstance(content, dict):
                self._decide(_make_event(entry, row, content), before)

    def _decide(self, event: Event, before: dict[tuple[str, str], float]) -> None:
        self.found.events.append(event)
        model, version = event.model, event.version
        expires_at = event.window + model.size_ms + model.retention_ms
        if event.topic != "labels":
            watermark = before.get((model.name, version), -math.inf)
            if expires_at <= watermark:
                place = (event.topic, event.partition, event.offset, event.row)
                self.found.refused[place] = Refused("too_late", model.name, "count", None)
            else:
                event.is_counted = self._remember(event, version, watermark, expires_at)
                self._count(event, version, event.is_counted, watermark)
        if event.topic == "predictions":
            # Features that came along count once, whichever version brought them first.
            watermark = before.get((model.name, ""), -math.inf)
            if event.body.get("features") is not None and expires_at > watermark:
                event.is_counted_input = self._remember(event, "", watermark, expires_at)
                if event.is_counted_input:
                    self._count(event, "", True, watermark)
        for name in {version, ""}:
            last = self.watermarks.get((model.name, name), -math.inf)
            self.watermarks[model.name, name] = max(last, event.ts - model.lateness_ms)

    def _remember(self, event: Event, version: str, watermark: float, expires_at: int) -> bool:
        """Say whether it is the first of its identity, as far as that is still remembered."""
        identity = (event.model.name, version, event.record_id)
        if self.seen_until.get(identity, -math.inf) > watermark:
            return False
        self.seen_until[identity] = expires_at
        return True

    def _count(self, event: Event, version: str, is_new: bool, watermark: float) -> None:
        names = [""]
        for key, known in self.segments[event.model.name].items():
            value = segment_of(event, key)
            names.append(f"{key}={value if value in known else '__other__'}")
        for name in names:
            key = (event.topic, event.partition, event.model.name, version, name, event.window)
            counts = self.found.counts.setdefault(key, Counts())
            counts.num_rows += is_new
            counts.num_duplicates += not is_new
            counts.num_late += is_new and watermark >= event.window + event.model.size_ms


def segment_of(event: Event, key: str) -> str | None:
    """Give an event's value of a segment key; in this stream it is always a feature."""
    value: str | None = (event.body.get("features") or {}).get(key)
    return value


def _read_rows(entry: Entry) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Give a message's rows: an event, or the reason why there is none."""
    if not entry.value:
        yield 0, "empty"
    elif ("content-type", ARROW.encode()) in entry.headers:
        with pa.ipc.open_stream(entry.value) as reader:
            yield from enumerate(reader.read_all().to_pylist())
    elif entry.value[0] == 0:
        yield 0, "unknown_encoding"
    else:
        try:
            content = json.loads(entry.value)
        except ValueError:
            yield 0, "malformed"
            return
        for row, each in enumerate(content if isinstance(content, list) else [content]):
            yield row, each if isinstance(each, dict) else "wrong_type"


def _find_reason(entry: Entry, body: dict[str, Any]) -> str:
    """Say why a row is refused; empty if it is valid. Knows the mistakes that this stream makes, no others."""
    if b"NaN" in entry.value and not entry.headers:
        return "not_finite"
    name = body.get("model")
    if not name or not body.get("record_id"):
        return "missing_field"
    if name not in MODELS:
        return "unknown_model"
    ts = body["ts"]
    if isinstance(ts, str):
        try:
            ts = read_time(ts)
        except ValueError:
            return "wrong_type"
    if ts < _SECONDS_BELOW:
        return "seconds"
    if ts > entry.timestamp_ms + _FUTURE_MS:
        return "future"
    return _find_wrong_content(entry.topic, MODELS[name], body)


def _find_wrong_content(topic: str, model: Model, body: dict[str, Any]) -> str:
    if topic == "labels":
        return _find_wrong_outcome(model, body.get("label"), required=True)
    if topic == "predictions":
        score = body.get("score")
        if score is not None and not 0 <= score <= 1:
            return "out_of_range"
        if reason := _find_wrong_outcome(model, body.get("prediction"), required=score is None):
            return reason
    features = body.get("features")
    if features is None:
        return "missing_field" if topic == "records" else ""
    if not isinstance(features, dict):
        return "wrong_type"
    for name, declared in model.features.items():
        value = features.get(name)
        if value is None:
            continue
        if declared.type in ("number", "boolean") and not isinstance(value, int | float):
            return "wrong_type"
        if declared.type == "boolean" and value not in (0, 1):
            return "wrong_type"
    return ""


def _find_wrong_outcome(model: Model, value: Any, *, required: bool) -> str:
    if value is None:
        return "missing_field" if required else ""
    if not isinstance(value, int | float):
        return "wrong_type"
    return "out_of_range" if model.task == "binary" and value not in (0, 1) else ""


def _make_event(entry: Entry, row: int, body: dict[str, Any]) -> Event:
    ts = body["ts"] if isinstance(body["ts"], int) else read_time(body["ts"])
    version = (body.get("model_version") or "external") if entry.topic == "predictions" else ""
    model = MODELS[body["model"]]
    window = ts // model.size_ms * model.size_ms
    place = (entry.topic, entry.partition, entry.offset, row)
    return Event(*place, model, body["record_id"], ts, window, body, version)
