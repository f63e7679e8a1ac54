"""Durations, instants and speeds as people write them on the command line."""

from __future__ import annotations

from typing import Any

import click
import pytest

from driftloop.parameters import DURATION, INSTANT, SPEED


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (DURATION, "250ms", 250),
        (DURATION, "90s", 90_000),
        (DURATION, "1.5h", 5_400_000),
        (DURATION, "30d", 2_592_000_000),
        (DURATION, "1w", 604_800_000),
        (DURATION, "15min", 900_000),
        (DURATION, "0s", 0),
        (INSTANT, "1970-01-02", 86_400_000),
        (INSTANT, "2026-01-01T00:00:00Z", 1_767_225_600_000),
        (INSTANT, "2026-01-01T01:00:00+01:00", 1_767_225_600_000),
        (INSTANT, "2026-01-01T00:00:00.250", 1_767_225_600_250),
        (INSTANT, "1767225600000", 1_767_225_600_000),
        (SPEED, "max", None),
        (SPEED, "60x", 60.0),
        (SPEED, "0.5", 0.5),
    ],
)
def test_what_people_write_is_understood(kind: click.ParamType, text: str, value: Any) -> None:
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (DURATION, "5"),
        (DURATION, "-1h"),
        (DURATION, "1 hour"),
        (INSTANT, "yesterday"),
        (INSTANT, "1767225600"),  # seconds
        (SPEED, "0x"),
        (SPEED, "fast"),
        (SPEED, "-2x"),
    ],
)
def test_what_is_wrong_is_shown_with_an_example(kind: click.ParamType, text: str) -> None:
    with pytest.raises(click.BadParameter, match=f"{text!r}.* write "):
        kind.convert(text, None, None)
