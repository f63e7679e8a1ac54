"""The `retrain` section's keys that say when a retraining starts and on which rows, read from YAML."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from croniter import croniter

from schemas.declarations import DATA_WINDOWS, BudgetSpec, CostAwareSpec, DataSpec, QuietHoursSpec
from schemas.units import parse_duration_ms
from schemas.yamlnodes import Section, Value

TRIGGER_KEYS = ["on", "for", "schedule", "new_labels", "cooldown", "budget", "quiet_hours", "cost_aware", "data"]

_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_NUM_ROWS = re.compile(r"[1-9]\d{0,11} rows", re.ASCII)
_ANY_INSTANT = datetime(2026, 1, 1, tzinfo=UTC)


def read_triggers(section: Section) -> dict[str, Any]:
    """Give the fields of `RetrainSpec` that are declared of `for`, `schedule`, `new_labels`, `budget` and the like."""
    readers: dict[str, tuple[str, Callable[[Value], Any]]] = {
        "for": ("for_", lambda value: value.count(high=1000)),
        "schedule": ("schedule", _read_schedule),
        "new_labels": ("new_labels", Value.count),
        "cooldown": ("cooldown_ms", Value.duration_ms),
        "budget": ("budget", _read_budget),
        "quiet_hours": ("quiet_hours", _read_quiet_hours),
        "cost_aware": ("cost_aware", _read_cost_aware),
        "data": ("data", _read_data),
    }
    given = {}
    for key, (field, read) in readers.items():
        if (value := section.get(key)) is not None:
            given[field] = read(value)
    return given


def _read_schedule(value: Value) -> str:
    text = value.text()
    try:
        if len(text.split()) != 5:
            raise ValueError("five fields are needed")
        # Only looking for a time finds that there is none, as on 30 February.
        croniter(text, _ANY_INSTANT).get_next()
    except ValueError as error:
        value.fail(
            f"{text!r} is no cron line: {error}",
            'Write minute, hour, day, month and weekday, such as "0 3 * * 1" for Mondays at three.',
        )
    return text


def _read_budget(value: Value) -> BudgetSpec:
    section = value.section().allow(["jobs", "gpu_hours", "per"])
    jobs, gpu_hours, per = section.get("jobs"), section.get("gpu_hours"), section.get("per")
    if jobs is None and gpu_hours is None:
        value.fail("a budget needs a limit", "Write `budget: {jobs: 5, per: 1w}`, or `gpu_hours`, or both.")
    given: dict[str, Any] = {
        "jobs": None if jobs is None else jobs.count(),
        "gpu_hours": None if gpu_hours is None else gpu_hours.number(low=0),
    }
    return BudgetSpec(**given) if per is None else BudgetSpec(**given, per_ms=per.duration_ms())


def _read_quiet_hours(value: Value) -> QuietHoursSpec:
    section = value.section().allow(["from", "to", "timezone"])
    remedy = 'Write `quiet_hours: {from: "08:00", to: "18:00", timezone: Europe/Berlin}`.'
    bounds = []
    for key in ("from", "to"):
        bound = section.require(key, remedy)
        if not _TIME_OF_DAY.fullmatch(bound.text()):
            bound.fail(f"{bound.text()!r} is no time of day", "Write 08:00.")
        bounds.append(bound.text())
    if bounds[0] == bounds[1]:
        section.require("to", remedy).fail("quiet hours that end when they begin leave it open which hours are meant")
    zone = section.get("timezone")
    if zone is None:
        return QuietHoursSpec(from_=bounds[0], to=bounds[1])
    try:
        ZoneInfo(zone.text())
    except (KeyError, OSError, ValueError):
        zone.fail(f"{zone.text()!r} is no time zone", "Write an IANA name, such as Europe/Berlin or UTC.")
    return QuietHoursSpec(from_=bounds[0], to=bounds[1], timezone=zone.text())


def _read_cost_aware(value: Value) -> CostAwareSpec:
    section = value.section().allow(["min_gain_per_hour"])
    gain = section.require("min_gain_per_hour", "Write `cost_aware: {min_gain_per_hour: 100}`.")
    return CostAwareSpec(min_gain_per_hour=gain.number(low=0))


def _read_data(value: Value) -> DataSpec:
    section = value.section().allow(["window", "replay", "min_labels", "folds"])
    given: dict[str, Any] = {}
    if (window := section.get("window")) is not None:
        given["window"] = _read_data_window(window)
    if (replay := section.get("replay")) is not None:
        given["replay"] = replay.number(low=0, high=0.9)
    if (min_labels := section.get("min_labels")) is not None:
        given["min_labels"] = min_labels.count()
    if (folds := section.get("folds")) is not None:
        given["folds"] = folds.count(low=0, high=20)
    return DataSpec(**given)


def _read_data_window(value: Value) -> str:
    text = value.text()
    if text in DATA_WINDOWS or _NUM_ROWS.fullmatch(text):
        return text
    try:
        parse_duration_ms(text)
    except ValueError:
        value.fail(f"{text!r} says no rows", "Write auto, all, after_change, a time such as 30d, or 100000 rows.")
    return text
