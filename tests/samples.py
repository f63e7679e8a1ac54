"""Specs, batches and columns for tests of whatever reads events."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.columns import EventColumns, Kind
from schemas.messages import MessageBatch
from schemas.spec import Catalogue, PublishedSpec, parse_spec
from schemas.validation import Validated, validate

KEY = b"a key of the tests"
ARROW = [("content-type", b"application/vnd.apache.arrow.stream")]
# 2026-01-01T00:00:00Z, and an hour later when everything arrives.
START_MS = 1_767_225_600_000
ARRIVED_MS = START_MS + 3_600_000

SPEC = """
model: fraud
task: binary
reference: {file: reference.parquet}
windows: {size: 1h}
features:
  amount: {type: number, min: 0}
  vip: boolean
  country: category
  note: text
  shape: embedding
  photo: image
"""


def publish(text: str = SPEC, **changes: Any) -> PublishedSpec:
    """Give a spec as published, version 1 unless told otherwise."""
    given = {"spec_version": 1, "effective_from": 0, "published_at": 0, "reference_hash": "h", "reference_rows": 1}
    return PublishedSpec(spec=parse_spec(text, "spec.yaml"), **{**given, **changes})


def catalogue_of(*published: PublishedSpec) -> Catalogue:
    """Give a catalogue of these specs; of the sample spec if there are none."""
    catalogue = Catalogue()
    for one in published or (publish(),):
        catalogue.add(one)
    return catalogue


def batch_of(values: list[Any], headers: list[tuple[str, bytes]] | None = None, first: int = 0) -> MessageBatch:
    """Give a batch of values: bytes and None as they are, everything else as JSON."""
    encoded = [value if isinstance(value, bytes | None) else json.dumps(value).encode() for value in values]
    return MessageBatch(
        topic="records",
        topic_id="5f1c1cf8-4e0c-4d6f-a0ce-3a3a5ef7b5b7",
        partition=3,
        offsets=np.arange(first, first + len(values), dtype=np.int64),
        timestamps=np.full(len(values), ARRIVED_MS, dtype=np.int64),
        values=encoded,
        headers=dict.fromkeys(range(len(values)), headers) if headers else {},
    )


def read(kind: Kind, values: list[Any], *published: PublishedSpec, headers: Any = None, first: int = 0) -> Validated:
    """Validate values under these specs."""
    return validate(kind, batch_of(values, headers, first), catalogue_of(*published), KEY)


def record(**changes: Any) -> dict[str, Any]:
    """Give a valid record; a change to None leaves the field out."""
    event = {
        "record_id": "r1",
        "model": "fraud",
        "ts": "2026-01-01T00:00:00Z",
        "features": {"amount": 12.5, "country": "DE"},
        **changes,
    }
    return {name: value for name, value in event.items() if value is not None}


def arrow_of(events: list[dict[str, Any]]) -> bytes:
    """Give events as one Arrow IPC stream."""
    names = dict.fromkeys(name for event in events for name in event)
    table = pa.table({name: [event.get(name) for event in events] for name in names})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def as_rows(columns: list[EventColumns]) -> list[dict[str, Any]]:
    """Give every event as a dictionary of all that it has, so that different cuts of a log compare."""
    rows = []
    for part in columns:
        for position in range(part.num_rows):
            row: dict[str, Any] = {"model": part.model, "kind": part.kind}
            for name in part.__dataclass_fields__:
                if name not in row:
                    row[name] = _at(getattr(part, name), position)
            rows.append(row)
    return rows


def _at(column: Any, position: int) -> Any:
    if isinstance(column, dict):
        values = {name: _at(part, position) for name, part in column.items()}
        return {name: value for name, value in values.items() if value is not None and value is not False}
    value = None if column is None else column[position]
    value = value.item() if isinstance(value, np.generic) else value
    return None if value != value else value
