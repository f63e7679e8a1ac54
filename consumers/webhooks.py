"""What a webhook gets: the body as Alertmanager sends it (version "4"), signed as Standard Webhooks has it.

Receivers check a delivery with `verify_signature`; https://www.standardwebhooks.com describes the scheme.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.events import Alert
from schemas.instants import format_instant

TOLERANCE_S = 300
_PREFIX = "whsec_"
# Alertmanager's zero time: the alert has not ended.
_NOT_ENDED = "0001-01-01T00:00:00Z"


def build_payload(alert: Alert, receiver: str, opened_at: int | None = None, report_url: str = "") -> bytes:
    """The body of a delivery; a pure function of the state change, so that a repeated one is the same.

    `opened_at` (epoch ms) is when a resolved alert had begun, `report_url` where its report will be.
    """
    labels = {
        name: value
        for name, value in {
            "alertname": f"Model{alert.kind.capitalize()}",
            "model": alert.model,
            "model_version": alert.model_version,
            "rule": alert.rule,
            "kind": alert.kind,
            "feature": alert.feature,
            "metric": alert.metric,
            "segment": alert.segment,
            "severity": alert.severity,
        }.items()
        if value
    }
    annotations = {
        "summary": f"{alert.model}: {alert.reason}",
        "description": alert.reason,
        "window_start": format_instant(alert.window_start),
        "window_end": format_instant(alert.window_end),
        "alert_id": alert.alert_id,
        "transition_id": alert.transition_id,
        # Those about what comes in have no window to report on.
        **({} if alert.kind == "quality" else {"report": f"driftloop report {alert.model} --alert {alert.alert_id}"}),
        **({"report_url": report_url} if report_url else {}),
        **{
            name: f"{value:g}"
            for name, value in {"value": alert.value, "threshold": alert.threshold, "harm": alert.harm}.items()
            if value is not None
        },
    }
    is_resolved = alert.state == "resolved"
    status = "resolved" if is_resolved else "firing"
    group = {"alertname": labels["alertname"], "model": alert.model}
    entry = {
        "status": status,
        "labels": labels,
        "annotations": annotations,
        "startsAt": format_instant(alert.at if opened_at is None else opened_at),
        "endsAt": format_instant(alert.at) if is_resolved else _NOT_ENDED,
        "generatorURL": "",
        "fingerprint": alert.alert_id[:16],
    }
    body: dict[str, Any] = {
        "version": "4",
        "groupKey": "{}:{" + ", ".join(f'{name}="{value}"' for name, value in group.items()) + "}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": receiver,
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [entry],
    }
    return msgspec.json.encode(body)


def sign_headers(secret: str, webhook_id: str, body: bytes, now_s: int) -> dict[str, str]:
    """The three headers of a delivery."""
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(now_s),
        "webhook-signature": _signature(secret, webhook_id, str(now_s), body),
    }


def verify_signature(
    secret: str, headers: Mapping[str, str], body: bytes, now_s: float, tolerance_s: int = TOLERANCE_S
) -> bool:
    """Whether a delivery comes from who has the secret, and is not older (or newer) than `tolerance_s`.

    Header names in any case; of several signatures in the header one must fit.
    """
    given = {name.lower(): value for name, value in headers.items()}
    timestamp = given.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(now_s - int(timestamp)) > tolerance_s:
        return False
    expected = _signature(secret, given.get("webhook-id", ""), timestamp, body)
    signatures = given.get("webhook-signature", "").split()
    return any(hmac.compare_digest(expected.encode(), signature.encode()) for signature in signatures)


def _signature(secret: str, webhook_id: str, timestamp: str, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    digest = hmac.new(key, f"{webhook_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
