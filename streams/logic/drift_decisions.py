"""What do drift measurements say of each window: alert, all is well, or nothing that can be decided? Pure.

Owns how tests of single and of merged windows become one decision a window, and what a second look may do. The lives of
alerts are `streams.logic.alerts`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from measures.budget import share_of_look
from store.measurements import DriftRow
from streams.logic.alerts import Decision, Observation, Standing
from streams.logic.verdicts import choose_worst

# (start, end) in epoch ms.
Window = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Decided:
    """One window of one segment, and the reading that decided it; a merged window belongs to the last one in it."""

    observation: Observation
    reading: DriftRow


def group_by_window(rows: Iterable[DriftRow], size_ms: int) -> dict[Window, list[DriftRow]]:
    """Give what was tested when a window was complete: the window alone, and the merged ones that end with it."""
    found: dict[Window, list[DriftRow]] = {}
    for row in rows:
        found.setdefault((row.window_end - size_ms, row.window_end), []).append(row)
    return found


def decide_windows(by_window: Mapping[Window, list[DriftRow]], standing: Standing | None) -> list[Decided]:
    """Decide the windows of one segment, ascending; `standing` is its last alert.

    A window alerts when any of its tests does. It is well when one of them is and no scale's latest test alerts: an
    alert that only many windows together have shown stays until as many say otherwise.
    """
    latest: dict[int, Decision] = {}
    decided = []
    for window in sorted(by_window):
        by_scale: dict[int, list[DriftRow]] = {}
        for row in by_window[window]:
            by_scale.setdefault(row.scale, []).append(row)
        worst = [each for rows in by_scale.values() if (each := choose_worst(rows)) is not None]
        if not worst:
            continue
        is_open = standing is not None and standing.state != "resolved" and window[0] >= standing.first_window_start
        now = {row.scale: _decide(row, is_open) for row in worst}
        latest |= now
        reading = min(worst, key=lambda row: (now[row.scale] != "alert", -row.ratio, row.scale))
        decision = _join(now.values(), latest.values())
        decided.append(Decided(Observation(*window, decision, max(row.revision for row in worst)), reading))
    return decided


def _join(now: Iterable[Decision], latest: Iterable[Decision]) -> Decision:
    tested = set(now)
    if "alert" in tested:
        return "alert"
    return "unknown" if "alert" in set(latest) or "ok" not in tested else "ok"


def _decide(row: DriftRow, is_open: bool) -> Decision:
    """Decide one test. Its level is that of a first look; a later one opens an alert at what the budget has left."""
    if math.isnan(row.ratio):
        return "unknown"
    if row.ratio < 1.0:
        return "ok"
    if is_open or row.alpha is None:
        return "alert"
    return "alert" if row.ratio >= share_of_look(1) / share_of_look(row.revision) else "unknown"
