"""What a benchmark gives, and the table of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HEADER = "| what | value | unit | peer | ratio | limit | reached |\n|---|---:|---|---|---:|---|---|"


@dataclass(frozen=True, slots=True)
class Limit:
    """What is to be reached: `bound`, and better still `aim`, by the value itself or by its ratio to the peer."""

    of: Literal["value", "ratio"]
    side: Literal["at least", "at most"]
    bound: float
    aim: float | None = None

    def is_reached(self, value: float) -> bool:
        """Tell whether a value is on the right side of the bound."""
        return value >= self.bound if self.side == "at least" else value <= self.bound

    def __str__(self) -> str:
        aim = "" if self.aim is None else f" (aim {self.aim:,})"
        return f"{self.of} {self.side} {self.bound:,}{aim}"


@dataclass(frozen=True, slots=True)
class Result:
    """One figure; `ratio` compares it with `peer`, measured in the same run on the same machine.

    Without a `value` it was not run, and `unit` says why.
    """

    name: str
    value: float | None
    unit: str
    peer: str = ""
    ratio: float | None = None
    limit: Limit | None = None

    @property
    def is_reached(self) -> bool | None:
        """Tell whether the limit is reached; None where there is none."""
        judged = self.value if self.limit is None or self.limit.of == "value" else self.ratio
        return None if self.limit is None or judged is None else self.limit.is_reached(judged)


def compare(name: str, value: float, unit: str, peer: str, peer_value: float, limit: Limit | None = None) -> Result:
    """Give a figure as a multiple of its peer's."""
    return Result(name, value, unit, f"{peer}: {format_number(peer_value)} {unit}", value / peer_value, limit)


def not_run(name: str, reason: str) -> Result:
    """Give the row of a figure that cannot be had here."""
    return Result(name, None, reason)


def format_number(value: float) -> str:
    """Give three significant digits, without an exponent."""
    if abs(value) >= 1000:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def format_row(result: Result) -> str:
    """Give one row of the Markdown table; `ratio` is the value divided by the peer's."""
    ratio = "" if result.ratio is None else format_number(result.ratio)
    limit = "" if result.limit is None else str(result.limit)
    reached = {None: "", True: "yes", False: "no"}[result.is_reached]
    value = "not run" if result.value is None else format_number(result.value)
    cells = [result.name, value, result.unit, result.peer, ratio, limit, reached]
    return f"| {' | '.join(cells)} |"
