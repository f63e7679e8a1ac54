"""Feeds online detectors window by window and says what they flagged; who stores it is the caller's matter."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from measures.online import OnlineDetector
from schemas.events import Measurement
from schemas.spec import OnlineSpec, Task
from store.client import ClickHouse
from store.detectors import Detection, DetectorKey, DetectorState, read_last_state
from streams.logic.measured import WindowContext
from streams.logic.rows import Floats, Rows, sort_by_time

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Feed:
    """What one detector made of one window: to be stored in this order, the state last."""

    key: DetectorKey
    detections: list[Detection]
    measurement: Measurement
    state: DetectorState = field(repr=False)


def feed_window(
    ch: ClickHouse, context: WindowContext, rows: Rows, online: OnlineSpec, model_version: str, privacy_key: bytes
) -> Feed | None:
    """Feed one detector a window's rows in the order of (ts, record_id), from its state after the last fed window.

    None if that window, or a later one, was fed already: rows that come late are counted, not fed. None too if the
    window has nothing that the detector reads.
    """
    values = find_values(rows, online.on, context.spec.task)
    key = DetectorKey(context.spec.model, model_version, online.detector, online.on)
    last = read_last_state(ch, key)
    if values is None or rows.record_id is None or (last is not None and last.window_start >= context.window_start):
        return None
    detector = _restore(online, last, privacy_key)
    num_before = detector.num_updates
    order = sort_by_time(rows)
    ordered = values[order]
    try:
        flagged = detector.update(ordered)
    except ValueError as error:
        log.error("%s: window %d is not fed: %s", context.spec.model, context.window_start, error)
        return None
    # Missing values are passed over, and not counted.
    row_numbers = num_before + np.cumsum(~np.isnan(ordered)) - 1
    detections = [
        Detection(
            int(row_numbers[index]),
            str(rows.record_id[order[index]]),
            int(rows.ts[order[index]]),
            context.window_start,
        )
        for index in flagged
    ]
    measurement = context.make(
        "online",
        online.detector,
        len(flagged),
        "alert" if flagged else "ok",
        len(rows),
        model_version=model_version,
        feature=online.on,
    )
    state = DetectorState(context.window_start, detector.state(privacy_key), detector.num_updates)
    return Feed(key, detections, measurement, state)


def find_values(rows: Rows, on: str, task: Task) -> Floats | None:
    """Return what a detector reads: the score, the error (0 or 1; of a regression its size), or a numeric feature."""
    if on == "score":
        return rows.score
    if on != "error":
        return rows.numbers.get(on)
    if task == "multiclass":
        if rows.label_text is None or rows.prediction_text is None:
            return None
        known = (rows.label_text != None) & (rows.prediction_text != None)  # noqa: E711 - element by element
        return np.where(known, (rows.label_text != rows.prediction_text).astype(np.float64), np.nan)
    if rows.label is None:
        return None
    if task == "regression":
        return None if rows.prediction is None else np.abs(rows.label - rows.prediction)
    predicted = rows.prediction
    if predicted is None and rows.score is not None:
        predicted = np.where(np.isnan(rows.score), np.nan, rows.score >= 0.5)
    if predicted is None:
        return None
    return np.where(np.isnan(rows.label) | np.isnan(predicted), np.nan, (rows.label != predicted).astype(np.float64))


def _restore(online: OnlineSpec, last: DetectorState | None, privacy_key: bytes) -> OnlineDetector:
    if last is not None:
        try:
            return OnlineDetector.restore(online.detector, last.state, privacy_key)
        except ValueError as error:
            log.warning("%s begins anew: %s", online.detector, error)
    parameters: dict[str, Any] = dict(online.parameters)
    return OnlineDetector(online.detector, **parameters)
