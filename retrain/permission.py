"""Whether a job that has its rows may start now, by the clock: quiet hours, GPU-hours, and whether it is worth it.

Owns the words of waiting for these. Event-time limits (cooldown, budget of requests) were decided before the request
was made. A job that was asked for by hand passes all of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from schemas.events import RetrainRequest
from schemas.instants import format_instant
from schemas.spec import ModelSpec, QuietHoursSpec, RetrainSpec
from schemas.units import format_duration
from store.client import ClickHouse
from store.jobs import read_gpu_ms, read_last_training_ms
from store.retrain_requests import TriggerHarm, read_trigger_harm

_HOUR_MS = 3_600_000


def find_hold(ch: ClickHouse, request: RetrainRequest, retrain: RetrainSpec, now_ms: int) -> str:
    """Say why a job must wait by the clock (epoch ms), or nothing when it may start."""
    if request.manual:
        return ""
    if retrain.quiet_hours is not None and is_quiet(retrain.quiet_hours, now_ms):
        return describe_quiet(retrain.quiet_hours)
    budget = retrain.budget
    if budget is not None and budget.gpu_hours is not None:
        used = read_gpu_ms(ch, request.model, now_ms - budget.per_ms, now_ms) / _HOUR_MS
        if used >= budget.gpu_hours:
            per = format_duration(budget.per_ms)
            return f"waits for the budget of {budget.gpu_hours:g} GPU-hours in {per} ({used:.2f} are used)"
    return ""


def is_quiet(quiet: QuietHoursSpec, now_ms: int) -> bool:
    """Say whether an instant (epoch ms) lies in the quiet hours, as the clocks of their time zone show it."""
    moment = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(ZoneInfo(quiet.timezone))
    shown = moment.strftime("%H:%M")
    if quiet.from_ < quiet.to:
        return quiet.from_ <= shown < quiet.to
    return shown >= quiet.from_ or shown < quiet.to


def describe_quiet(quiet: QuietHoursSpec) -> str:
    """Say in words that quiet hours hold a job back."""
    return f"waits for the end of the quiet hours at {quiet.to} ({quiet.timezone})"


def find_unworthy(ch: ClickHouse, request: RetrainRequest, spec: ModelSpec) -> str:
    """Say why a job is not worth its cost, or nothing. What is not known speaks for it.

    Expected gain: the harm of the alert that asked (the primary metric's loss against the reference) times the rows of
    a window, that is what one window loses. Cost: the hours that the model's last training took.
    """
    retrain = spec.retrain
    if request.manual or retrain is None or retrain.cost_aware is None or not request.trigger_alert_id:
        return ""
    harm = read_trigger_harm(ch, request.model, request.trigger_alert_id)
    training_ms = read_last_training_ms(ch, request.model)
    if harm is None or training_ms is None:
        return ""
    gain = compute_gain_per_hour(harm, training_ms)
    least = retrain.cost_aware.min_gain_per_hour
    if gain >= least:
        return ""
    return (
        f"not worth it: {spec.performance.metrics[0]} is {harm.harm:.4g} worse on {harm.num_rows:,} rows a window "
        f"(since {format_instant(harm.window_start)}), and the last training took {training_ms / 1000:.0f} s; "
        f"that is {gain:.4g} an hour, {least:g} are needed"
    )


def compute_gain_per_hour(harm: TriggerHarm, training_ms: int) -> float:
    """Return harm times rows of a window for each hour of training; a training that took no time costs a second."""
    return max(harm.harm, 0.0) * harm.num_rows / (max(training_ms, 1_000) / _HOUR_MS)
