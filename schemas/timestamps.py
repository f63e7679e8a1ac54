"""Columns of event times: RFC 3339 texts, epoch milliseconds or Arrow timestamps to int64 milliseconds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.instants import parse_instant
from schemas.problems import Problem, Problems, describe, missing_field, not_finite, wrong_type

Ints = npt.NDArray[np.int64]

# 1e11 ms is March 1973, 1e11 s the year 5138: a smaller number can only be seconds.
SECONDS_BELOW = 100_000_000_000
# What ClickHouse's DateTime64(3) holds exactly: 1900-01-01 up to the end of 2299.
_FIRST_MS, _LAST_MS = -2_208_988_800_000, 10_413_791_999_999
_EXPECTED = "an RFC 3339 instant or epoch milliseconds"
_REMEDY = "Write it like 2026-01-01T00:00:00Z or 1767225600000."

_DIGIT_PLACES = np.array([0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18])
_MARK_PLACES = np.array([4, 7, 10, 13, 16])
_MARKS = np.frombuffer(b"--T::", dtype=np.uint8)
_ZERO = np.uint8(ord("0"))


def read_times(values: list[Any] | pa.Array, path: str = "ts") -> tuple[Ints, Problems]:
    """Read event times to int64[n] epoch ms; 0 stands where a problem is reported."""
    if isinstance(values, pa.Array) and not pa.types.is_timestamp(values.type):
        values = values.to_pylist()
    problems: Problems = {}
    if isinstance(values, pa.Array):
        times, numeric = _read_arrow(values, path, problems), np.zeros(len(values), dtype=np.bool_)
    else:
        times, numeric = _read_list(values, path, problems)
    for position in np.flatnonzero(numeric & (times < SECONDS_BELOW)).tolist():
        problems.setdefault(
            position,
            Problem("seconds", path, f"{path} is {times[position]}, which reads as seconds. Send milliseconds."),
        )
    for position in np.flatnonzero((times < _FIRST_MS) | (times > _LAST_MS)).tolist():
        problems.setdefault(
            position,
            Problem("out_of_range", path, f"{path} is outside the years 1900 to 2299. Send milliseconds or RFC 3339."),
        )
    return times, problems


def _read_arrow(values: pa.Array, path: str, problems: Problems) -> Ints:
    """Cut Arrow timestamps off to milliseconds; one without a zone is UTC."""
    unit = {"s": 0.001, "ms": 1, "us": 1_000, "ns": 1_000_000}[values.type.unit]
    for position in np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)).tolist():
        problems[position] = missing_field(path, f"Send {_EXPECTED}.")
    ticks: Ints = values.cast(pa.int64()).fill_null(0).to_numpy()
    if unit < 1:
        # Clipped first: seconds near the ends of int64 would wrap around.
        limit = 2 * _LAST_MS // 1000
        return np.clip(ticks, -limit, limit) * 1000
    return ticks // int(unit)


def _read_list(values: list[Any], path: str, problems: Problems) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Read a column of any mixture; the second array tells which came as numbers."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return _read_texts(values, path, problems), np.zeros(len(values), dtype=np.bool_)
    if kinds == {int}:
        try:
            return np.array(values, dtype=np.int64), np.ones(len(values), dtype=np.bool_)
        except OverflowError:
            pass  # one by one below, where the one that is too large is named
    times = np.zeros(len(values), dtype=np.int64)
    numeric = np.zeros(len(values), dtype=np.bool_)
    for position, value in enumerate(values):
        if isinstance(value, str):
            times[position] = _read_text(value, path, position, problems)
        elif value is None:
            problems[position] = missing_field(path, f"Send {_EXPECTED}.")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            problems[position] = wrong_type(path, value, _EXPECTED, _REMEDY)
        elif isinstance(value, float) and not math.isfinite(value):
            problems[position] = not_finite(path, value)
        else:
            # As with the digits of a text beyond milliseconds, a fraction of one is cut off.
            times[position] = max(min(int(value), _LAST_MS + 1), _FIRST_MS - 1)
            numeric[position] = True
    return times, numeric


def _read_text(text: str, path: str, position: int, problems: Problems) -> int:
    try:
        return parse_instant(text)
    except (ValueError, OverflowError):
        problems[position] = Problem(
            "wrong_type", path, f"{path} is {describe(text)}; {_EXPECTED} is expected. {_REMEDY}"
        )
        return 0


def _read_texts(texts: list[str], path: str, problems: Problems) -> Ints:
    """Read texts in bulk, those of one length at a time; what is not of the usual form is read one by one."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    times = np.zeros(len(texts), dtype=np.int64)
    usual = np.zeros(len(texts), dtype=np.bool_)
    for length in set(lengths.tolist()):
        positions = np.flatnonzero(lengths == length)
        group = texts if len(positions) == len(texts) else [texts[position] for position in positions.tolist()]
        joined = "".join(group)
        if 20 <= length <= 35 and joined.isascii():
            characters = np.frombuffer(joined.encode(), dtype=np.uint8).reshape(len(group), length)
            times[positions], usual[positions] = _read_usual(characters)
    for position in np.flatnonzero(~usual).tolist():
        times[position] = _read_text(texts[position], path, position, problems)
    return times


def _read_usual(characters: npt.NDArray[np.uint8]) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Read uint8[n, length] texts of the form of the first: `…T…[.fraction](Z|±hh:mm)`; the second array: which fit."""
    length = characters.shape[1]
    zone_start = length - 1 if characters[0, -1] == ord("Z") else length - 6
    num_fraction = zone_start - 20
    digits = characters.astype(np.int64) - _ZERO
    fits = (characters[:, _MARK_PLACES] == _MARKS).all(axis=1)
    numeric = list(_DIGIT_PLACES)
    if num_fraction >= 1:
        fits &= characters[:, 19] == ord(".")
        numeric += range(20, zone_start)
    elif zone_start != 19:
        fits &= False
    shift_ms = np.zeros(len(characters), dtype=np.int64)
    if zone_start == length - 1:
        fits &= characters[:, -1] == ord("Z")
    else:
        numeric += [length - 5, length - 4, length - 2, length - 1]
        sign = characters[:, zone_start]
        fits &= ((sign == ord("+")) | (sign == ord("-"))) & (characters[:, length - 3] == ord(":"))
        hours, minutes = _number(digits, length - 5, 2), _number(digits, length - 2, 2)
        fits &= (hours < 24) & (minutes < 60)
        shift_ms = np.where(sign == ord("+"), -1, 1) * (hours * 60 + minutes) * 60_000
    fits &= ((digits[:, numeric] >= 0) & (digits[:, numeric] <= 9)).all(axis=1)
    year, month, day = _number(digits, 0, 4), _number(digits, 5, 2), _number(digits, 8, 2)
    hour, minute, second = _number(digits, 11, 2), _number(digits, 14, 2), _number(digits, 17, 2)
    # Days past the 28th and leap seconds are left to the one-by-one reader unless surely valid.
    fits &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60) & (second < 60)
    fits &= (day <= 28) | ((month != 2) & (day <= 30)) | ((day == 31) & np.isin(month, (1, 3, 5, 7, 8, 10, 12)))
    milliseconds = (
        _number(digits, 20, min(num_fraction, 3)) * 10 ** (3 - num_fraction)
        if 0 < num_fraction < 3
        else (_number(digits, 20, 3) if num_fraction >= 3 else 0)
    )
    seconds = (_days(year, month, day) * 24 + hour) * 3600 + minute * 60 + second
    times: Ints = np.where(fits, seconds * 1000 + milliseconds + shift_ms, 0)
    return times, fits


def _number(digits: Ints, start: int, count: int) -> Ints:
    value = digits[:, start].copy()
    for place in range(start + 1, start + count):
        value = value * 10 + digits[:, place]
    return value


def _days(year: Ints, month: Ints, day: Ints) -> Ints:
    """Give days since 1970-01-01 in the Gregorian calendar (Howard Hinnant, "days_from_civil")."""
    year = year - (month <= 2)
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + np.where(month > 2, -3, 9)) + 2) // 5 + day - 1
    days: Ints = era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468
    return days
