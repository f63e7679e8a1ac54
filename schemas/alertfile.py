"""The `alerts` section of a model spec, read from YAML."""

from __future__ import annotations

from typing import Any, get_args

from schemas.declarations import AlertRule, FairnessSpec, RuleName, Severity, default_alerts
from schemas.topics import INBOUND
from schemas.units import format_duration
from schemas.yamlnodes import Section, Value

_DEFAULT_SEVERITY: dict[RuleName, Severity] = {"harm": "high", "drift": "info", "fairness": "low", "freshness": "high"}
# The monitor looks every ten seconds.
_MAX_AGE_MS_MIN = 10_000


def read_alerts(value: Value | None, fairness: FairnessSpec) -> list[AlertRule]:
    """Give the rules of the section, or those of a spec without one; `fairness` says what is measured of it."""
    if value is None:
        return default_alerts()
    rules: list[AlertRule] = []
    for item in value.items():
        rule = _read_rule(item.section(), fairness)
        if any(each.when == rule.when for each in rules):
            item.section().require("when", "").fail(f"there is a rule for {rule.when!r} already")
        rules.append(rule)
    return rules


def _read_rule(section: Section, fairness: FairnessSpec) -> AlertRule:
    section.allow(["when", "for", "max_age", "severity", "report"])
    when: Any = section.require("when", "Write `when: harm`.").choice(get_args(RuleName))
    if when == "fairness" and fairness == FairnessSpec():
        section.require("when", "").fail(
            "no fairness is measured", "Declare a limit, such as `fairness: {demographic_parity: 0.1}`."
        )
    given = section.get("severity")
    severity: Any = _DEFAULT_SEVERITY[when] if given is None else given.choice(get_args(Severity))
    # Freshness has no window to wait for, or to report on.
    for name in ("for", "report") if when == "freshness" else ("max_age",):
        if name in section:
            section.require(name, "").fail(f"a rule of {when} has no `{name}`", "Leave it out.")
    if when == "freshness":
        max_age = section.require("max_age", "Say how long a topic may be without an event: `max_age: 30m`.")
        return AlertRule(when=when, severity=severity, report=False, max_age_ms=_read_max_age(max_age))
    lasting, report = section.get("for"), section.get("report")
    return AlertRule(
        when=when,
        for_=1 if lasting is None else lasting.count(high=1000),
        severity=severity,
        # A report compares distributions: it says little of what differs between the values of a segment key.
        report=when != "fairness" if report is None else report.flag(),
    )


def _read_max_age(value: Value) -> int | dict[str, int]:
    if not value.is_section():
        return _read_age(value)
    ages = {topic: _read_age(age) for topic, age in value.section().allow(INBOUND)}
    if not ages:
        value.fail("no topic is named", f"Name some of {', '.join(INBOUND)}, or write one duration.")
    return ages


def _read_age(value: Value) -> int:
    age_ms = value.duration_ms()
    if age_ms < _MAX_AGE_MS_MIN:
        value.fail(f"{value.text()!r} is too short to be noticed", f"Write {format_duration(_MAX_AGE_MS_MIN)} or more.")
    return age_ms
