"""`driftloop report`"""

from __future__ import annotations

from pathlib import Path

import click

from driftloop.cli import Context
from driftloop.connecting import open_store
from driftloop.parameters import Instant
from driftloop.published import read_history
from schemas.errors import ConfigurationError
from schemas.instants import format_instant
from store.alerts import read_transitions
from store.client import ClickHouse
from store.reports import name_rows, read_report
from store.windows import read_newest_window


@click.command(short_help="Evidently's HTML report of a window.")
@click.argument("model")
@click.option("--window", type=Instant(), help="An instant in the window; without it the last measured one.")
@click.option("--alert", default="", help="Of the window in which this alert (its id) began: the stored one, if any.")
@click.option("--version", default="", help="Whose outputs to compare; without it the version that predicted most.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Default MODEL-START.html.")
@click.pass_obj
def report(context: Context, model: str, window: int | None, alert: str, version: str, output: Path | None) -> None:
    """Write Evidently's report of a window against the reference: drift of every column, and both sides' data.

    Of the rows that are measured (a sample of large windows). Alerts do not rest on it. Of an alert that has fired the
    monitor keeps one, which is what --alert gives; with --version another is made.

    \b
    Example:  driftloop report fraud
              driftloop report fraud --window 2026-01-05T14:00 --output fraud.html
    """
    from streams.reporting import report_window

    runtime = context.settings.runtime
    history, segment = read_history(runtime, model), ""
    with open_store(runtime) as store:
        if alert:
            stored = None if version else read_report(store, model, alert)
            if stored is not None:
                write_page(stored.html, model, stored.window_start, stored.window_end, output)
                return
            window, segment = find_window(store, model, alert)
        elif window is None:
            window = read_newest_window(store, model)
        if window is None:
            raise ConfigurationError(
                f"no window of {model!r} is measured yet",
                key="MODEL",
                remedy="driftloop status shows what it waits for",
            )
        published = history.in_force(window)
        origin_ms, size_ms = published.spec.windows.origin_ms, published.window_size_ms
        start_ms = (window - origin_ms) // size_ms * size_ms + origin_ms
        html = report_window(store, published, start_ms, version, segment)
    write_page(html, model, start_ms, start_ms + size_ms, output)


def write_page(html: str, model: str, start_ms: int, end_ms: int, output: Path | None) -> None:
    """Write a window's page, and say where it is."""
    name = format_instant(start_ms).replace(":", "")
    place = output or Path(f"{model}-{name}.html")
    # Line ends as they are: of a stored page the very bytes.
    place.write_text(html, encoding="utf-8", newline="")
    click.echo(f"{place}: the window from {format_instant(start_ms)} to {format_instant(end_ms)}")


def find_window(store: ClickHouse, model: str, alert: str) -> tuple[int, str]:
    """Return the start of the window in which an alert of the model began, and the segment whose rows it is about.

    ConfigurationError if there is no such alert.
    """
    changes = read_transitions(store, model, [alert])
    if not changes:
        raise ConfigurationError(
            f"{model!r} has no alert {alert!r}", key="--alert", remedy="driftloop alerts --all --json shows their ids"
        )
    return min(each.window_start for each in changes), name_rows(changes[0].segment)
