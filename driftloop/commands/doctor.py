"""`driftloop doctor`"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import click

from driftloop.cli import Context
from driftloop.connecting import open_store
from driftloop.printing import encode_json
from driftloop.settings import Settings
from schemas.clock import SystemClock
from schemas.errors import DriftloopError
from store.log import diff_topics
from store.log.offsets import wait_for_log
from store.migrations import list_pending

WAIT_S = 5.0
CLOCK_DIFFERENCE_MS_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `remedy` says what to do where it is not `ok`."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


@click.command(short_help="Check broker, ClickHouse, topics, clock and GPU.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_obj
def doctor(context: Context, as_json: bool) -> None:
    """Look at everything that driftloop needs, and say what to do. Exit 1 when something is wrong.

    \b
    Example:  driftloop doctor
    """
    findings = [examine(check, context.settings) for check in CHECKS]
    if as_json:
        rows = [{"name": f.name, "ok": f.ok, "found": f.found, "remedy": f.remedy} for f in findings]
        click.echo(encode_json(rows))
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name:<11} {finding.found}")
            if not finding.ok and finding.remedy:
                click.echo(f"                  {finding.remedy}")
    if not all(finding.ok for finding in findings):
        sys.exit(1)


def examine(check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except DriftloopError as error:
        name = check.__name__.removeprefix("check_")
        return Finding(name, False, str(error), "Start it (`driftloop up`), or correct its address")


def check_kafka(settings: Settings) -> Finding:
    wait_for_log(settings.runtime.kafka, WAIT_S)
    return Finding("kafka", True, settings.runtime.kafka.bootstrap_servers)


def check_topics(settings: Settings) -> Finding:
    runtime = settings.runtime
    wait_for_log(runtime.kafka, WAIT_S)
    differences = diff_topics(runtime.kafka, runtime.topics, runtime.num_partitions)
    found = "; ".join(map(str, differences[:3])) if differences else "as declared"
    return Finding("topics", not differences, found, "Run `driftloop topics apply`; partition counts stay as they are")


def check_clickhouse(settings: Settings) -> Finding:
    with open_store(settings.runtime) as store:
        version = store.query("SELECT version()")[0][0]
        pending = list_pending(store)
    return Finding(
        "clickhouse", not pending, f"version {version}" + (f", {len(pending)} migrations to run" if pending else ""),
        "Run `driftloop topics apply --migrate`",
    )  # fmt: skip


def check_clock(settings: Settings) -> Finding:
    with open_store(settings.runtime) as store:
        theirs_ms = store.query("SELECT toUnixTimestamp64Milli(now64(3))")[0][0]
    difference_ms = abs(SystemClock().now_ms() - theirs_ms)
    return Finding(
        "clock", difference_ms <= CLOCK_DIFFERENCE_MS_MAX, f"{difference_ms} ms from ClickHouse's",
        "Let a time service keep both machines' clocks",
    )  # fmt: skip


def check_gpu(_settings: Settings) -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("gpu", True, f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}")
    return Finding("gpu", True, f"none; training runs on the CPU (torch {torch.__version__})")


CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    check_kafka,
    check_topics,
    check_clickhouse,
    check_clock,
    check_gpu,
)
