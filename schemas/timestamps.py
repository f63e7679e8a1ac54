"""Columns of event times: RFC 3339 texts, epoch milliseconds or Arrow timestamps to int64 milliseconds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.instants import parse_instant
from schemas.native import address, kernels
from schemas.problems import Problem, Problems, describe, missing_field, not_finite, wrong_type
from schemas.shredded import FRACTIONAL, WHOLE, ShreddedColumn
from schemas.texts import TextColumn
from schemas.values import Values, find_texts, value_at

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# 1e11 ms is March 1973, 1e11 s the year 5138: a smaller number can only be seconds.
SECONDS_BELOW = 100_000_000_000
# What ClickHouse's DateTime64(3) holds exactly: 1900-01-01 up to the end of 2299.
_FIRST_MS, _LAST_MS = -2_208_988_800_000, 10_413_791_999_999
_EXPECTED = "an RFC 3339 instant or epoch milliseconds"
_REMEDY = "Write it like 2026-01-01T00:00:00Z or 1767225600000."


def read_times(values: Values, path: str = "ts") -> tuple[Ints, Problems]:
    """Read event times to int64[n] epoch ms; 0 stands where a problem is reported."""
    problems: Problems = {}
    if isinstance(values, pa.Array) and pa.types.is_timestamp(values.type):
        times, numeric = _read_timestamps(values, path, problems), np.zeros(len(values), dtype=np.bool_)
    else:
        times, numeric = _read_mixed(values, path, problems)
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


def _read_timestamps(values: pa.Array, path: str, problems: Problems) -> Ints:
    """Cut Arrow timestamps off to milliseconds; one without a zone is UTC."""
    unit = {"s": 0.001, "ms": 1, "us": 1_000, "ns": 1_000_000}[values.type.unit]
    if values.null_count:
        for position in np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)).tolist():
            problems[position] = missing_field(path, f"Send {_EXPECTED}.")
    ticks: Ints = values.cast(pa.int64()).fill_null(0).to_numpy()
    if unit < 1:
        # Clipped first: seconds near the ends of int64 would wrap around.
        limit = 2 * _LAST_MS // 1000
        return np.clip(ticks, -limit, limit) * 1000
    return ticks // int(unit) if unit > 1 else ticks


def _read_mixed(values: Values, path: str, problems: Problems) -> tuple[Ints, Mask]:
    """Read a column of any mixture; the mask tells which came as numbers."""
    times, numeric, is_left = _read_numbers(values)
    if is_left.any():
        texts, _ = find_texts(values)
        is_text = is_left & ~texts.is_null
        times = np.where(is_text, _read_texts(texts, path, problems), times)
        for position in np.flatnonzero(is_left & ~is_text).tolist():
            times[position] = _read_value(value_at(values, position), path, position, problems)
            numeric[position] = position not in problems
    return times, numeric


def _read_numbers(values: Values) -> tuple[Ints, Mask, Mask]:
    """Read what can be read at once: times, which came as numbers, and which are left."""
    if isinstance(values, ShreddedColumn):
        numeric = (values.tags == WHOLE) | (values.tags == FRACTIONAL)
        numbers = values.slots
    elif isinstance(values, pa.Array) and pa.types.is_integer(values.type) and not values.null_count:
        numeric, numbers = np.ones(len(values), np.bool_), values.to_numpy()
    elif isinstance(values, list) and set(map(type, values)) == {int} and max(map(abs, values)) < 2**63:
        numeric, numbers = np.ones(len(values), np.bool_), np.array(values, np.int64)
    else:
        return np.zeros(len(values), np.int64), np.zeros(len(values), np.bool_), np.ones(len(values), np.bool_)
    if not numeric.all():
        numbers = np.where(numeric, numbers, 0)
    # As with the digits of a text beyond milliseconds, a fraction of one is cut off.
    return np.clip(numbers, _FIRST_MS - 1, _LAST_MS + 1).astype(np.int64), numeric, ~numeric


def _read_texts(texts: TextColumn, path: str, problems: Problems) -> Ints:
    """Read texts in bulk; what is not of the usual form is read one by one. Nulls give 0."""
    times, fits = np.empty(len(texts), np.int64), np.empty(len(texts), np.bool_)
    start, length = np.ascontiguousarray(texts.start), np.ascontiguousarray(texts.length)
    kernels.read_instants(
        address(texts.buffer), address(start), address(length), len(texts), address(times), address(fits)
    )
    for position in np.flatnonzero(~fits & ~texts.is_null).tolist():
        times[position] = _read_value(texts[position], path, position, problems)
    return times


def _read_value(value: Any, path: str, position: int, problems: Problems) -> int:
    if value is None:
        problems[position] = missing_field(path, f"Send {_EXPECTED}.")
    elif isinstance(value, str):
        try:
            return parse_instant(value)
        except (ValueError, OverflowError):
            sentence = f"{path} is {describe(value)}; {_EXPECTED} is expected. {_REMEDY}"
            problems[position] = Problem("wrong_type", path, sentence)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        problems[position] = wrong_type(path, value, _EXPECTED, _REMEDY)
    elif isinstance(value, float) and not math.isfinite(value):
        problems[position] = not_finite(path, value)
    else:
        return max(min(int(value), _LAST_MS + 1), _FIRST_MS - 1)
    return 0
