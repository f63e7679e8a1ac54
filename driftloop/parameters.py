"""Types of command-line parameters: durations, instants, speeds."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import click

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Duration(click.ParamType):
    """`30d`, `1h`, `90s`, `250ms` as milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a duration; write 30d, 1h, 10m, 90s or 250ms", param, ctx)
        return round(float(match.group(1)) * UNITS_MS[match.group(2)])


class Instant(click.ParamType):
    """RFC 3339, a date, or epoch milliseconds, as epoch milliseconds; without a zone UTC is meant."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if re.fullmatch(r"\d{12,14}", value):
            return int(value)
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            message = f"{value!r} is not a time; write 2026-01-31, 2026-01-31T12:00:00Z or epoch milliseconds"
            self.fail(message, param, ctx)
        return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


class Speed(click.ParamType):
    """`max` (None), or `60x`: event time over clock time."""

    name = "speed"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        if value is None or value == "max" or isinstance(value, float):
            return None if value == "max" else value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)x?", value)
        if match is None or float(match.group(1)) == 0:
            self.fail(f"{value!r} is not a speed; write max, 60x or 0.5x", param, ctx)
        return float(match.group(1))


DURATION, INSTANT, SPEED = Duration(), Instant(), Speed()
