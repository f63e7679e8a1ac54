"""When is drift that fires told again: once it is known whether it hurts, and once another champion has made up for it?

Pure. Owns these two questions about the whole model; the lives of alerts are `streams.logic.alerts`.
"""

from __future__ import annotations

from collections.abc import Mapping

from store.alerts import LastAlert
from streams.logic.alerts import Cause, Transition
from streams.logic.drift_decisions import Window
from streams.logic.verdicts import JudgedWindow


def find_news(standing: LastAlert, windows: Mapping[Window, JudgedWindow]) -> Transition | None:
    """Return what is to be told of an alert of drift beside its changes of state; None if all of it was told.

    `windows` reach back to the first window of the alert. Either is told once, of the first window that shows it.
    """
    if standing.state != "firing":
        return None
    known = [
        each
        for _, each in sorted(windows.items())
        if each.window_start >= standing.first_window_start
        and each.verdict.decision != "unknown"
        and each.verdict.harm is not None
    ]
    if standing.harm is None:
        return _tell(standing, known[0], "assessed") if known else None
    told = next((each for each in known if each.window_start == standing.window_start), None)
    if told is None or told.verdict.decision != "alert":
        return None
    for each in known:
        is_other = each.window_start > told.window_start and each.model_version != told.model_version
        if is_other and each.verdict.decision == "ok":
            return _tell(standing, each, "relieved")
    return None


def _tell(standing: LastAlert, window: JudgedWindow, cause: Cause) -> Transition:
    assert window.verdict.reading is not None, "it was decided"
    revision = window.verdict.reading.revision
    return Transition("firing", standing.first_window_start, window.window_start, window.window_end, revision, cause)
