"""Durations and sizes as people write them: `1h`, `30d`, `4GiB`."""

from __future__ import annotations

import re

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)\s*", re.ASCII)
_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?)?B\s*", re.ASCII)
_SIZE_BYTES: dict[str | None, int] = {None: 1}
_SIZE_BYTES.update({unit: 1000 ** (power + 1) for power, unit in enumerate("KMGT")})
_SIZE_BYTES.update({f"{unit}i": 1024 ** (power + 1) for power, unit in enumerate("KMGT")})
# A hundred years: longer is a slip of the pen, and still far from overflowing milliseconds.
_DURATION_MS_MAX = 100 * 366 * 86_400_000


def parse_duration_ms(text: str) -> int:
    """Give the milliseconds of `500ms`, `30s`, `15m`, `1h`, `1d` or `1w`; ValueError if it is none, or not above 0."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration")
    ms = round(float(match[1]) * _DURATION_MS[match[2]])
    if not 0 < ms <= _DURATION_MS_MAX:
        raise ValueError(f"{text!r} is not between 1 ms and 100 years")
    return ms


def format_duration(ms: int) -> str:
    """Write a duration in the largest unit that divides it."""
    for unit in ("d", "h", "m", "s"):
        if ms % _DURATION_MS[unit] == 0:
            return f"{ms // _DURATION_MS[unit]}{unit}"
    return f"{ms}ms"


def parse_bytes(text: str) -> int:
    """Give the bytes of `4GiB`, `512MB` or `100B`; ValueError if it is no size, or not above 0."""
    match = _SIZE.fullmatch(text)
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is no size")
    num_bytes: int = round(float(match[1]) * _SIZE_BYTES[match[2]])
    return num_bytes
