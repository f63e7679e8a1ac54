"""Subscriptions to alerts, and every attempt to deliver one."""

import base64
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from schemas.errors import ConfigurationError
from schemas.events import Alert
from store.client import ClickHouse

SEVERITIES = ("info", "low", "high", "critical")

Outcome = Literal["delivered", "failed", "given_up", "disabled"]

# What needs no further attempt.
FINAL_OUTCOMES = ("delivered", "given_up", "disabled")


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who wants which alerts: `model` empty means all of them, `severity_min` and above; instants are epoch ms.

    `secret` signs the deliveries; `reason` says in words why a subscription is disabled.
    """

    name: str
    model: str
    severity_min: str
    url: str
    secret: str
    disabled: bool = False
    removed: bool = False
    reason: str = ""
    created_at: int = 0
    updated_at: int = 0

    def wants(self, model: str, severity: str) -> bool:
        """Whether an alert of this model and severity is to be sent."""
        if self.disabled or self.model not in ("", model):
            return False
        return SEVERITIES.index(severity) >= SEVERITIES.index(self.severity_min)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of one delivery; `status_code` 0 means that no answer came."""

    subscription: str
    model: str
    alert_id: str
    transition_id: str
    webhook_id: str
    status_code: int
    outcome: Outcome
    error: str
    attempt: int
    duration_ms: int
    at: int


def add_subscription(
    ch: ClickHouse,
    *,
    url: str,
    now_ms: int,
    model: str = "",
    severity_min: str = "low",
    name: str | None = None,
    secret: str | None = None,
) -> Subscription:
    """Subscribe a URL; the same name again replaces, and enables what was disabled.

    Without `secret` the name's present one is kept, or a new one made.
    """
    if severity_min not in SEVERITIES:
        raise ConfigurationError(
            f"{severity_min!r} is no severity", key="severity", remedy=f"Choose one of {', '.join(SEVERITIES)}"
        )
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigurationError(f"{url!r} is no URL to POST to", key="url", remedy="Write http://… or https://…")
    _check_secret(secret)
    name = name or f"{model or 'all'}@{address.hostname}{address.path.rstrip('/')}"
    known = {subscription.name: subscription for subscription in list_subscriptions(ch)}.get(name)
    subscription = Subscription(
        name=name,
        model=model,
        severity_min=severity_min,
        url=url,
        secret=secret or (known.secret if known else make_secret()),
        created_at=known.created_at if known else now_ms,
        updated_at=now_ms,
    )
    _insert(ch, subscription)
    return subscription


def list_subscriptions(ch: ClickHouse) -> list[Subscription]:
    """All subscriptions that were not removed, disabled ones too, by name."""
    rows = ch.query(
        "SELECT name, model, severity_min, url, secret, disabled, removed, reason, "
        "toUnixTimestamp64Milli(created_at), toUnixTimestamp64Milli(updated_at) "
        "FROM subscriptions FINAL WHERE NOT removed ORDER BY name"
    )
    return [Subscription(*row) for row in rows]


def remove_subscription(ch: ClickHouse, name: str, now_ms: int) -> bool:
    """Take a subscription back; False if there is none of that name."""
    return _change(ch, name, now_ms, removed=True)


def disable_subscription(ch: ClickHouse, name: str, reason: str, now_ms: int) -> bool:
    """Stop sending to a subscription, which stays listed with the reason; False if there is none of that name."""
    return _change(ch, name, now_ms, disabled=True, reason=reason)


def make_secret() -> str:
    """A new signing secret as Standard Webhooks writes it: `whsec_` and 24 random bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def insert_attempts(ch: ClickHouse, attempts: Sequence[Attempt]) -> None:
    """Record delivery attempts."""
    ch.insert_rows("deliveries", [asdict(attempt) | {"at": _instant(attempt.at)} for attempt in attempts])


def read_finished_webhooks(ch: ClickHouse, webhook_ids: Iterable[str]) -> set[str]:
    """Those of the deliveries that were delivered or given up: they need no further attempt."""
    rows = ch.query(
        "SELECT DISTINCT webhook_id FROM deliveries "
        "WHERE webhook_id IN {ids:Array(String)} AND outcome IN {outcomes:Array(String)}",
        {"ids": list(webhook_ids), "outcomes": list(FINAL_OUTCOMES)},
    )
    return {str(webhook_id) for (webhook_id,) in rows}


def read_opened_at(ch: ClickHouse, model: str, alert_id: str) -> int | None:
    """When an alert first fired, in epoch ms; None where the store does not know it."""
    rows = ch.query(
        "SELECT toUnixTimestamp64Milli(min(at)), count() FROM alerts FINAL "
        "WHERE model = {model:String} AND alert_id = {alert_id:String} AND state = 'firing'",
        {"model": model, "alert_id": alert_id},
    )
    opened_at, num_rows = rows[0]
    return int(opened_at) if num_rows else None


def read_worst_severity(ch: ClickHouse, alert: Alert) -> str:
    """The worst severity that an alert was told with until this state change: who was told of it is told the rest."""
    rows = ch.query(
        "SELECT DISTINCT severity FROM alerts FINAL WHERE model = {model:String} AND alert_id = {alert_id:String} "
        "AND state = 'firing' AND at <= fromUnixTimestamp64Milli({at:Int64}, 'UTC')",
        {"model": alert.model, "alert_id": alert.alert_id, "at": alert.at},
    )
    return max([alert.severity, *(str(severity) for (severity,) in rows)], key=SEVERITIES.index)


def _check_secret(secret: str | None) -> None:
    try:
        base64.b64decode((secret or "").removeprefix("whsec_"), validate=True)
    except ValueError:
        remedy = "Write whsec_ and base64, or leave it out to have one made"
        raise ConfigurationError("the secret is not base64", key="secret", remedy=remedy) from None


def _change(ch: ClickHouse, name: str, now_ms: int, **changes: Any) -> bool:
    for subscription in list_subscriptions(ch):
        if subscription.name == name:
            # Later than what it replaces also within one millisecond.
            _insert(ch, replace(subscription, updated_at=max(now_ms, subscription.updated_at + 1), **changes))
            return True
    return False


def _insert(ch: ClickHouse, subscription: Subscription) -> None:
    row = asdict(subscription)
    row["created_at"], row["updated_at"] = _instant(subscription.created_at), _instant(subscription.updated_at)
    ch.insert_rows("subscriptions", [row])


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
