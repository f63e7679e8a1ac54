"""What asks for a retraining, and when it may: pure functions of event time, of what fired and what was asked for.

Owns triggers, cooldown and the budget of requests. What needs the clock (quiet hours, GPU-hours) is the trainer's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from croniter import croniter

from schemas.spec import AlertRule, ModelSpec, RetrainSpec, RuleName

SCHEDULE, NEW_LABELS = "schedule", "new_labels"

State = Literal["asks", "asked", "cooldown", "budget", "waits"]

_SECOND_MS = 1_000


@dataclass(frozen=True, slots=True)
class Fired:
    """One alert that fired, by its rule and its first window (epoch ms); not resolved: it still stands."""

    rule: str
    segment: str
    alert_id: str
    first_window_start: int
    fired_window_end: int
    resolved_window_start: int | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that may ask for one retraining: from `due` (event time) on, and as long as it holds.

    `first` is what its request is named by, beside model and rule: the alert's first window, the schedule's slot, or
    the event time since which labels were counted.
    """

    rule: str
    first: int
    due: int
    held_to: int
    alert_id: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was made, and the event time at which it was."""

    rule: str
    first: int
    due: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a cause asks now, from when on it may (event time), and why in words."""

    cause: Cause
    state: State
    at: int
    reason: str

    @property
    def wanted(self) -> bool:
        """True when a request is to be made."""
        return self.state == "asks"


def decide_retraining(causes: Iterable[Cause], asked: Sequence[Asked], retrain: RetrainSpec) -> list[Decision]:
    """Decide each cause in the order of time, given the requests made so far; each that asks counts for the next.

    No two requests are closer than the cooldown, and none goes beyond the budget of requests. A cause that may not ask
    yet asks when both are over, if it still holds then. One that has asked never asks again.
    """
    made = list(asked)
    decisions = []
    for cause in sorted(causes, key=lambda each: (each.due, each.rule, each.first)):
        known = next((each for each in made if (each.rule, each.first) == (cause.rule, cause.first)), None)
        if known is not None:
            decisions.append(Decision(cause, "asked", known.due, "has asked"))
            continue
        at, blocked_by = _find_earliest(cause.due, made, retrain)
        if at <= cause.held_to:
            made.append(Asked(cause.rule, cause.first, at))
            decisions.append(Decision(cause, "asks", at, cause.reason))
        else:
            decisions.append(Decision(cause, blocked_by, at, _describe_block(blocked_by, at - cause.held_to, retrain)))
    return decisions


def _find_earliest(due: int, made: Sequence[Asked], retrain: RetrainSpec) -> tuple[int, State]:
    """Return the first instant from `due` on that cooldown and budget leave free, and which of them moved it last."""
    at, blocked_by = due, "waits"
    budget = retrain.budget
    while True:
        near = [each.due for each in made if abs(each.due - at) < retrain.cooldown_ms]
        if near:
            at, blocked_by = max(near) + retrain.cooldown_ms, "cooldown"
            continue
        if budget is not None and budget.jobs is not None:
            within = sorted(each.due for each in made if at - budget.per_ms < each.due <= at)
            if len(within) >= budget.jobs:
                at, blocked_by = within[-budget.jobs] + budget.per_ms, "budget"
                continue
        return at, blocked_by  # type: ignore[return-value]


def _describe_block(blocked_by: State, left_ms: int, retrain: RetrainSpec) -> str:
    left = f"{left_ms / _SECOND_MS:g} s are left"
    if blocked_by == "cooldown":
        return f"another retraining was asked for less than the cooldown away ({left})"
    if blocked_by == "budget":
        assert retrain.budget is not None
        return f"the budget of {retrain.budget.jobs} requests is used up ({left})"
    return f"not due yet ({left})"


# ── causes ───────────────────────────────────────────────────────────────────────────────────────


def find_alert_cause(alert: Fired, spec: ModelSpec, judged_to: Mapping[str, int]) -> Cause | str:
    """Give the cause that an alert is, or say why it is none.

    `judged_to` is by rule the end of the newest decided window. Alerts of segments never ask, since one model serves
    all of them; those of fairness are of a segment key, and ask where the spec says so.
    """
    retrain = spec.retrain
    kinds = dict(name_rules(spec))
    on: Sequence[RuleName] = retrain.on if retrain else ()
    rule = kinds.get(alert.rule)
    if retrain is None or rule is None or rule.when not in on:
        return f"rule {alert.rule} is not among those that retrain ({', '.join(on) or 'none'})"
    if alert.segment and rule.when != "fairness":
        return f"the alert is about segment {alert.segment} alone"
    due = max(alert.fired_window_end, alert.first_window_start + retrain.for_ * spec.windows.size_ms)
    held_to = judged_to.get(alert.rule, 0) if alert.resolved_window_start is None else alert.resolved_window_start
    held_to = max(held_to, alert.fired_window_end)
    return Cause(alert.rule, alert.first_window_start, due, held_to, alert.alert_id, f"rule {alert.rule} fired")


def find_slot(schedule: str, now_ms: int, since_ms: int) -> int | None:
    """Return the newest time of a cron line (UTC) with since < time ≤ now, epoch ms; earlier ones are passed over."""
    moment = datetime.fromtimestamp(now_ms // _SECOND_MS + 1, UTC)
    slot_s: float = croniter(schedule, moment).get_prev(float)
    slot = round(slot_s * _SECOND_MS)
    return slot if slot > since_ms else None


def find_next_slot(schedule: str, now_ms: int) -> int:
    """Return the first time of a cron line (UTC) after now, epoch ms."""
    moment = datetime.fromtimestamp(now_ms // _SECOND_MS, UTC)
    next_s: float = croniter(schedule, moment).get_next(float)
    return round(next_s * _SECOND_MS)


def find_schedule_cause(schedule: str, now_ms: int, since_ms: int) -> Cause | None:
    """Give the cause of the newest time of the schedule that has come since the data began, if one has."""
    slot = find_slot(schedule, now_ms, since_ms)
    if slot is None:
        return None
    # It asks then or not at all: the schedule comes again.
    return Cause(SCHEDULE, slot, slot, slot, reason=f"the schedule {schedule} has come")


def find_labels_cause(num_needed: int, num_labels: int, since_ms: int, now_ms: int) -> Cause | None:
    """Give the cause that enough labels since the last training are, if they are."""
    if num_labels < num_needed:
        return None
    reason = f"{num_labels:,} labels have come since the last training, {num_needed:,} are enough"
    return Cause(NEW_LABELS, since_ms, now_ms, now_ms, reason=reason)


def name_rules(spec: ModelSpec) -> list[tuple[str, AlertRule]]:
    """Return the spec's rules with names that stay: the first of a kind by its kind, others with their length."""
    named: dict[str, AlertRule] = {}
    for rule in spec.alerts:
        name = rule.when if rule.when not in named else f"{rule.when} for {rule.for_}"
        named.setdefault(name, rule)
    return list(named.items())
