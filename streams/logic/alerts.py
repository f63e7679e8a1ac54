"""The life of an alert as a pure function: what the windows say now, and what was said before, give what to say next.

Owns when an alert is pending, fires and resolves. It must not know rules, stores or clocks. One alert at a time is
open per rule and segment; it is named by the first window of the run that opened it. Judging again what was judged
already says nothing new, so it never fires twice and resolves once, however often it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Decision = Literal["alert", "ok", "unknown"]
State = Literal["pending", "firing", "resolved"]
Cause = Literal["run", "recovered", "restated", "assessed", "relieved"]

# No changes of state: what fires is told again with what has become known of it, or no longer holds.
AGAIN = ("assessed", "relieved")


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known now of one window: `unknown` neither continues nor ends a run. Instants are epoch ms."""

    window_start: int
    window_end: int
    decision: Decision
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """The last alert of a rule and segment: the window it began in, its state, and its last transition's window."""

    state: State
    first_window_start: int
    window_start: int


@dataclass(frozen=True, slots=True)
class Transition:
    """One state change to announce; `cause` says why: a run of bad windows, a good window, or a restatement.

    The causes in `AGAIN` are no change of state.
    """

    state: State
    first_window_start: int
    window_start: int
    window_end: int
    revision: int
    cause: Cause


def advance(windows: Sequence[Observation], standing: Standing | None, num_needed: int = 1) -> list[Transition]:
    """Return the transitions that follow from the windows (ascending by start) and the last alert; often none.

    An alert opens with the first run of `num_needed` windows that say `alert` (pending until the run is that long) and
    resolves at the latest decided window, once that is `ok`. If measuring again has taken away all windows that spoke
    for it, it resolves with the cause `restated`. Windows up to the one that resolved the last alert are settled: they
    open nothing any more. The windows must reach back to the first window of an open alert.
    """
    decided = [each for each in windows if each.decision != "unknown"]
    transitions: list[Transition] = []
    if standing is None or standing.state == "resolved":
        settled = None if standing is None else standing.window_start
        run = _find_run([each for each in decided if settled is None or each.window_start > settled], num_needed)
        if not run:
            return []
        first = run[0].window_start
        if num_needed > 1:
            transitions.append(_change("pending", first, run[0], "run"))
        if len(run) == num_needed:
            transitions.append(_change("firing", first, run[-1], "run"))
    else:
        first = standing.first_window_start
        if standing.state == "pending":
            run = _find_run([each for each in decided if each.window_start >= first], num_needed)
            if len(run) == num_needed:
                transitions.append(_change("firing", first, run[-1], "run"))
    closing = _find_close(windows, decided, first)
    return transitions if closing is None else [*transitions, closing]


def _find_run(decided: Sequence[Observation], num_needed: int) -> list[Observation]:
    """Return the first run of `num_needed` alerting windows, else the shorter run that the windows end with."""
    run: list[Observation] = []
    for window in decided:
        run = [*run, window] if window.decision == "alert" else []
        if len(run) == num_needed:
            break
    return run


def _find_close(windows: Sequence[Observation], decided: Sequence[Observation], first: int) -> Transition | None:
    since = [each for each in decided if each.window_start >= first]
    if not any(each.decision == "alert" for each in since):
        # A good last window settles everything before it; without one only the first window is settled.
        last = since[-1] if since else next((each for each in windows if each.window_start == first), None)
        return None if last is None else _change("resolved", first, last, "restated")
    if since[-1].decision == "ok":
        return _change("resolved", first, since[-1], "recovered")
    return None


def _change(state: State, first_window_start: int, window: Observation, cause: Cause) -> Transition:
    return Transition(state, first_window_start, window.window_start, window.window_end, window.revision, cause)
