"""Rows as a table, JSON or CSV: nothing lost, nothing taken for markup."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

import pytest

from driftloop.printing import print_rows

COLUMNS = ("name", "value", "at", "more")
AT = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
ROWS = [["[red]a[/nothing]", 0.1 + 0.2, AT, {"k": [1, None]}], ['b,\n"c"', float("nan"), None, []]]


def test_json_has_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(COLUMNS, ROWS, as_json=True)
    assert json.loads(capsys.readouterr().out) == [
        {"name": "[red]a[/nothing]", "value": 0.1 + 0.2, "at": "2026-01-01T12:30:00Z", "more": {"k": [1, None]}},
        {"name": 'b,\n"c"', "value": None, "at": None, "more": []},
    ]


def test_csv_is_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(COLUMNS, ROWS, as_json=False, as_csv=True)
    first, second = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (first["name"], float(first["value"]), first["at"]) == ("[red]a[/nothing]", 0.1 + 0.2, AT.isoformat())
    assert (second["name"], second["at"]) == ('b,\n"c"', "")


def test_a_table_shows_texts_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(COLUMNS, ROWS, as_json=False)
    out = capsys.readouterr().out
    for text in (*COLUMNS, "[red]a[/nothing]", "0.3", "2026-01-01 12:30:00", '{"k":[1,null]}', "nan"):
        assert text in out


def test_a_table_shortens_numbers_within_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("metrics",), [[{"roc_auc": 0.8782608695652174, "rows": [120, 1 / 3]}]], as_json=False)
    assert '{"roc_auc":0.878261,"rows":[120,0.333333]}' in capsys.readouterr().out


def test_no_rows_are_an_empty_array_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(COLUMNS, [], as_json=True)
    assert json.loads(capsys.readouterr().out) == []
