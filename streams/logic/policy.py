"""Does a fired alert ask for a retraining? Event time only; a pure function of what fired."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from schemas.spec import AlertRule, ModelSpec


@dataclass(frozen=True, slots=True)
class Fired:
    """One alert that fired, by its rule and its first window (epoch ms)."""

    rule: str
    segment: str
    alert_id: str
    first_window_start: int
    fired_window_end: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to ask, and why in words."""

    wanted: bool
    reason: str


def decide_retraining(alert: Fired, fired: Iterable[Fired], rules: Collection[str], cooldown_ms: int) -> Decision:
    """Decide whether `alert` asks for a retraining, given all alerts of the model that have `fired`.

    Alerts of segments never ask: one model serves all of them. An alert within the cooldown of one that asked does not
    ask; which ones asked follows from the same rule applied to the earlier ones, so nothing has to be remembered.
    """
    if alert.rule not in rules:
        return Decision(False, f"rule {alert.rule} is not among those that retrain ({', '.join(rules) or 'none'})")
    if alert.segment:
        return Decision(False, f"the alert is about segment {alert.segment} alone")
    earlier = sorted(
        (
            each
            for each in fired
            if each.rule in rules
            and not each.segment
            and each.alert_id != alert.alert_id
            and (each.fired_window_end, each.alert_id) < (alert.fired_window_end, alert.alert_id)
        ),
        key=lambda each: (each.fired_window_end, each.alert_id),
    )
    asked_at: int | None = None
    for each in earlier:
        if asked_at is None or each.fired_window_end - asked_at >= cooldown_ms:
            asked_at = each.fired_window_end
    if asked_at is not None and alert.fired_window_end - asked_at < cooldown_ms:
        left_s = (asked_at + cooldown_ms - alert.fired_window_end) / 1000
        return Decision(False, f"the last retraining was asked for less than the cooldown ago ({left_s:g} s are left)")
    return Decision(True, f"rule {alert.rule} fired")


def name_rules(spec: ModelSpec) -> list[tuple[str, AlertRule]]:
    """Return the spec's rules with names that stay: the first of a kind by its kind, others with their length."""
    named: dict[str, AlertRule] = {}
    for rule in spec.alerts:
        name = rule.when if rule.when not in named else f"{rule.when} for {rule.for_}"
        named.setdefault(name, rule)
    return list(named.items())
