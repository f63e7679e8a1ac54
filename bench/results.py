"""What a benchmark gives, and the table of all."""

from __future__ import annotations

from dataclasses import dataclass

HEADER = "| what | value | unit | peer | ratio |\n|---|---:|---|---|---:|"


@dataclass(frozen=True, slots=True)
class Result:
    """One figure; `ratio` compares it with `peer`, measured in the same run on the same machine."""

    name: str
    value: float
    unit: str
    peer: str = ""
    ratio: float | None = None


def compare(name: str, value: float, unit: str, peer: str, peer_value: float) -> Result:
    """Give a figure as a multiple of its peer's."""
    return Result(name, value, unit, f"{peer}: {format_number(peer_value)} {unit}", value / peer_value)


def format_number(value: float) -> str:
    """Give three significant digits, without an exponent."""
    if abs(value) >= 1000:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def format_row(result: Result) -> str:
    """Give one row of the Markdown table; `ratio` is the value divided by the peer's."""
    ratio = "" if result.ratio is None else format_number(result.ratio)
    return f"| {result.name} | {format_number(result.value)} | {result.unit} | {result.peer} | {ratio} |"
