"""Instants: epoch milliseconds in memory, RFC 3339 on the wire and in files."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

# In memory an int; the JSON Schema describes the wire.
Instant = Annotated[int, msgspec.Meta(extra_json_schema={"format": "date-time"}, extra={"instant": True})]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_MS = timedelta(milliseconds=1)


def parse_instant(text: str) -> int:
    """Give the epoch milliseconds of an RFC 3339 instant, digits beyond them cut off; ValueError if it is none."""
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no RFC 3339 instant")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    # RFC 3339 allows a leap second; it is counted as the first moment of the next minute.
    leap = second == "60"
    moment = datetime(int(year), int(month), int(day), int(hour), int(minute), 59 if leap else int(second), tzinfo=UTC)
    ms = (moment - _EPOCH) // _MS + (1000 if leap else int((fraction or "0").ljust(3, "0")[:3]))
    if zone in "Zz":
        return ms
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError(f"{text!r} has no valid offset")
    shift_ms = (hours * 60 + minutes) * 60_000
    return ms + shift_ms if zone[0] == "-" else ms - shift_ms


def format_instant(ms: int) -> str:
    """Give the RFC 3339 form, in UTC and with milliseconds: `2026-01-01T00:00:00.000Z`."""
    moment = _EPOCH + timedelta(milliseconds=ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
