"""JSON: an event a message, or an array of events."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codecs.blocks import MAPS, NAMES_MAX, Block, Mapping, Positions, Refusal, too_many_names
from schemas.problems import Problem, Problems, not_finite, wrong_type
from schemas.values import Values

_DECODER = msgspec.json.Decoder()
# What is no JSON after all: DecodeError and a wrong UTF-8 sequence are ValueErrors, deep nesting is the other.
_UNREADABLE = (ValueError, RecursionError)
_EVENT = "a JSON object"


class _Maps(NamedTuple):
    """One map of every row, and all their keys."""

    maps: list[dict[str, Any]]
    present: npt.NDArray[np.bool_]
    problems: Problems
    keys: set[str]


class JsonBlock:
    """Rows as dictionaries. `sent` has the bytes of each row that is a whole message, None for rows of arrays."""

    def __init__(
        self,
        rows: list[dict[str, Any]],
        sent: list[bytes | None],
        message: Positions,
        row: npt.NDArray[np.int32],
    ) -> None:
        self.rows = rows
        self.sent = sent
        self.message = message
        self.row = row
        self.names: set[str] = set().union(*rows)
        self._maps: dict[str, _Maps] = {}

    def column(self, name: str) -> Values:
        return _column(self.rows, name) if name in self.names else pa.nulls(len(self.rows))

    def mapping(self, name: str) -> Mapping:
        if name not in self.names:
            return Mapping({}, np.zeros(len(self.rows), dtype=np.bool_), {})
        taken = self._take_apart(name)
        columns: dict[str, Values] = {key: _column(taken.maps, key) for key in sorted(taken.keys)}
        return Mapping(columns, taken.present, taken.problems)

    def _take_apart(self, name: str) -> _Maps:
        if name in self._maps:
            return self._maps[name]
        maps = _column(self.rows, name)
        problems: Problems = {}
        present = np.ones(len(maps), dtype=np.bool_)
        if set(map(type, maps)) != {dict}:
            present = np.array([isinstance(value, dict) for value in maps], dtype=np.bool_)
            for position in np.flatnonzero(~present).tolist():
                if maps[position] is not None:
                    problems[position] = wrong_type(name, maps[position], "an object")
                maps[position] = {}
        if max(map(len, maps)) > NAMES_MAX:
            for position, value in enumerate(maps):
                if len(value) > NAMES_MAX:
                    problems[position] = too_many_names(name, len(value))
                    maps[position] = {}
        self._maps[name] = _Maps(maps, present, problems, set().union(*maps))
        return self._maps[name]

    def unknown_fields(self, known: frozenset[str]) -> list[dict[str, object] | None] | None:
        if self.names <= known:
            return None
        return [{key: event[key] for key in event.keys() - known} or None for event in self.rows]

    def num_names(self) -> int:
        return sum(len(self._take_apart(name).keys) for name in self.names.intersection(MAPS))

    def raw(self, positions: list[int]) -> list[bytes]:
        return [self.sent[position] or _encode_row(self.rows[position]) for position in positions]

    def take(self, positions: Positions) -> Block:
        index = positions.tolist()
        return JsonBlock(
            [self.rows[position] for position in index],
            [self.sent[position] for position in index],
            self.message[positions],
            self.row[positions],
        )


def _column(maps: list[dict[str, Any]], key: str) -> list[Any]:
    try:
        # Half the time of a comprehension, and most columns have no gaps.
        return list(map(itemgetter(key), maps))
    except KeyError:
        return [value.get(key) for value in maps]


def decode_json(values: Sequence[bytes], messages: Sequence[int]) -> Iterator[Block | Refusal]:
    """Decode messages of JSON; `messages` are their indices in the batch. Gives at most one block."""
    decode = _DECODER.decode
    try:
        decoded = [decode(value) for value in values]
    except _UNREADABLE:
        decoded = [_decode_one(value) for value in values]
    if set(map(type, decoded)) == {dict}:
        message = np.array(messages, dtype=np.int64)
        yield JsonBlock(decoded, list(values), message, np.zeros(len(values), dtype=np.int32))
        return
    places: list[tuple[int, int]] = []
    rows: list[dict[str, Any]] = []
    sent: list[bytes | None] = []
    for value, index, content in zip(values, messages, decoded, strict=True):
        for row, event in _events_in(content):
            raw = value if content is event else None
            if isinstance(event, _Refused):
                yield Refusal(index, row, event.problem, raw or _encode_row(event.event))
            elif isinstance(event, dict):
                places.append((index, row))
                rows.append(event)
                sent.append(raw)
            else:
                yield Refusal(index, row, wrong_type("event", event, _EVENT), raw or _encode_row(event))
    if rows:
        message, row_index = np.array(places, dtype=np.int64).T
        yield JsonBlock(rows, sent, message, row_index.astype(np.int32))


class _Refused(NamedTuple):
    """Stands for an event that cannot be read."""

    problem: Problem
    event: Any


def _events_in(content: Any) -> Iterator[tuple[int, Any]]:
    if isinstance(content, list):
        yield from enumerate(content)
    else:
        yield 0, content


def _decode_one(value: bytes) -> Any:
    """Decode one message, or say what is wrong; of an array with non-finite numbers the finite events are kept."""
    try:
        return _DECODER.decode(value)
    except _UNREADABLE as error:
        lenient = _decode_lenient(value)
        if lenient is None:
            remedy = "Send one JSON object (or an array of them) a message, in UTF-8."
            return _Refused(Problem("malformed", "", f"The message is no JSON: {str(error)[:200]}. {remedy}"), None)
    return [_finite_event(event) for event in lenient] if isinstance(lenient, list) else _finite_event(lenient)


def _decode_lenient(value: bytes) -> Any:
    """Read what Python, JavaScript and others write for NaN and infinities; None if it is no JSON even so."""
    try:
        return json.loads(value)
    except _UNREADABLE:
        return None


def _finite_event(event: Any) -> Any:
    """Give the event as strict JSON has it, or what is wrong with it."""
    found = _find_not_finite(event)
    if found is not None:
        return _Refused(not_finite(*found), event)
    try:
        return _DECODER.decode(json.dumps(event))
    except _UNREADABLE as error:
        return _Refused(Problem("malformed", "", f"The event is no strict JSON: {str(error)[:200]}."), event)


def _find_not_finite(event: Any) -> tuple[str, float] | None:
    """Give path and value of the first number that is not finite; walks without recursion."""
    pending: list[tuple[str, Any]] = [("", event)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return path or "event", value
        if isinstance(value, dict):
            pending += [(f"{path}.{key}" if path else key, part) for key, part in reversed(value.items())]
        elif isinstance(value, list):
            pending += [(f"{path}[{index}]", part) for index, part in reversed(list(enumerate(value)))]
    return None


def _encode_row(event: Any) -> bytes:
    try:
        return json.dumps(event).encode()
    except _UNREADABLE:
        return b""
