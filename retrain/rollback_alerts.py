"""The alert that tells of a rollback: a pure function of the role map that rolled back.

Owns its ids and its words. Several trainers may say it; it is the same alert.
"""

from __future__ import annotations

from schemas import identity
from schemas.events import Alert, RoleMap
from schemas.instants import format_instant

RULE = "rollback"


def fire_alert(role_map: RoleMap) -> Alert:
    """Return the alert of a rollback; it is named by the last window that spoke for it."""
    evidence = role_map.evidence
    start = int(evidence["window_start"])
    name = identity.alert_id(role_map.model, RULE, "", start)
    return Alert(
        alert_id=name,
        transition_id=identity.transition_id(name, "firing", start, 0),
        model=role_map.model,
        model_version=str(evidence["version"]),
        rule=RULE,
        kind="performance",
        feature="",
        metric=str(evidence["metric"]),
        segment="",
        severity="high",
        state="firing",
        value=float(evidence["value"]),
        threshold=float(evidence["promised"]),
        harm=float(evidence["loss"]),
        reason=role_map.reason,
        window_start=start,
        window_end=int(evidence["window_end"]),
        at=role_map.changed_at,
        evidence=dict(evidence),
    )


def resolve_alert(fired: Alert, reason: str, window: tuple[int, int], at_ms: int) -> Alert:
    """Return its end; `window` (start and end, epoch ms) is the one that settled it."""
    return Alert(
        alert_id=fired.alert_id,
        transition_id=identity.transition_id(fired.alert_id, "resolved", fired.window_start, 0),
        model=fired.model,
        model_version=fired.model_version,
        rule=RULE,
        kind=fired.kind,
        feature="",
        metric=fired.metric,
        segment="",
        severity=fired.severity,
        state="resolved",
        value=fired.value,
        threshold=fired.threshold,
        harm=fired.harm,
        reason=reason,
        window_start=window[0],
        window_end=window[1],
        at=at_ms,
        evidence=fired.evidence,
    )


def describe_recovery(version: str, window: tuple[int, int]) -> str:
    """Say that the version that came back does well again."""
    return f"version {version} is within its limits again in the window of {format_instant(window[0])}"


def describe_successor(version: str, reason: str) -> str:
    """Say that the roles have moved on."""
    return f"version {version} is champion now: {reason}"
