"""Which fired alerts ask for a retraining: those of the declared rules, of the whole model, outside the cooldown."""

from __future__ import annotations

from streams.logic.policy import Fired, decide_retraining

HOUR_MS = 3_600_000


def fired(hour: int, rule: str = "harm", segment: str = "") -> Fired:
    return Fired(rule, segment, f"{rule}-{segment}-{hour}", hour * HOUR_MS, (hour + 1) * HOUR_MS)


def asks(alert: Fired, *earlier: Fired) -> bool:
    return decide_retraining(alert, [*earlier, alert], ["harm"], 6 * HOUR_MS).wanted


def test_only_declared_rules_and_whole_models_ask() -> None:
    assert asks(fired(0))
    assert not asks(fired(0, rule="drift"))
    assert not asks(fired(0, segment="country=DE"))


def test_the_cooldown_counts_from_the_last_alert_that_asked() -> None:
    assert not asks(fired(5), fired(0))
    assert asks(fired(6), fired(0))
    # The one at 5 did not ask, so it does not begin a cooldown of its own.
    assert asks(fired(6), fired(0), fired(5))
    assert not asks(fired(11), fired(0), fired(5), fired(6))
    assert asks(fired(3), fired(0, rule="drift"), fired(1, segment="country=DE"))


def test_later_alerts_change_nothing() -> None:
    assert decide_retraining(fired(0), [fired(0), fired(1)], ["harm"], 6 * HOUR_MS).wanted
