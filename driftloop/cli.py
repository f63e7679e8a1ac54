"""The `driftloop` command: the parser, the data folder, and how errors reach people. Commands are in `commands/`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from driftloop.commands import load_command
from driftloop.settings import DEFAULT_DATA, Settings, read_settings
from schemas.errors import ConfigurationError, DriftloopError, Retryable

HELP = """Monitor machine-learning models on event streams, and retrain them.

Events come in through Kafka, facts go to ClickHouse, alerts go to whoever subscribes.

\b
Start everything on this machine:   driftloop up
See it at work:                     driftloop demo
"""

# Name → one line for the list of commands; the module is commands/<name with _>.py and holds a click command.
COMMANDS = (
    "up", "init", "apply", "models", "status", "replay", "sql", "alerts", "report", "subscribe", "retrain", "jobs",
    "promote", "rollback", "card", "export",
    "topics", "doctor", "demo",
)  # fmt: skip


class Context:
    """What commands share: the data folder, and the settings, read when first needed."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            self._settings = read_settings(self.data)
        return self._settings


class LazyCommands(click.Group):
    """Imports a command's module only when it is asked for: `driftloop sql` must not wait for torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load_command(cmd_name) if cmd_name in COMMANDS else None


@click.group(cls=LazyCommands, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help=f"Folder that a local installation keeps everything in (default {DEFAULT_DATA}).",
)
@click.version_option(package_name="driftloop")
@click.pass_context
def driftloop(ctx: click.Context, data: Path | None) -> None:
    ctx.obj = Context(data or Path(os.environ.get("DRIFTLOOP_DATA", str(DEFAULT_DATA))))


def main() -> None:
    """Run the command; exit 2 for a user's mistake, 1 for a failure, and no stack trace for either."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    # A server that is away is our message to give, not a log line of the client for every try.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        sys.exit(driftloop(prog_name="driftloop", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ConfigurationError as error:
        click.echo(f"driftloop: {error}", err=True)
        sys.exit(2)
    except Retryable as error:
        click.echo(f"driftloop: {error}\nIs it running? `driftloop up` starts it, `driftloop doctor` looks.", err=True)
        sys.exit(1)
    except DriftloopError as error:
        click.echo(f"driftloop: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
