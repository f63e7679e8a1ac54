"""Why a row is refused: a bounded reason, where in the event, and a human sentence with its remedy."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Reason = Literal[
    "empty",
    "future",
    "malformed",
    "missing_field",
    "not_finite",
    "out_of_range",
    "seconds",
    "too_large",
    "too_late",
    "unknown_encoding",
    "unknown_model",
    "wrong_type",
]

# A sentence shows this much of what came.
_SHOWN_CHARS = 60


class Problem(NamedTuple):
    """One reason to refuse one row; `path` reads like `features.amount`, empty for the whole message."""

    reason: Reason
    path: str
    message: str


# The problems of a column or a block, by row position; of several, the first found counts.
Problems = dict[int, Problem]


def wrong_type(path: str, value: Any, expected: str, remedy: str = "") -> Problem:
    """Say what came and what is expected."""
    sentence = f"{path} is {describe(value)}; {expected} is expected."
    return Problem("wrong_type", path, f"{sentence} {remedy}".rstrip())


def missing_field(path: str, remedy: str) -> Problem:
    """Say that a field is not there, or null."""
    return Problem("missing_field", path, f"{path} is missing. {remedy}")


def not_finite(path: str, value: float) -> Problem:
    """Say that a number is NaN or infinite."""
    remedy = "Send null for a missing value."
    return Problem("not_finite", path, f"{path} is {value}; a finite number is expected. {remedy}")


def describe(value: Any) -> str:
    """Name a value's JSON type, and show its beginning."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {_shorten(str(value) if abs(value) < 10**_SHOWN_CHARS else 'with too many digits')}"
    if isinstance(value, str):
        return f"the text {_shorten(repr(value))}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    return f"a value of type {type(value).__name__}"


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
