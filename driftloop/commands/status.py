"""`driftloop status`"""

from __future__ import annotations

from typing import Any

import click

from driftloop.cli import Context
from driftloop.connecting import open_store
from driftloop.printing import encode_json, format_value, print_table
from driftloop.published import read_catalogue
from schemas.connections import Runtime
from schemas.instants import format_instant
from schemas.topics import INBOUND, MONITOR
from store.client import ClickHouse
from store.log.offsets import read_end_offsets
from store.markers import read_sink_markers
from store.overview import count_events, read_jobs, read_open_alerts
from store.summaries import read_markers, read_stamps
from store.windows import read_measured_windows

OPEN_JOBS = ("waiting", "running")


@click.command(short_help="Lag, watermarks, open windows, alerts, jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array with one object.")
@click.pass_obj
def status(context: Context, as_json: bool) -> None:
    """How far everything is.

    \b
    Example:  driftloop status
    """
    runtime = context.settings.runtime
    with open_store(runtime) as store:
        facts: dict[str, Any] = {
            "events": count_events(store),
            "partitions": read_partitions(runtime, store),
            "models": read_models(runtime, store),
            "alerts": read_open_alerts(store),
            "jobs": [job for job in read_jobs(store) if job["state"] in OPEN_JOBS],
        }
    if as_json:
        click.echo(encode_json([facts]))
        return
    click.echo(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in facts["events"].items()))
    show("Partitions", facts["partitions"], ("topic", "partition", "end", "sink_lag", "monitor_lag"))
    show("Models", facts["models"], ("model", "spec_version", "watermark", "open_windows", "last_measured"))
    show("Open alerts", facts["alerts"], ("opened_at", "model", "severity", "rule", "segment", "reason"))
    show("Open jobs", facts["jobs"], ("model", "state", "reason", "requested_at"))


def show(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    click.echo(f"\n{title}:" if rows else f"\n{title}: none")
    if rows:
        print_table(columns, [[format_value(row[name]) for name in columns] for row in rows])


def read_partitions(runtime: Runtime, store: ClickHouse) -> list[dict[str, Any]]:
    topics = [runtime.topics(name) for name in INBOUND]
    stored = read_sink_markers(store, topics)
    counted = {
        (marker.place.topic, marker.place.topic_id, marker.place.partition): marker.next_offset
        for marker in read_markers(store, runtime.topics(MONITOR), topics)
    }
    return [
        {
            "topic": place[0],
            "partition": place[2],
            "end": end,
            "sink_lag": end - stored.get(place, 0),
            "monitor_lag": end - counted.get(place, 0),
        }
        for place, end in sorted(read_end_offsets(runtime.kafka, topics).items())
    ]


def read_models(runtime: Runtime, store: ClickHouse) -> list[dict[str, Any]]:
    """Per model: the newest watermark, windows not yet measured, and the last one measured."""
    catalogue = read_catalogue(runtime)
    markers = read_markers(store, runtime.topics(MONITOR), [runtime.topics(name) for name in INBOUND[:2]])
    rows = []
    for model in catalogue.models():
        history = catalogue.get(model)
        assert history is not None
        watermarks = [
            watermark_ms
            for marker in markers
            for watermark_ms, _ in marker.watermarks.get(model, {}).values()
        ]  # fmt: skip
        windows = {
            (stamp.window_start, stamp.window_end) for stamp in read_stamps(store, runtime.topics(MONITOR), model)
        }
        measured = read_measured_windows(store, model, 0)
        last = max((end for _, end in measured), default=None)
        rows.append(
            {
                "model": model,
                "spec_version": history.latest.spec_version,
                "watermark": format_instant(max(watermarks)) if watermarks else None,
                "open_windows": len(windows - set(measured)),
                "last_measured": format_instant(last) if last is not None else None,
            }
        )
    return rows
