"""Types of command-line parameters: durations, instants, speeds."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import click

from schemas.units import parse_duration_ms


class Duration(click.ParamType):
    """What a spec understands, such as `30d`, `1h` or `250ms`, as milliseconds; and `0s`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        if re.fullmatch(r"0\s*(ms|s|m|min|h|d|w)", text):
            return 0
        try:
            return parse_duration_ms(text)
        except ValueError:
            self.fail(f"{value!r} is not a duration; write 1w, 30d, 1h, 10m, 90s or 250ms", param, ctx)


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
