"""Why a retraining would or would not start now: every trigger, limit and wait, as facts and as sentences.

Only reads; it asks the same functions that the monitor and the trainer ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from retrain.permission import describe_quiet, find_hold, is_quiet
from retrain.readiness import check_readiness
from schemas.events import RetrainRequest
from schemas.instants import format_instant
from schemas.spec import ModelHistory, ModelSpec, RetrainSpec
from schemas.units import format_duration
from store.client import ClickHouse
from store.jobs import read_gpu_ms, read_measured_to, read_open_jobs
from streams.asking import Triggers, make_request, read_triggers
from streams.logic.policy import (
    NEW_LABELS,
    SCHEDULE,
    Decision,
    decide_retraining,
    find_next_slot,
    name_rules,
)

_HOUR_MS = 3_600_000

_WORDS = {
    "asks": "asks for a retraining",
    "asked": "has asked for its retraining",
    "cooldown": "must wait: cooldown",
    "budget": "must wait: budget",
    "waits": "must wait",
}


def explain_retraining(ch: ClickHouse, history: ModelHistory, champion: str | None, clock_ms: int) -> dict[str, Any]:
    """Give the state of everything that a retraining depends on; `verdict` says it in one sentence.

    Keys: `model`, `event_time`, `asks`, `can_start`, `verdict`, `triggers`, `cooldown`, `budget`, `quiet_hours`,
    `rows`, `open_jobs`. Instants are RFC 3339.
    """
    spec = history.latest.spec
    facts: dict[str, Any] = {"model": spec.model, "event_time": None, "asks": False, "can_start": False}
    if spec.retrain is None:
        return {**facts, "verdict": "its spec has no section retrain, so nothing is retrained"}
    retrain = spec.retrain
    now_ms = read_measured_to(ch, spec.model)
    if now_ms is None:
        return {**facts, "verdict": "no window is measured yet, so nothing can ask"}
    # Until which window each rule is decided the monitor knows; what is measured is near enough.
    judged_to = {name: now_ms for name, _ in name_rules(spec)}
    triggers = read_triggers(ch, history, now_ms, judged_to, clock_ms)
    decisions = decide_retraining(triggers.causes, triggers.asked, retrain)
    request, whose = _choose_request(spec, decisions, clock_ms)
    readiness = check_readiness(ch, request, spec, champion)
    hold = find_hold(ch, request, retrain, clock_ms)
    jobs = [
        {"job_id": row.job_id, "state": row.state, "rule": row.rule, "reason": row.reason}
        for row in read_open_jobs(ch)
        if row.model == spec.model
    ]
    asks = any(each.wanted for each in decisions)
    can_start = not (readiness.reason or hold or jobs)
    ranges = readiness.ranges
    return {
        **facts,
        "event_time": format_instant(now_ms),
        "asks": asks,
        "can_start": can_start,
        "verdict": _conclude(decisions, readiness.reason, hold, jobs),
        "triggers": list(_list_triggers(spec, triggers, decisions, now_ms)),
        "cooldown": _tell_cooldown(retrain, triggers, now_ms),
        "budget": _tell_budget(ch, spec, triggers, now_ms, clock_ms),
        "quiet_hours": _tell_quiet_hours(retrain, clock_ms),
        "rows": {
            "of": whose,
            "ready": not readiness.reason,
            "reason": readiness.reason,
            "train": None if ranges is None else [format_instant(ranges.train_from), format_instant(ranges.train_to)],
            "gate": None if ranges is None else [format_instant(ranges.gate_from), format_instant(ranges.gate_to)],
        },
        "open_jobs": jobs,
    }


def list_sentences(facts: dict[str, Any]) -> list[str]:
    """Say the facts in sentences, one a line, the verdict first."""
    lines = [f"{facts['model']}: {facts['verdict']}."]
    if facts["event_time"] is None:
        return lines
    lines += ["", f"Event time is {facts['event_time']}: what is measured ends there.", "", "What asks:"]
    lines += [f"  {each['trigger']}: {each['reason']}" for each in facts["triggers"]]
    lines += ["", "What holds back:"]
    lines += [f"  {name.replace('_', ' ')}: {facts[name]['reason']}" for name in ("cooldown", "budget", "quiet_hours")]
    rows = facts["rows"]
    there = "are there" if rows["ready"] else rows["reason"]
    lines.append(f"  rows ({rows['of']}): {there}")
    if rows["ready"]:
        lines.append(f"    to train on {rows['train'][0]} to {rows['train'][1]}")
        lines.append(f"    to gate on  {rows['gate'][0]} to {rows['gate'][1]}")
    for job in facts["open_jobs"]:
        lines.append(f"  job {job['job_id'][:12]} ({job['rule']}) is {job['state']}: {job['reason'] or 'under way'}")
    if not facts["open_jobs"]:
        lines.append("  jobs: no other is open")
    return lines


def _choose_request(spec: ModelSpec, decisions: list[Decision], clock_ms: int) -> tuple[RetrainRequest, str]:
    """Take the request that asks, or waits to; without one, that which a person would make."""
    for states in (("asks",), ("cooldown", "budget", "waits")):
        for decision in decisions:
            if decision.state in states:
                return make_request(spec, decision.cause, clock_ms), f"for {decision.cause.rule}"
    by_hand = RetrainRequest(
        request_id="", model=spec.model, rule="manual", trigger_alert_id="", reason="", first_window_start=0,
        first_window_end=0, window_size_ms=spec.windows.size_ms, requested_at=clock_ms, manual=True,
    )  # fmt: skip
    return by_hand, "for a request by hand"


def _conclude(decisions: list[Decision], rows: str, hold: str, jobs: list[dict[str, Any]]) -> str:
    asking = [each for each in decisions if each.wanted]
    waiting = [each for each in decisions if each.state in ("cooldown", "budget", "waits")]
    if not asking:
        if jobs:
            return f"nothing new asks; a job is {jobs[0]['state']}: {jobs[0]['reason'] or 'under way'}"
        if waiting:
            return f"no retraining would start: {waiting[0].cause.rule} does not ask, because {waiting[0].reason}"
        return "no retraining would start: nothing asks for one"
    first = asking[0].cause.rule
    if jobs:
        return f"{first} asks, but a job of the model is {jobs[0]['state']}"
    if rows or hold:
        return f"{first} asks, but its job {rows or hold}"
    return f"a retraining would start: {first} asks, and its rows are there"


def _list_triggers(
    spec: ModelSpec, triggers: Triggers, decisions: list[Decision], now_ms: int
) -> Iterator[dict[str, Any]]:
    retrain = spec.retrain
    assert retrain is not None
    by_rule: dict[str, list[Decision]] = {}
    for each in decisions:
        by_rule.setdefault(each.cause.rule, []).append(each)
    rules = {name: rule for name, rule in name_rules(spec) if rule.when in retrain.on}
    for name in rules:
        found = [_tell(each) for each in by_rule.get(name, [])]
        yield from found or [{"trigger": name, "state": "silent", "reason": "no alert stands"}]
    if retrain.schedule is not None:
        following = format_instant(find_next_slot(retrain.schedule, now_ms))
        for each in by_rule.get(SCHEDULE, []):
            told = _tell(each)
            yield {**told, "reason": f"{told['reason']}; comes again at {following}", "next": following}
        if SCHEDULE not in by_rule:
            reason = f"{retrain.schedule} has not come since the data began; it comes at {following}"
            yield {"trigger": SCHEDULE, "state": "silent", "reason": reason, "next": following}
    if retrain.new_labels is not None:
        if NEW_LABELS in by_rule:
            yield from (_tell(each) for each in by_rule[NEW_LABELS])
        else:
            num = triggers.labels.num_labels if triggers.labels else 0
            reason = f"{num:,} of {retrain.new_labels:,} labels have come since the last training"
            yield {"trigger": NEW_LABELS, "state": "silent", "reason": reason, "num_labels": num}
    yield {"trigger": "manual", "state": "silent", "reason": f"`driftloop retrain {spec.model}` asks at once"}


def _tell(decision: Decision) -> dict[str, Any]:
    cause = decision.cause
    about = f"the alert of window {format_instant(cause.first)}" if cause.alert_id else cause.reason
    reason = f"{about} {_WORDS[decision.state]}" if cause.alert_id else f"{about}: {_WORDS[decision.state]}"
    if decision.state not in ("asks", "asked"):
        reason = f"{reason} ({decision.reason})"
    return {
        "trigger": cause.rule,
        "state": decision.state,
        "reason": reason,
        "at": format_instant(decision.at),
        "alert_id": cause.alert_id,
    }


def _tell_cooldown(retrain: RetrainSpec, triggers: Triggers, now_ms: int) -> dict[str, Any]:
    last = max((each.due for each in triggers.asked), default=None)
    length = format_duration(retrain.cooldown_ms)
    if last is None:
        return {"left_s": 0.0, "ends_at": None, "reason": f"{length}; nothing has asked yet"}
    ends = last + retrain.cooldown_ms
    left_s = max(0, ends - now_ms) / 1000
    state = f"{left_s:g} s are left" if left_s else "is over"
    reason = f"{length} from the last request, at {format_instant(last)}: {state}"
    return {"left_s": left_s, "ends_at": format_instant(ends), "reason": reason}


def _tell_budget(ch: ClickHouse, spec: ModelSpec, triggers: Triggers, now_ms: int, clock_ms: int) -> dict[str, Any]:
    budget = spec.retrain.budget if spec.retrain else None
    if budget is None:
        return {"reason": "none is declared"}
    num = sum(now_ms - budget.per_ms < each.due <= now_ms for each in triggers.asked)
    hours = read_gpu_ms(ch, spec.model, clock_ms - budget.per_ms, clock_ms) / _HOUR_MS
    parts = []
    if budget.jobs is not None:
        parts.append(f"{num} of {budget.jobs} requests")
    if budget.gpu_hours is not None:
        parts.append(f"{hours:.2f} of {budget.gpu_hours:g} GPU-hours")
    reason = f"{' and '.join(parts)} are used in {format_duration(budget.per_ms)}"
    return {**msgspec.to_builtins(budget), "num_requests": num, "gpu_hours_used": hours, "reason": reason}


def _tell_quiet_hours(retrain: RetrainSpec, clock_ms: int) -> dict[str, Any]:
    quiet = retrain.quiet_hours
    if quiet is None:
        return {"quiet": False, "reason": "none are declared"}
    now = is_quiet(quiet, clock_ms)
    reason = describe_quiet(quiet) if now else f"not now ({quiet.from_} to {quiet.to}, {quiet.timezone})"
    return {"quiet": now, "reason": reason}
