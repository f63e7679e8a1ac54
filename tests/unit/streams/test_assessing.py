"""An alert of drift is told again: when it is known whether it hurts, and when another champion has made up for it."""

from __future__ import annotations

from store.alerts import LastAlert
from store.measurements import PerformanceRow
from streams.logic.alerts import Cause, Decision
from streams.logic.assessing import find_news
from streams.logic.verdicts import HarmVerdict, JudgedWindow

SIZE_MS = 1_000


def judge(*windows: tuple[Decision, str]) -> dict[tuple[int, int], JudgedWindow]:
    """Windows one after the other: what each says, of which version."""
    judged = {}
    for number, (decision, version) in enumerate(windows):
        start, end = number * SIZE_MS, (number + 1) * SIZE_MS
        row = PerformanceRow(start, end, version, "performance", 0.8, 0.7, 0.9, "ok", number, 1.0, 100)
        verdict = HarmVerdict(
            decision, None if decision == "unknown" else row, 0.7, None if decision == "unknown" else 0.0
        )
        judged[start, end] = JudgedWindow(start, end, version, verdict)
    return judged


def tell(told: int, harm: float | None, windows: dict[tuple[int, int], JudgedWindow]) -> tuple[Cause, int] | None:
    """What follows, and of which window, when an alert of the second window was last told of window `told`."""
    standing = LastAlert("drift", "", "a", "firing", SIZE_MS, told * SIZE_MS, "info", harm)
    news = find_news(standing, windows)
    return None if news is None else (news.cause, news.window_start // SIZE_MS)


def test_it_is_told_once_whether_drift_hurts_and_once_that_it_does_no_more() -> None:
    waiting: list[tuple[Decision, str]] = [("alert", "old"), ("unknown", "old"), ("unknown", "old")]
    assert tell(1, None, judge(*waiting)) is None, "what was before the alert says nothing of it"
    hurt: list[tuple[Decision, str]] = [*waiting, ("alert", "old"), ("ok", "old"), ("alert", "new")]
    assert tell(1, None, judge(*hurt)) == ("assessed", 3)
    assert tell(3, 0.1, judge(*hurt)) is None, "the same version may be well for a while"
    made_up: list[tuple[Decision, str]] = [*hurt, ("unknown", "new"), ("ok", "new"), ("ok", "new"), ("alert", "new")]
    assert tell(3, 0.1, judge(*made_up)) == ("relieved", 7)
    assert tell(7, 0.0, judge(*made_up)) is None


def test_drift_that_does_not_hurt_has_nothing_to_make_up_for() -> None:
    assert tell(1, 0.0, judge(("ok", "old"), ("ok", "old"), ("ok", "new"))) is None
