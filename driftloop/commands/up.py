"""`driftloop up`"""

from __future__ import annotations

import signal
import threading
from datetime import datetime

import click

from driftloop.cli import Context
from driftloop.settings import DEFAULT_CLICKHOUSE_PORT, DEFAULT_KAFKA_PORT
from driftloop.stack import Stack, hold_folder


@click.command(short_help="Run everything on this machine.")
@click.option("--kafka-port", type=click.IntRange(1, 65535), default=DEFAULT_KAFKA_PORT, show_default=True)
@click.option("--clickhouse-port", type=click.IntRange(1, 65535), default=DEFAULT_CLICKHOUSE_PORT, show_default=True)
@click.pass_obj
def up(context: Context, kafka_port: int, clickhouse_port: int) -> None:
    """Run the servers and every role, until Ctrl-C or SIGTERM.

    Kafka and ClickHouse are embedded ones unless DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS and DRIFTLOOP_CLICKHOUSE_URL name
    others.

    \b
    Example:  driftloop --data /tmp/try up --kafka-port 19092 --clickhouse-port 18123
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with hold_folder(context.data):
        stack = Stack(context.settings, kafka_port, clickhouse_port, report)
        try:
            stack.start()
            announce(stack)
            stop.wait()
            report("stopping")
        finally:
            stack.stop()
    report("stopped")


def report(line: str) -> None:
    click.echo(f"{datetime.now().astimezone():%H:%M:%S} {line}")


def announce(stack: Stack) -> None:
    runtime = stack.runtime
    click.echo(
        f"driftloop is up.\n"
        f"  Kafka       {runtime.kafka.bootstrap_servers}\n"
        f"  ClickHouse  {runtime.clickhouse.url}  (database {runtime.clickhouse.database})\n"
        f"  roles       {', '.join(stack.roles)}\n"
        f"  logs        {stack.logs}\n"
        f"  stop with Ctrl-C"
    )
