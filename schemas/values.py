"""Columns of untyped values, whatever their encoding, to columns of numbers or texts.

One set of rules for all encodings: what has a fast way takes it, and every other value is looked at as a Python value.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.columns import Floats, Ints, format_number, format_numbers
from schemas.problems import Problem, Problems, not_finite, wrong_type
from schemas.shredded import FALSE, FRACTIONAL, TRUE, WHOLE, ShreddedColumn
from schemas.texts import TextColumn, no_texts

Values: TypeAlias = "list[Any] | pa.Array | ShreddedColumn"

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


@dataclass(frozen=True, slots=True)
class Check:
    """What values a column of texts takes: those that `accepts`, described by `expected`."""

    accepts: Callable[[Any], bool]
    expected: str
    takes_scalars: bool


def listed(values: Values) -> list[Any]:
    """Give a column as Python values."""
    if isinstance(values, list):
        return values
    if isinstance(values, ShreddedColumn):
        return values.tolist()
    return values.to_pylist()  # type: ignore[no-any-return]


def value_at(values: Values, position: int) -> Any:
    """Give one value of a column as Python has it."""
    return values[position].as_py() if isinstance(values, pa.Array) else values[position]


def read_numbers(values: Values, path: str, boolean: bool = False) -> tuple[Floats, Problems]:
    """Read numbers to float64[n], NaN where null; booleans are 0/1. A NaN or infinity that was sent is a problem."""
    numbers, odd = _find_numbers(values)
    numbers = numbers + 0.0  # -0.0 becomes 0.0, so that a number has one text
    problems: Problems = {}
    for position in odd.tolist():
        value = value_at(values, position)
        number = _float_of(value) if is_number(value) else math.nan
        if math.isfinite(number):
            numbers[position] = number
        elif isinstance(value, int | float):
            problems[position] = not_finite(path, number)
        else:
            remedy = "Send the number without quotes." if isinstance(value, str) else ""
            problems[position] = wrong_type(path, value, "true or false" if boolean else "a number", remedy)
    if boolean:
        for position in np.flatnonzero(np.isfinite(numbers) & (numbers != 0) & (numbers != 1)).tolist():
            problems[position] = wrong_type(path, float(numbers[position]), "true, false, 0 or 1")
    return numbers, problems


def _find_numbers(values: Values) -> tuple[Floats, Ints]:
    """Give float64[n], NaN where there is no number, and the positions of what is neither finite nor null."""
    if isinstance(values, ShreddedColumn):
        return values.numbers()
    if isinstance(values, pa.Array):
        if pa.types.is_null(values.type):
            return np.full(len(values), np.nan), np.empty(0, np.int64)
        if _is_arrow_number(values.type):
            return _find_arrow_numbers(values)
        values = listed(values)
    numbers, present = _numbers_of(values)
    return numbers, np.flatnonzero(present & ~np.isfinite(numbers))


def _find_arrow_numbers(values: pa.Array) -> tuple[Floats, Ints]:
    numbers = values if pa.types.is_float64(values.type) else values.cast(pa.float64(), safe=False)
    if not numbers.null_count:
        found: Floats = numbers.to_numpy()
        return found, np.flatnonzero(~np.isfinite(found))
    present = numbers.is_valid().to_numpy(zero_copy_only=False)
    found = numbers.fill_null(math.nan).to_numpy()
    return found, np.flatnonzero(present & ~np.isfinite(found))


def _is_numeric(values: Values) -> bool:
    """True where a column has numbers, booleans and nulls alone."""
    if isinstance(values, ShreddedColumn):
        return not len(values.numbers()[1])
    if isinstance(values, pa.Array):
        return _is_arrow_number(values.type) or bool(pa.types.is_null(values.type))
    return set(map(type, values)) <= _NUMBER_TYPES


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


def find_coerced(values: Values, numeric: bool) -> npt.NDArray[np.bool_] | None:
    """Tell which values are read as another type than they came in: bool[n], None where none is.

    With `numeric` booleans that are to be numbers, else numbers and booleans that are to be texts.
    """
    kinds = (FALSE, TRUE) if numeric else (FALSE, TRUE, WHOLE, FRACTIONAL)
    if isinstance(values, ShreddedColumn):
        found = np.isin(values.tags, kinds) if values.kinds & sum(1 << kind for kind in kinds) else None
    elif isinstance(values, pa.Array):
        is_coerced = pa.types.is_boolean(values.type) or (not numeric and _is_arrow_number(values.type))
        found = values.is_valid().to_numpy(zero_copy_only=False) if is_coerced else None
    else:
        types = (bool,) if numeric else (bool, int, float)
        present = set(map(type, values)) & set(types)
        found = np.array([type(value) in present for value in values], np.bool_) if present else None
    return found if found is not None and found.any() else None


def find_texts(values: Values) -> tuple[TextColumn, Ints]:
    """Give the texts of a column, null where there is none, and the positions of what is neither a text nor null."""
    if isinstance(values, ShreddedColumn):
        return values.texts()
    if isinstance(values, pa.Array):
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            return TextColumn.of_arrow(values), np.empty(0, np.int64)
        if pa.types.is_null(values.type):
            return no_texts(len(values)), np.empty(0, np.int64)
        return no_texts(len(values)), np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
    if set(map(type, values)) <= _TEXT_TYPES:
        return TextColumn.of(values), np.empty(0, np.int64)
    odd = [position for position, value in enumerate(values) if value is not None and not isinstance(value, str)]
    return TextColumn.of([value if isinstance(value, str) else None for value in values]), np.array(odd, np.int64)


def read_texts(values: Values, path: str, check: Check | None = None) -> tuple[TextColumn, Problems]:
    """Read texts, null where null: a number becomes its text, anything else JSON. `check` refuses values."""
    texts, odd = find_texts(values)
    problems: Problems = {}
    if check is not None and not check.takes_scalars:
        for position in np.flatnonzero(~texts.is_null).tolist():
            problems[position] = wrong_type(path, texts[position], check.expected)
    elif len(odd):
        texts, odd = _write_scalars(values, texts, odd)
    if not len(odd):
        return texts, problems
    written: list[str | None] = []
    for position in odd.tolist():
        value = value_at(values, position)
        if check is not None and not check.accepts(value):
            problems[position] = wrong_type(path, value, check.expected)
        elif is_number(value) and not math.isfinite(_float_of(value)):
            problems[position] = not_finite(path, _float_of(value))
        try:
            written.append(text_of(value))
        except _TooDeep:
            problems.setdefault(position, Problem("malformed", path, f"{path} is nested deeper than {_DEPTH} levels."))
            written.append(None)
    codes = np.full(len(texts), -1)
    codes[odd] = np.arange(len(odd))
    return texts.fill_null(TextColumn.of_codes(codes, written)), problems


def _write_scalars(values: Values, texts: TextColumn, odd: Ints) -> tuple[TextColumn, Ints]:
    """Write numbers and booleans as `text_of` does, each distinct one once; gives the positions that are left."""
    if isinstance(values, pa.Array) and (pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        return TextColumn.of_arrow(values.cast(pa.string())), np.empty(0, np.int64)
    if isinstance(values, pa.Array) and pa.types.is_floating(values.type):
        numbers, not_finite_at = _find_arrow_numbers(values)
        return format_numbers(np.where(np.isfinite(numbers), numbers, np.nan)), not_finite_at
    if not isinstance(values, ShreddedColumn):
        return texts, odd
    is_number = (values.tags == WHOLE) | (values.tags == FRACTIONAL)
    is_boolean = (values.tags == FALSE) | (values.tags == TRUE)
    if is_number.any():
        texts = texts.fill_null(format_numbers(np.where(is_number, values.slots, np.nan)))
    if is_boolean.any():
        codes = np.where(is_boolean, values.tags.astype(np.int64) - FALSE, -1)
        texts = texts.fill_null(TextColumn.of_codes(codes, ["false", "true"]))
    return texts, odd[~(is_number | is_boolean)[odd]]


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
        return {"bytes": _write_bytes(value)}
    if isinstance(value, dict):
        return {
            str(key): _write_bytes(part) if key == "bytes" and isinstance(part, bytes) else _normal(part, depth - 1)
            for key, part in value.items()
            if part is not None
        }
    if isinstance(value, list | tuple):
        return [_normal(part, depth - 1) for part in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return _float_of(value)
    return value


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def is_scalar(value: Any) -> bool:
    """True for texts, numbers and booleans."""
    return isinstance(value, str | int | float)


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
    texts, odd = find_texts(values)
    if (texts.length > 0).all():
        return texts, {}
    problems = _refuse_other(values, odd, path)
    for position in np.flatnonzero(texts.length <= 0).tolist():
        problems.setdefault(position, Problem("missing_field", path, f"{path} is missing. {remedy}"))
    return texts.fill_null(""), problems


def read_optional(values: Values, path: str) -> tuple[TextColumn, Problems]:
    """Read texts that may be null."""
    texts, odd = find_texts(values)
    return texts, _refuse_other(values, odd, path)


def _refuse_other(values: Values, odd: Ints, path: str) -> Problems:
    return {
        position: wrong_type(path, value_at(values, position), "a text", "Send it in quotes.")
        for position in odd.tolist()
    }


def split_mixed(values: Values, path: str) -> tuple[Floats | None, TextColumn | None, Problems]:
    """Read an undeclared feature: numbers and booleans to numbers, the rest to texts; None for an empty part."""
    if _is_numeric(values):
        numbers, problems = read_numbers(values, path)
        return numbers, None, problems
    texts, odd = find_texts(values)
    if not len(odd):
        return None, texts, {}
    values = listed(values)
    numbers, problems = read_numbers([value if is_number(value) else None for value in values], path)
    texts, more = read_texts([None if is_number(value) else value for value in values], path)
    return numbers, texts, problems | more
