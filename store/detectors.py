"""Online detectors in the store: their states after each window, and the changes that they flagged."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from store.client import ClickHouse


class DetectorKey(NamedTuple):
    """Which detector: its name and what it is fed, for a model and version ('' for features)."""

    model: str
    model_version: str
    detector: str
    on: str


class DetectorState(NamedTuple):
    """The signed state after the last window that was fed; the instant is epoch ms."""

    window_start: int
    state: bytes
    num_updates: int


class Detection(NamedTuple):
    """One change: `row_number` counts the rows fed since the detector began, from 0; instants are epoch ms."""

    row_number: int
    record_id: str
    ts: int
    window_start: int


def read_last_state(ch: ClickHouse, key: DetectorKey) -> DetectorState | None:
    """Return the state after the last window that was fed; None before the first."""
    rows = ch.query(
        """
        SELECT toUnixTimestamp64Milli(window_start), state, num_updates
        FROM detector_states FINAL
        WHERE model = {model:String} AND model_version = {version:String}
          AND detector = {detector:String} AND on = {on:String}
        ORDER BY detector_states.window_start DESC
        LIMIT 1
        """,
        {"model": key.model, "version": key.model_version, "detector": key.detector, "on": key.on},
    )
    return DetectorState(rows[0][0], base64.b64decode(rows[0][1]), rows[0][2]) if rows else None


def read_fed_windows(ch: ClickHouse, model: str, on: str) -> dict[str, int]:
    """Return per version the start (epoch ms) of the last window that all detectors on `on` were fed."""
    rows = ch.query(
        """
        SELECT model_version, toUnixTimestamp64Milli(min(last_start))
        FROM
        (
            SELECT model_version, detector, max(s.window_start) AS last_start
            FROM detector_states AS s FINAL
            WHERE model = {model:String} AND on = {on:String}
            GROUP BY model_version, detector
        )
        GROUP BY model_version
        """,
        {"model": model, "on": on},
    )
    return dict(rows)


def insert_state(ch: ClickHouse, key: DetectorKey, state: DetectorState) -> None:
    """Record the state after a window; only once its detections are stored. Safe to replay."""
    ch.insert_rows(
        "detector_states",
        [
            {
                **key._asdict(),
                "window_start": _instant(state.window_start),
                # In base64, since the driver takes a String for UTF-8.
                "state": base64.b64encode(state.state).decode(),
                "num_updates": state.num_updates,
            }
        ],
    )


def insert_detections(ch: ClickHouse, key: DetectorKey, detections: Sequence[Detection]) -> None:
    """Insert flagged changes; safe to replay."""
    ch.insert_rows(
        "detections",
        [
            {
                **key._asdict(),
                "row_number": each.row_number,
                "record_id": each.record_id,
                "ts": _instant(each.ts),
                "window_start": _instant(each.window_start),
            }
            for each in detections
        ],
    )


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
