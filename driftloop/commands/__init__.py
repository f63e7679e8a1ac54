"""One module a command; each holds a click command of the module's name."""

from __future__ import annotations

import importlib

import click


def load_command(name: str) -> click.Command:
    """The command of that name."""
    attribute = name.replace("-", "_")
    command = getattr(importlib.import_module(f"driftloop.commands.{attribute}"), attribute)
    assert isinstance(command, click.Command)
    return command
