"""How results reach the terminal: a table for people, JSON or CSV for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Wide enough for every column when the output is not a terminal (a file, a pipe, CI).
WIDTH_WITHOUT_TERMINAL = 200


def make_console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH_WITHOUT_TERMINAL)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(Text(name), overflow="fold")
    for row in rows:
        # As Text, since a value such as [x] would be taken for markup.
        table.add_row(*(Text(format_value(value)) for value in row))
    make_console().print(table)


def format_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value:.6g}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds").replace("+00:00", "")
    if isinstance(value, dict | list | tuple):
        return msgspec.json.encode(shorten(value), enc_hook=str).decode()
    return str(value)


def shorten(value: Any) -> Any:
    """The same value with its numbers at the six digits that a table shows."""
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: shorten(part) for key, part in value.items()}
    return [shorten(part) for part in value] if isinstance(value, list | tuple) else value


def encode_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """One JSON array; times as RFC 3339."""
    return msgspec.json.format(msgspec.json.encode(rows, enc_hook=str)).decode()


def encode_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([value.isoformat() if isinstance(value, datetime) else value for value in row])
    return out.getvalue()


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], as_json: bool, as_csv: bool = False) -> None:
    """Rows in the form that was asked for."""
    if as_json:
        print(encode_json([dict(zip(columns, row, strict=True)) for row in rows]))
    elif as_csv:
        print(encode_csv(columns, rows), end="")
    else:
        print_table(columns, rows)
