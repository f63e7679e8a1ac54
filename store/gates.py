"""The table `gates`: what each challenger was tested on, and how that came out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from store.client import ClickHouse


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One test of a challenger: it passed when `value` kept to `limit`, and `words` say how that is meant.

    `segment` is empty, a key (fairness) or `KEY=VALUE`. `value` is None where nothing could be measured.
    """

    name: str
    passed: bool
    value: float | None
    limit: float | None
    words: str
    segment: str = ""


def insert_gates(ch: ClickHouse, model: str, version: str, job_id: str, gates: Sequence[Gate], at_ms: int) -> None:
    """Record the gates of a version; safe to replay."""
    shared = {"model": model, "version": version, "job_id": job_id, "at": datetime.fromtimestamp(at_ms / 1000, UTC)}
    ch.insert_rows("gates", [{**shared, **msgspec.structs.asdict(gate)} for gate in gates])


def read_gates(ch: ClickHouse, model: str, version: str) -> list[Gate]:
    """Return the gates of a version, the refusals first."""
    rows = ch.query(
        """
        SELECT name, passed, value, limit, words, segment FROM gates FINAL
        WHERE model = {model:String} AND version = {version:String}
        ORDER BY passed, name, segment
        """,
        {"model": model, "version": version},
    )
    names = ("name", "passed", "value", "limit", "words", "segment")
    return [Gate(**dict(zip(names, row, strict=True))) for row in rows]
