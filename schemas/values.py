"""Columns of untyped values, a list from JSON or an Arrow array, to columns of numbers or texts.

One set of rules for all encodings: an Arrow type with a fast way takes it, every other becomes a list first.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from schemas.columns import Floats, format_number
from schemas.problems import Problem, Problems, not_finite, wrong_type
from schemas.texts import TextColumn

Values: TypeAlias = "list[Any] | pa.Array"

_NUMBER_TYPES = frozenset({float, int, bool, type(None)})
_TEXT_TYPES = frozenset({str, type(None)})
# Deeper values are refused, before Python's own recursion limit is near.
_DEPTH = 32
_encode_sorted = msgspec.json.Encoder(order="sorted", enc_hook=str).encode


class _TooDeep(Exception):
    """A value is nested deeper than is kept."""


def is_number(value: Any) -> bool:
    """True for JSON numbers and booleans."""
    return isinstance(value, int | float)


def listed(values: Values) -> list[Any]:
    """Give a column as Python values."""
    if isinstance(values, list):
        return values
    return values.to_pylist()  # type: ignore[no-any-return]


def read_numbers(values: Values, path: str, boolean: bool = False) -> tuple[Floats, Problems]:
    """Read numbers to float64[n], NaN where null; booleans are 0/1. A NaN or infinity that was sent is a problem."""
    if isinstance(values, pa.Array) and _is_arrow_number(values.type):
        present = values.is_valid().to_numpy(zero_copy_only=False)
        numbers: Floats = values.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy()
    else:
        values = listed(values)
        numbers, present = _numbers_of(values)
    problems: Problems = {}
    for position in np.flatnonzero(present & ~np.isfinite(numbers)).tolist():
        value = values[position] if isinstance(values, list) else numbers[position]
        if isinstance(value, float):
            problems[position] = not_finite(path, value)
        elif isinstance(value, int) and not isinstance(value, bool):
            problems[position] = not_finite(path, _float_of(value))
        else:
            remedy = "Send the number without quotes." if isinstance(value, str) else ""
            problems[position] = wrong_type(path, value, "true or false" if boolean else "a number", remedy)
    if boolean:
        for position in np.flatnonzero(np.isfinite(numbers) & (numbers != 0) & (numbers != 1)).tolist():
            problems[position] = wrong_type(path, float(numbers[position]), "true, false, 0 or 1")
    return numbers + 0.0, problems  # -0.0 becomes 0.0, so that a number has one text


def _is_arrow_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _numbers_of(values: list[Any]) -> tuple[Floats, Any]:
    """Give float64[n] and which entries are not null; NaN where a value is no number."""
    kinds = set(map(type, values))
    if kinds <= _NUMBER_TYPES:
        try:
            numbers = np.array(values, dtype=np.float64)
        except OverflowError:
            pass
        else:
            if type(None) not in kinds:
                return numbers, np.True_
            if np.isinf(numbers).any() or float in kinds:
                return numbers, np.array([value is not None for value in values])
            return numbers, ~np.isnan(numbers)
    return (
        np.array([_float_of(value) if is_number(value) else math.nan for value in values], dtype=np.float64),
        np.array([value is not None for value in values], dtype=np.bool_),
    )


def _float_of(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of over 308 digits
        return math.inf if value > 0 else -math.inf


def read_texts(
    values: Values, path: str, check: Callable[[Any], bool] | None = None, expected: str = ""
) -> tuple[TextColumn, Problems]:
    """Read texts, null where null: a number becomes its text, anything else JSON. `check` refuses non-null values."""
    if isinstance(values, pa.Array) and check is None and pa.types.is_integer(values.type):
        return TextColumn.of_arrow(values.cast(pa.string())), {}
    values = listed(values)
    problems: Problems = {}
    if check is not None:
        for position, value in enumerate(values):
            if value is not None and not check(value):
                problems[position] = wrong_type(path, value, expected)
    if set(map(type, values)) <= _TEXT_TYPES:
        return TextColumn.of(values), problems
    texts: list[str | None] = []
    for position, value in enumerate(values):
        if is_number(value) and not math.isfinite(_float_of(value)):
            problems.setdefault(position, not_finite(path, _float_of(value)))
        try:
            texts.append(text_of(value))
        except _TooDeep:
            problems.setdefault(position, Problem("malformed", path, f"{path} is nested deeper than {_DEPTH} levels."))
            texts.append(None)
    return TextColumn.of(texts), problems


def text_of(value: Any) -> str | None:
    """Give a value's text: numbers as ClickHouse writes them, the rest JSON with sorted keys and no nulls."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**40 else format_number(_float_of(value))
    if isinstance(value, float):
        return format_number(value)
    return _encode_sorted(_normal(value, _DEPTH)).decode()


def _normal(value: Any, depth: int) -> Any:
    """Give one form to what encodings write differently: 1.0, absent keys, bytes, integers beyond 64 bits."""
    if depth == 0:
        raise _TooDeep
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {str(key): _normal(part, depth - 1) for key, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_normal(part, depth - 1) for part in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return _float_of(value)
    return value


def is_embedding(value: Any) -> bool:
    """True for a list of finite numbers."""
    return isinstance(value, list) and all(
        isinstance(part, int | float) and not isinstance(part, bool) and math.isfinite(_float_of(part))
        for part in value
    )


def is_media(value: Any) -> bool:
    """True for a reference to a blob, inline bytes, or the bytes themselves (Arrow)."""
    if isinstance(value, dict):
        return isinstance(value.get("uri"), str) or isinstance(value.get("bytes"), str | bytes)
    return isinstance(value, bytes)


def read_required(values: Values, path: str, remedy: str) -> tuple[TextColumn, Problems]:
    """Read texts that must be there and not be empty; "" stands where a problem is reported."""
    values = listed(values)
    if set(map(type, values)) == {str} and "" not in values:
        return TextColumn.of(values), {}
    problems: Problems = {}
    for position, value in enumerate(values):
        if value is None or value == "":
            problems[position] = Problem("missing_field", path, f"{path} is missing. {remedy}")
        elif not isinstance(value, str):
            problems[position] = wrong_type(path, value, "a text", "Send it in quotes.")
    return TextColumn.of([value if isinstance(value, str) else "" for value in values]), problems


def read_optional(values: Values, path: str) -> tuple[TextColumn, Problems]:
    """Read texts that may be null."""
    values = listed(values)
    if set(map(type, values)) <= _TEXT_TYPES:
        return TextColumn.of(values), {}
    problems = {
        position: wrong_type(path, value, "a text", "Send it in quotes.")
        for position, value in enumerate(values)
        if value is not None and not isinstance(value, str)
    }
    return TextColumn.of([value if isinstance(value, str) else None for value in values]), problems


def split_mixed(values: Values, path: str) -> tuple[Floats | None, TextColumn | None, Problems]:
    """Read an undeclared feature: numbers and booleans to numbers, the rest to texts; None for an empty part."""
    if isinstance(values, pa.Array) and _is_arrow_number(values.type):
        numbers, problems = read_numbers(values, path)
        return numbers, None, problems
    values = listed(values)
    kinds = set(map(type, values))
    if kinds <= _NUMBER_TYPES:
        numbers, problems = read_numbers(values, path)
        return numbers, None, problems
    if kinds <= _TEXT_TYPES:
        return None, TextColumn.of(values), {}
    numbers, problems = read_numbers([value if is_number(value) else None for value in values], path)
    texts, more = read_texts([None if is_number(value) else value for value in values], path)
    return numbers, texts, problems | more
