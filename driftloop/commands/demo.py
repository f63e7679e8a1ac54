"""`driftloop demo`"""

from __future__ import annotations

import signal
import sys

import click

from driftloop.cli import Context
from driftloop.demo.runner import folder_in_words, run_demo, show_promises
from driftloop.printing import make_console


@click.command(short_help="Watch two models fall behind, on real data.")
@click.pass_obj
def demo(context: Context) -> None:
    """Replay two data sets against the whole system on this machine, tell what happens, check what was promised.

    Takes a few minutes; leaves its data in the folder demo/ of the data folder. Exit 1 when a promise is broken.

    \b
    Example:  driftloop demo
    """
    # Ended from outside, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = make_console()
    data = context.data / "demo"
    outcome = run_demo(data, console)
    show_promises(outcome, console)
    num_kept = sum(promise.kept for promise in outcome.promises)
    console.print(
        f"\n{num_kept} of {len(outcome.promises)} promises kept; the story took {outcome.seconds:.0f} s.\n"
        f"To explore it:  driftloop --data {folder_in_words(data)} up"
    )
    if not outcome.kept:
        raise SystemExit(1)
