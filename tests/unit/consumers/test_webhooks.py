"""Bodies and signatures of webhooks."""

import json

from consumers.webhooks import build_payload, sign_headers, verify_signature
from schemas.events import Alert

# The example of the Standard Webhooks specification's reference libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
NOW_S = 1614265330


def _alert(**changes: object) -> Alert:
    fields = {
        "alert_id": "a" * 32, "transition_id": "t1", "model": "fraud", "model_version": "7", "rule": "harm",
        "kind": "performance", "feature": "", "metric": "roc_auc", "segment": "", "severity": "high",
        "state": "firing", "value": 0.8, "threshold": 0.9, "harm": None, "reason": "AUC fell", "window_start": 0,
        "window_end": 3_600_000, "at": 7_200_000,
    }  # fmt: skip
    return Alert(**{**fields, **changes})  # type: ignore[arg-type]


def test_signatures_are_those_of_the_standard() -> None:
    headers = sign_headers(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", BODY, NOW_S)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_only_fresh_and_untouched_deliveries_verify() -> None:
    headers = sign_headers(SECRET, "msg_1", BODY, NOW_S)
    assert verify_signature(SECRET, headers, BODY, NOW_S + 10)
    assert verify_signature(SECRET, {name.title(): value for name, value in headers.items()}, BODY, NOW_S)
    assert verify_signature(
        SECRET, {**headers, "webhook-signature": "v1,other " + headers["webhook-signature"]}, BODY, NOW_S
    )
    assert not verify_signature(SECRET, headers, BODY + b" ", NOW_S)
    assert not verify_signature(SECRET, {**headers, "webhook-id": "msg_2"}, BODY, NOW_S)
    assert not verify_signature("whsec_AAAA", headers, BODY, NOW_S)
    assert not verify_signature(SECRET, headers, BODY, NOW_S + 301)
    assert not verify_signature(SECRET, {}, BODY, NOW_S)


def test_the_body_is_what_alertmanager_sends() -> None:
    body = json.loads(build_payload(_alert(), "pager"))
    assert body["version"] == "4"
    assert (body["status"], body["receiver"], body["truncatedAlerts"]) == ("firing", "pager", 0)
    (entry,) = body["alerts"]
    assert entry["labels"] == body["commonLabels"]
    assert entry["labels"]["model"] == "fraud"
    assert "feature" not in entry["labels"]
    assert entry["annotations"]["description"] == "AUC fell"
    assert entry["startsAt"].startswith("1970-01-01T02:00:00")
    assert entry["endsAt"] == "0001-01-01T00:00:00Z"


def test_a_resolved_alert_says_when_it_began_and_ended() -> None:
    body = json.loads(build_payload(_alert(state="resolved"), "pager", opened_at=3_600_000))
    assert body["status"] == "resolved"
    assert body["alerts"][0]["startsAt"].startswith("1970-01-01T01:00:00")
    assert body["alerts"][0]["endsAt"].startswith("1970-01-01T02:00:00")


def test_the_annotations_say_where_the_report_is() -> None:
    (entry,) = json.loads(build_payload(_alert(), "pager"))["alerts"]
    assert entry["annotations"]["report"] == f"driftloop report fraud --alert {'a' * 32}"
    assert "report_url" not in entry["annotations"]
    (entry,) = json.loads(build_payload(_alert(), "pager", report_url="http://clickhouse:8123/?query=x"))["alerts"]
    assert entry["annotations"]["report_url"] == "http://clickhouse:8123/?query=x"
    silent = _alert(rule="freshness", kind="quality", metric="age_s", segment="predictions")
    (entry,) = json.loads(build_payload(silent, "pager"))["alerts"]
    assert "report" not in entry["annotations"]
