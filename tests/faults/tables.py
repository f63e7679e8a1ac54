"""The oracle's tables: which events the store is to keep, and events as frames by window and version.

Imports nothing of the product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from tests.faults.log_order import Event, Replayed
from tests.faults.models import DESCRIBE, HOUR_MS, Model


@dataclass(frozen=True)
class Stored:
    """Rows of the event tables, each identity once; sorted columns by place."""

    records: list[Event]
    predictions: list[Event]
    labels: list[Event]


def find_stored(replayed: Replayed) -> Stored:
    """Of equal records and predictions of an hour the first in the log counts, of labels the latest."""
    first: dict[tuple[str, str, str, str, int], Event] = {}
    latest: dict[tuple[str, str], Event] = {}
    for event in replayed.events:
        if event.topic == "labels":
            known = latest.get((event.model.name, event.record_id))
            if known is None or (event.ts, event.offset, event.row) > (known.ts, known.offset, known.row):
                latest[event.model.name, event.record_id] = event
        else:
            identity = (event.topic, event.model.name, event.version, event.record_id, event.ts // HOUR_MS)
            earlier = first.setdefault(identity, event)
            if event.place < earlier.place:
                first[identity] = event
    return Stored(
        [event for event in first.values() if event.topic == "records"],
        [event for event in first.values() if event.topic == "predictions"],
        list(latest.values()),
    )


def name_roles(model: Model, reference: pd.DataFrame) -> pd.DataFrame:
    named = reference.rename(columns={column: role for role, column in model.columns.items()})
    return _to_numbers(model, _describe(model, named))


def take_once(events: list[Event]) -> list[Event]:
    """Of predictions stored under several hours the first in the log."""
    first: dict[tuple[str, str], Event] = {}
    for event in sorted(events, key=lambda e: e.place):
        first.setdefault((event.version, event.record_id), event)
    return list(first.values())


def leave_out_repeated(counted: list[Event], stored: list[Event], *, any_version: bool = False) -> list[Event]:
    """Of counted events those that the rows of their window give.

    A partition forgets an identity once its time is past the window's retention; the store still has the earlier event,
    and of rows the first in the log counts, within one retention around the window. Both stand in one partition.
    """
    earlier: dict[tuple[str, str], list[Event]] = {}
    for event in stored:
        earlier.setdefault(("" if any_version else event.version, event.record_id), []).append(event)

    def is_first(event: Event) -> bool:
        model = event.model
        since, until = event.window - model.retention_ms, event.window + model.size_ms + model.retention_ms
        others = earlier["" if any_version else event.version, event.record_id]
        return not any(other.place < event.place and since <= other.ts < until for other in others)

    return [event for event in counted if is_first(event)]


def tabulate(
    model: Model, events: list[Event], label: dict[str, float] | None = None, *, is_input: bool = False
) -> dict[Any, pd.DataFrame]:
    """Give the events as tables by (window, version), inputs having the version ''; under None an empty one.

    `label` has by record_id what is to stand in the column `label`.
    """
    columns: dict[str, list[Any]] = {
        "record_id": [e.record_id for e in events],
        "window": [e.window for e in events],
        "version": ["" if is_input else e.version for e in events],
        "prediction": [e.body.get("prediction") for e in events],
        "score": [e.body.get("score") for e in events],
        "label": [(label or {}).get(e.record_id) for e in events],
        **{name: [(e.body.get("features") or {}).get(name) for e in events] for name in model.features},
    }
    table = _to_numbers(model, _describe(model, pd.DataFrame(columns, dtype=object)))
    return {None: table.iloc[:0], **dict(iter(table.groupby(["window", "version"])))}


def _describe(model: Model, table: pd.DataFrame) -> pd.DataFrame:
    """Add the numbers that describe texts; none where there is no text."""
    numbers = {}
    for name in model.measured.keys() - model.features.keys():
        text, _, number = name.partition(".")
        numbers[name] = [DESCRIBE[number](value) if isinstance(value, str) else None for value in table[text]]
    return table.assign(**numbers)


def _to_numbers(model: Model, table: pd.DataFrame) -> pd.DataFrame:
    numeric = [name for name, feature in model.measured.items() if feature.type in ("number", "boolean")]
    outputs = [name for name in ("prediction", "score", "label") if name in table]
    return table.astype(dict.fromkeys(numeric + outputs, float))
