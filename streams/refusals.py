"""What stage 1 says of what it cannot count: a message that breaks it, a topic of which nothing can be decoded."""

from __future__ import annotations

from schemas.events import Alert, DeadLetter
from schemas.identity import alert_id, transition_id
from schemas.messages import MessageBatch

_RAW_BYTES_MAX = 65_536


def refuse_message(batch: MessageBatch, error: Exception) -> DeadLetter:
    """Give the dead letter of the one message in `batch`, which cannot be counted because of a defect of ours."""
    value = batch.values[0] or b""
    return DeadLetter(
        model="",
        reason="unprocessable",
        message=f"Counting this message failed with {type(error).__name__}: {error}. This is a defect: report it.",
        raw=value[:_RAW_BYTES_MAX].decode("utf-8", "replace"),
        stage="count",
        at=int(batch.timestamps[0]),
        topic=batch.topic,
        topic_id=batch.topic_id,
        partition=batch.partition,
        offset=int(batch.offsets[0]),
        row=0,
    )


def make_breaker_alert(topic: str, reason: str, now_ms: int) -> Alert:
    """Give the alert of a topic that is paused; it concerns no model."""
    name = alert_id("", "undecodable", topic, 0)
    return Alert(
        alert_id=name,
        transition_id=transition_id(name, "firing", now_ms, 0),
        model="",
        model_version="",
        rule="undecodable",
        kind="quality",
        feature="",
        metric="undecodable",
        segment=topic,
        severity="high",
        state="firing",
        value=None,
        threshold=None,
        harm=None,
        reason=reason,
        window_start=now_ms,
        window_end=now_ms,
        at=now_ms,
    )
