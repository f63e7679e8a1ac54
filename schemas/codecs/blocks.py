"""What a decoder gives: blocks of rows, each with its place, that hand out their fields as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.problems import Problem, Problems
from schemas.values import Values

# Ten times Kafka's own default limit for a message.
MESSAGE_BYTES_MAX = 10_000_000

# An event with more features (or classes) than this is refused: each would be a column.
NAMES_MAX = 10_000

# The fields that are maps, whose keys become columns.
MAPS = ("features", "segment", "scores")

Positions = npt.NDArray[np.int64]


@dataclass(slots=True)
class Mapping:
    """A field that is a map, taken apart: `columns` by key, `present` bool[n], `problems` where it is no map."""

    columns: dict[str, Values]
    present: npt.NDArray[np.bool_]
    problems: Problems


def too_many_names(path: str, num_names: int) -> Problem:
    """Say that one map would make too many columns."""
    sentence = f"{path} has {num_names} entries, more than {NAMES_MAX}. Send a list of numbers instead."
    return Problem("too_large", path, sentence)


class Block(Protocol):
    """Consecutive rows in one encoding; `message` int64[n] is the index of each row's message in the batch."""

    message: Positions
    row: npt.NDArray[np.int32]

    def column(self, name: str) -> Values:
        """Give a field's values, null where a row lacks it."""
        ...

    def mapping(self, name: str) -> Mapping:
        """Give a field that is a map as columns, its keys sorted."""
        ...

    def unknown_fields(self, known: frozenset[str]) -> list[dict[str, object] | None] | None:
        """Give each row's fields that are not `known`; None if no row has any."""
        ...

    def num_names(self) -> int:
        """Count the columns that the maps will have."""
        ...

    def raw(self, positions: list[int]) -> list[bytes]:
        """Give the bytes of rows, as JSON where their message holds several."""
        ...

    def take(self, positions: Positions) -> Block:
        """Give the rows at `positions`."""
        ...


@dataclass(slots=True)
class Refusal:
    """A message, or a row of one, that is no event at all; `row` 0 for a whole message."""

    message: int
    row: int
    problem: Problem
    raw: bytes
