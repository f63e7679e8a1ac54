"""Hashes that name things for ever: 64-bit identities of events, and the ids of alerts, requests and webhooks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from schemas.texts import TextColumn


def hash_ids(model: str, record_ids: Sequence[str | None]) -> npt.NDArray[np.uint64]:
    """Hash the identities (model, record_id) to uint64[len(record_ids)], the same everywhere for ever.

    xxh3_64 of the record_id in UTF-8, seeded with the xxh3_64 of the model.
    """
    texts = TextColumn.of(record_ids)
    return texts.hash(np.full(len(texts), xxh3_64_intdigest(model.encode()), np.uint64))


def alert_id(model: str, rule: str, segment: str, first_window_start: int) -> str:
    """Name an alert by what it is about and the window it began in (epoch ms)."""
    return _digest("alert", model, rule, segment, first_window_start)


def transition_id(alert_id: str, state: str, window_start: int, revision: int) -> str:
    """Name one state change of an alert."""
    return _digest("transition", alert_id, state, window_start, revision)


def request_id(model: str, rule: str, first_window_start: int) -> str:
    """Name a retrain request, so that a repeated one is the same."""
    return _digest("request", model, rule, first_window_start)


def webhook_id(transition_id: str, subscription: str) -> str:
    """Name one delivery to one subscription; it does not change when the delivery is repeated."""
    return _digest("webhook", transition_id, subscription)


def _digest(*parts: str | int) -> str:
    # As a JSON array, so that no choice of names makes two different lists read alike; 128 bits never collide here.
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]
