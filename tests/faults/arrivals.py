"""A stream in the order in which it arrives: late, out of order, repeated, corrected, refused, and beyond retention.

Which event is late, a duplicate or too late is not decided here: that follows from the log, and is recomputed from it.
Imports nothing of the product.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from tests.faults.models import HOUR_MS, LOANS, RENTS, SPAN_MS, START_MS, Model, make_loans, make_rents

NUM_PARTITIONS = 4
ARROW = "application/vnd.apache.arrow.stream"

# Of every kind of event: how many come late, beyond their window's retention, again, and again with another time.
_LATE_SHARE = 0.02
_TOO_LATE_SHARE = 0.005
_REPEATED_SHARE = 0.04
_MOVED_SHARE = 0.003
_REFUSED_SHARE = 0.003
_TEXT_TIME_SHARE = 0.1


@dataclass(frozen=True)
class Message:
    """One message of an inbound topic."""

    topic: str
    partition: int
    value: bytes
    headers: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass
class _Events:
    """Events of one topic as they are to be sent: columns of equal length."""

    topic: str
    arrival: np.ndarray
    record_id: list[str]
    bodies: list[dict[str, object]]


def make_stream(num_events: int, seed: int) -> list[Message]:
    """Give at least `num_events` events as they arrive, most of them in a message of their own."""
    rng = np.random.default_rng(seed)
    parts = [*_make_loans_events(rng, int(num_events * 0.26)), *_make_rents_events(rng, int(num_events * 0.1))]
    messages: list[Message] = []
    arrivals: list[np.ndarray] = []
    for events in parts:
        values = _encode_all(rng, events)
        messages += [
            Message(events.topic, zlib.crc32(record_id.encode()) % NUM_PARTITIONS, value)
            for record_id, value in zip(events.record_id, values, strict=True)
        ]
        arrivals.append(events.arrival)
    refused, refused_at = _make_refused(rng, int(num_events * _REFUSED_SHARE))
    messages += refused
    arrivals.append(refused_at)
    order = np.argsort(np.concatenate(arrivals), kind="stable")
    return list(_batch_some([messages[index] for index in order.tolist()]))


def _make_loans_events(rng: np.random.Generator, num: int) -> Iterator[_Events]:
    ts = _draw_times(rng, num)
    rows = make_loans(rng, num, _drift_at(ts))
    ids = [f"L{number:07d}" for number in range(num)]
    features = [
        {name: value for name, value in zip(("amount", "age", "vip", "country"), row, strict=True) if value == value}
        for row in rows[["amount", "age", "vip", "country"]].astype(object).itertuples(index=False, name=None)
    ]
    records = [{"ts": at, "features": content} for at, content in zip(ts.tolist(), features, strict=True)]
    yield _send(rng, LOANS, "records", ids, ts, records, lambda body: _change_feature(body, "amount", 1.5), SPAN_MS)
    outputs = [
        {"ts": at, "prediction": prediction, "score": score}
        for at, prediction, score in zip(ts.tolist(), rows["y_pred"].tolist(), rows["y_proba"].tolist(), strict=True)
    ]
    # Moved within the hour: a sampled window's size is the number of stored predictions.
    yield _send(rng, LOANS, "predictions", ids, ts, outputs, lambda body: {**body, "score": 0.5}, HOUR_MS)
    yield _send_labels(rng, LOANS, ids, ts, rows["repaid"].tolist(), lambda label: 1 - label)


def _make_rents_events(rng: np.random.Generator, num: int) -> Iterator[_Events]:
    ts = _draw_times(rng, num)
    rows = make_rents(rng, num, _drift_at(ts))
    ids = [f"R{number:07d}" for number in range(num)]
    features = rows[["area", "rooms", "kind", "note"]].to_dict("records")
    bodies = [
        {"ts": at, "model_version": "7", "prediction": prediction, "features": content}
        for at, prediction, content in zip(ts.tolist(), rows["y_pred"].tolist(), features, strict=True)
    ]
    yield _send(rng, RENTS, "predictions", ids, ts, bodies, lambda body: _change_feature(body, "area", 2.0), SPAN_MS)
    # The other version follows behind, and scores only some of the same records, a few of them at another time.
    chosen = np.flatnonzero((rng.random(num) < 0.6) & (ts > START_MS + SPAN_MS // 4)).tolist()
    again = np.minimum(ts + (rng.random(num) < 0.05) * rng.integers(0, RENTS.size_ms, num), START_MS + SPAN_MS - 1)
    others = [
        {**bodies[index], "ts": int(again[index]), "model_version": "8",
         "prediction": round(float(rows["y_pred"][index]) * 1.02, 2),
         "features": {**features[index], "area": float(features[index]["area"]) + 0.25}}
        for index in chosen
    ]  # fmt: skip
    some = [ids[index] for index in chosen]
    events = _send(rng, RENTS, "predictions", some, again[chosen], others, lambda body: {**body, "prediction": 1.0},
                   SPAN_MS)  # fmt: skip
    events.arrival += 1.5 * RENTS.size_ms
    yield events
    yield _send_labels(rng, RENTS, ids, ts, rows["rent"].tolist(), lambda label: label + 100.0)


def _draw_times(rng: np.random.Generator, num: int) -> np.ndarray:
    return np.sort(rng.integers(START_MS, START_MS + SPAN_MS, num))


def _drift_at(ts: np.ndarray) -> np.ndarray:
    """Nothing changes in the first half, then everything little by little."""
    return np.clip((ts - START_MS) / SPAN_MS - 0.5, 0, None)


def _change_feature(body: dict[str, object], name: str, addition: float) -> dict[str, object]:
    features = dict(body["features"])  # type: ignore[call-overload]
    return {**body, "features": {**features, name: features[name] + addition}}


def _send(rng, model: Model, topic: str, ids, ts, bodies, change, moved_within_ms: int) -> _Events:  # type: ignore[no-untyped-def]
    """Give each event its arrival, and repeat some: unchanged, changed, or moved to another window of their hour."""
    num = len(ids)
    draw = rng.random(num)
    is_too_late, is_late = draw < _TOO_LATE_SHARE, draw < _TOO_LATE_SHARE + _LATE_SHARE
    delay = rng.uniform(0, model.lateness_ms, num)
    late = rng.uniform(model.lateness_ms, 0.9 * model.retention_ms, num)
    too_late = model.retention_ms + rng.uniform(0, 8 * model.size_ms, num)
    arrival = ts + np.where(is_too_late, too_late, np.where(is_late, late, delay))
    bodies = [
        {"record_id": record_id, "model": model.name, **body} for record_id, body in zip(ids, bodies, strict=True)
    ]
    out = _Events(topic, arrival, list(ids), list(bodies))
    extra: list[float] = []
    for index in np.flatnonzero(rng.random(num) < _REPEATED_SHARE).tolist():
        extra.append(arrival[index] + rng.uniform(0, 2 * model.size_ms) * (10 if rng.random() < 0.05 else 1))
        out.record_id.append(ids[index])
        out.bodies.append(change(bodies[index]) if rng.random() < 0.3 else bodies[index])
    # Only what came in time is repeated with another time: near the end of retention, what is a repetition differs
    # between the stream, which has forgotten the first, and the store, which has not.
    for index in np.flatnonzero((rng.random(num) < _MOVED_SHARE) & ~is_late).tolist():
        moved = int(ts[index]) + int(rng.choice([-1, 1])) * model.size_ms
        if START_MS <= moved < START_MS + SPAN_MS and moved // moved_within_ms == ts[index] // moved_within_ms:
            extra.append(max(arrival[index], moved) + rng.uniform(1, model.lateness_ms))
            out.record_id.append(ids[index])
            out.bodies.append({**bodies[index], "ts": moved})
    out.arrival = np.concatenate([arrival, extra])
    return out


def _send_labels(rng, model: Model, ids, ts, labels, correct) -> _Events:  # type: ignore[no-untyped-def]
    """Labels come one to three windows later, some windows lack too many, some labels are corrected."""
    num = len(ids)
    window = (ts - START_MS) // model.size_ms
    share = np.where(window % 7 == 3, 0.8, 0.97)
    at = ts + rng.integers(model.size_ms, 3 * model.size_ms, num)
    out = _Events("labels", np.empty(0), [], [])
    arrival: list[float] = []
    for index in np.flatnonzero(rng.random(num) < share).tolist():
        body = {"record_id": ids[index], "model": model.name, "ts": int(at[index]), "label": labels[index]}
        sent = [body]
        if rng.random() < 0.03:
            # Of corrections the latest counts, in whatever order they come; of equal times the last in the log.
            later = int(rng.choice([0, 1, model.size_ms]))
            sent.append({**body, "ts": body["ts"] + later, "label": correct(labels[index])})
        for each in sent:
            out.record_id.append(ids[index])
            out.bodies.append(each)
            arrival.append(at[index] + rng.uniform(0, 2 * model.size_ms))
    out.arrival = np.array(arrival)
    return out


def _encode_all(rng: np.random.Generator, events: _Events) -> list[bytes]:
    as_text = rng.random(len(events.bodies)) < _TEXT_TIME_SHARE
    encode = json.JSONEncoder(separators=(",", ":")).encode
    return [
        encode({**body, "ts": _write_time(body["ts"])} if text else body).encode()  # type: ignore[arg-type]
        for body, text in zip(events.bodies, as_text.tolist(), strict=True)
    ]


def _write_time(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _make_refused(rng: np.random.Generator, num: int) -> tuple[list[Message], np.ndarray]:
    """Messages of which something is refused, and their arrivals; `log_order` says what, and with which reason."""
    arrival = rng.integers(START_MS, START_MS + SPAN_MS, num)
    # Few of an unknown model, since each makes the worker ask for new specs.
    strangers = rng.integers(START_MS, START_MS + SPAN_MS, NUM_PARTITIONS)
    messages = [
        Message(topic, int(rng.integers(NUM_PARTITIONS)), value)
        for topic, value in (_refuse(number, int(at)) for number, at in enumerate(arrival))
    ]
    for partition, at in enumerate(strangers.tolist()):
        body = {"record_id": "x", "model": "nobody", "ts": at, "features": {"amount": 5.0}}
        messages.append(Message("records", partition, json.dumps(body).encode()))
    return messages, np.concatenate([arrival, strangers])


def _refuse(number: int, ts: int) -> tuple[str, bytes]:
    """Give the topic and value of a message that comes at `ts`: one mistake after the other."""
    good = {"record_id": "x", "model": "loans", "ts": ts, "features": {"amount": 5.0, "country": "DE"}}
    output = {"record_id": "x", "model": "loans", "ts": ts, "prediction": 1, "score": 0.5}
    label = {"record_id": "x", "model": "loans", "ts": ts, "label": 1}
    bodies: list[tuple[str, object]] = [
        ("records", b"{"),
        ("records", b"no JSON at all"),
        ("records", b""),
        ("labels", b"\x00\x00\x00\x00\x01"),
        ("records", b'{"record_id":"x","model":"loans","ts":%d,"features":{"amount":NaN}}' % ts),
        ("records", {**good, "record_id": ""}),
        ("records", {**good, "model": None}),
        ("records", {**good, "ts": ts // 1000}),
        ("records", {**good, "ts": 7_258_118_400_000}),
        ("records", {**good, "ts": "yesterday"}),
        ("records", {**good, "features": {"amount": "5.0"}}),
        ("records", {**good, "features": {"amount": 5.0, "vip": 2}}),
        ("records", {**good, "features": None}),
        ("records", {**good, "features": 7}),
        ("predictions", {**output, "score": 1.5}),
        ("predictions", {**output, "prediction": 2}),
        ("predictions", {"record_id": "x", "model": "loans", "ts": ts}),
        ("predictions", {**output, "model": "rents", "prediction": "many", "score": None}),
        ("labels", {**label, "label": None}),
        ("labels", {**label, "label": 3}),
        ("labels", {**label, "model": "rents", "label": [1]}),
        # The first row of the array counts, the second is refused.
        ("records", [{**good, "record_id": f"X{number:07d}"}, 7]),
    ]
    topic, body = bodies[number % len(bodies)]
    return topic, body if isinstance(body, bytes) else json.dumps(body).encode()


def _batch_some(messages: list[Message], num_batches: int = 12) -> Iterator[Message]:
    """Put many predictions of `rents` 7 into one message now and then, for each partition, as JSON or as Arrow."""
    num_rows = len(messages) // 1_000
    held: dict[int, list[Message]] = {}
    for position, message in enumerate(messages):
        if position % (len(messages) // num_batches) == 0:
            yield from (message for waiting in held.values() for message in waiting)
            held = {partition: [] for partition in range(NUM_PARTITIONS)}
        if (
            message.partition not in held
            or not message.value.startswith(b'{"record_id":"R')
            or (b'"model_version":"7"' not in message.value)
        ):
            yield message
            continue
        waiting = held[message.partition]
        waiting.append(message)
        if len(waiting) >= num_rows:
            del held[message.partition]
            yield _join_rows(waiting, is_arrow=position % 3 > 0)
    yield from (message for waiting in held.values() for message in waiting)


def _join_rows(messages: list[Message], is_arrow: bool) -> Message:
    topic, partition = messages[0].topic, messages[0].partition
    if not is_arrow:
        return Message(topic, partition, b"[" + b",".join(message.value for message in messages) + b"]")
    rows = [json.loads(message.value) for message in messages]
    for row in rows:
        row["ts"] = row["ts"] if isinstance(row["ts"], int) else read_time(row["ts"])
    table = pa.Table.from_pylist(rows)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Message(topic, partition, sink.getvalue(), [("content-type", ARROW.encode())])


def read_time(text: str) -> int:
    """Read an RFC 3339 instant as epoch milliseconds; ValueError if it is none."""
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
