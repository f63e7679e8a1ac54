"""`driftloop jobs`, with `jobs cancel` and `jobs log`"""

from __future__ import annotations

import time
from typing import Any

import click
import msgspec

from driftloop.cli import Context
from driftloop.connecting import open_store
from driftloop.printing import encode_json, format_value, print_rows
from schemas.clock import SystemClock
from schemas.connections import Runtime
from schemas.errors import ConfigurationError, DriftloopError
from schemas.events import RetrainEvent, decode_event, encode_event
from schemas.instants import format_instant
from store.client import ClickHouse
from store.job_logs import read_log
from store.jobs import OPEN_STATES, find_jobs, read_job
from store.log import Producer, TopicReader
from store.overview import read_jobs

COLUMNS = ("model", "state", "verdict", "reason", "version", "num_train_rows", "num_gate_rows", "requested_at",
           "finished_at", "job_id")  # fmt: skip
FOLLOW_POLL_S = 0.5
CANCEL_TIMEOUT_S = 60.0


@click.group(invoke_without_command=True, short_help="List, follow and cancel retraining jobs.")
@click.option("--model", default="", help="Of one model only.")
@click.option("--follow", is_flag=True, help="Print each step as it happens, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array; with --follow one object a line.")
@click.pass_context
def jobs(context: click.Context, model: str, follow: bool, as_json: bool) -> None:
    """Every retraining: what it waits for, or what came of it.

    \b
    Example:  driftloop jobs --model fraud
              driftloop jobs --follow
              driftloop jobs log 3f2a
              driftloop jobs cancel 3f2a --reason "wrong labels"
    """
    if context.invoked_subcommand is not None:
        return
    runtime = context.obj.settings.runtime
    with open_store(runtime) as store:
        rows = read_jobs(store, model)
    if follow:
        _follow(runtime, model, {row["job_id"] for row in rows if row["state"] not in OPEN_STATES}, as_json)
        return
    for row in rows:
        # A finished job's reason is its verdict, and long: once is enough.
        if not as_json and row["reason"] == row["verdict"]:
            row["reason"] = ""
    print_rows(COLUMNS, [[row[name] for name in COLUMNS] for row in rows], as_json)


@jobs.command(short_help="End a job.")
@click.argument("job")
@click.option("--reason", default="cancelled by hand", show_default=True, help="Kept with the job.")
@click.pass_obj
def cancel(context: Context, job: str, reason: str) -> None:
    """End JOB (its id, or the beginning of it), whether it waits or runs; what was promoted stays.

    \b
    Example:  driftloop jobs cancel 3f2a --reason "wrong labels"
    """
    runtime = context.settings.runtime
    with open_store(runtime) as store:
        row = find_job(store, job)
        if row.state not in OPEN_STATES:
            raise DriftloopError(f"job {row.job_id} is over: it is {row.state}")
        event = RetrainEvent(
            job_id=row.job_id,
            model=row.model,
            type="cancel",
            attempt=row.attempt,
            worker="driftloop jobs cancel",
            at=SystemClock().now_ms(),
            detail={"reason": reason},
        )
        producer = Producer(runtime.kafka)
        producer.produce(runtime.topics("retrain-events"), row.job_id, encode_event(event))
        producer.flush(30.0)
        producer.close()
        deadline_s = time.monotonic() + CANCEL_TIMEOUT_S
        while row.state in OPEN_STATES:
            if time.monotonic() > deadline_s:
                raise DriftloopError(f"job {row.job_id} is not over after {CANCEL_TIMEOUT_S:g} s; does a trainer run?")
            time.sleep(FOLLOW_POLL_S)
            row = read_job(store, row.job_id) or row
    click.echo(f"job {row.job_id} is {row.state}")


@jobs.command(short_help="What a job's process printed.")
@click.argument("job")
@click.option("--follow", is_flag=True, help="Print lines as they come, until the job is over.")
@click.pass_obj
def log(context: Context, job: str, follow: bool) -> None:
    """Print the log of JOB (its id, or the beginning of it), all attempts.

    \b
    Example:  driftloop jobs log 3f2a --follow
    """
    with open_store(context.settings.runtime) as store:
        row = find_job(store, job)
        place = (0, 0)
        while True:
            is_over = row.state not in OPEN_STATES
            for line in read_log(store, row.job_id, place):
                place = (line.attempt, line.line)
                click.echo(f"{format_instant(line.at)}  {line.attempt}  {line.text}")
            if is_over or not follow:
                return
            time.sleep(FOLLOW_POLL_S)
            row = read_job(store, row.job_id) or row


def find_job(store: ClickHouse, job: str) -> Any:
    """Return the one job whose id begins so; ConfigurationError for none or several."""
    found = find_jobs(store, job)
    if len(found) != 1:
        raise ConfigurationError(
            f"{len(found) or 'no'} jobs have an id that begins with {job!r}",
            key="JOB",
            remedy="See `driftloop jobs --json`",
        )
    return found[0]


def _follow(runtime: Runtime, model: str, ended: set[str], as_json: bool) -> None:
    reader = TopicReader(runtime.kafka, runtime.topics("retrain-events"))
    try:
        while True:
            for message in reader.read_to_end():
                try:
                    event = decode_event(RetrainEvent, message.value or b"")
                except msgspec.MsgspecError:
                    continue
                is_meant = event.type != "heartbeat" and event.job_id not in ended
                if is_meant and model in ("", event.model):
                    text = encode_json([msgspec.to_builtins(event)])[1:-1] if as_json else _describe(event)
                    click.echo(" ".join(text.split()) if as_json else text)
            time.sleep(FOLLOW_POLL_S)
    finally:
        reader.close()


def _describe(event: RetrainEvent) -> str:
    shown = {name: value for name, value in event.detail.items() if name != "instance" and value is not None}
    words = "  ".join(f"{name} {format_value(value)}" for name, value in shown.items())
    return f"{format_instant(event.at)}  {event.model}  {event.job_id[:12]}  {event.type:<12}  {words}".rstrip()
