"""`driftloop alerts`"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click

from driftloop.cli import Context
from driftloop.connecting import open_store
from driftloop.printing import encode_json, format_value, print_rows
from store.overview import read_alert_changes, read_open_alerts

OPEN_COLUMNS = ("opened_at", "model", "severity", "state", "rule", "segment", "feature", "value", "threshold", "harm",
                "reason", "has_report")  # fmt: skip
CHANGE_COLUMNS = ("at", "model", "severity", "state", "rule", "segment", "window_start", "reason")
FOLLOW_POLL_S = 1.0


@click.command(short_help="List open alerts, or follow them.")
@click.option("--model", default="", help="Of one model only.")
@click.option("--all", "everything", is_flag=True, help="Every state change, resolved ones too.")
@click.option("--follow", is_flag=True, help="Print state changes as they come, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --follow one object a line.")
@click.pass_obj
def alerts(context: Context, model: str, everything: bool, follow: bool, as_json: bool) -> None:
    """Open alerts, the most severe first. Drift without harm has severity info.

    Of those with has_report, driftloop report MODEL --alert ID gives the stored page; --json shows the ids.

    \b
    Example:  driftloop alerts
              driftloop alerts --follow --model fraud
    """
    with open_store(context.settings.runtime) as store:
        if not follow:
            rows = read_alert_changes(store, model) if everything else read_open_alerts(store, model)
            columns: tuple[str, ...] = (*CHANGE_COLUMNS, "has_report") if everything else OPEN_COLUMNS
            columns += ("alert_id",) if as_json else ()
            rows = rows if as_json else [write_times(row) for row in rows]
            print_rows(columns, [[row[name] for name in columns] for row in rows], as_json)
            return
        told: set[str] = set()
        while True:
            for row in read_alert_changes(store, model):
                if row["transition_id"] not in told:
                    told.add(row["transition_id"])
                    text = encode_json([row]) if as_json else write_line(row)
                    click.echo(" ".join(text.split()) if as_json else text)
            time.sleep(FOLLOW_POLL_S)


def write_times(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its window's start as people read times; programs get epoch milliseconds."""
    start = row.get("window_start")
    return row if start is None else row | {"window_start": datetime.fromtimestamp(start / 1000, UTC)}


def write_line(row: dict[str, Any]) -> str:
    readable = write_times(row)
    return "  ".join(format_value(readable[name]) for name in CHANGE_COLUMNS)
