"""The events of every topic as msgspec Structs, and their one wire form: JSON, instants in RFC 3339.

Contracts evolve by adding fields with defaults, never by changing types. Inbound events keep unknown keys: they are
read by `validation`, not through these types, which describe them, export their schema and write them.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from schemas.instants import Instant, format_instant, parse_instant


class Blob(msgspec.Struct, omit_defaults=True):
    """A reference to an image, text or audio kept elsewhere."""

    uri: str
    sha256: str | None = None
    media_type: str | None = None


class InlineBytes(msgspec.Struct, omit_defaults=True):
    """Small content sent along, in base64."""

    bytes: str
    media_type: str | None = None


FeatureValue = float | str | bool | list[float] | dict[str, Any] | None
Time = Annotated[
    int | str,
    msgspec.Meta(
        description="Event time: RFC 3339, or epoch milliseconds", examples=["2026-01-01T00:00:00Z", 1767225600000]
    ),
]


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The features of one inference."""

    record_id: str
    model: str
    ts: Time
    features: dict[str, FeatureValue]
    model_version: str | None = None
    segment: dict[str, str] | None = None
    trace_id: str | None = None


class Prediction(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a model version said of a record; may carry the features, so that no record is needed."""

    record_id: str
    model: str
    ts: Time
    model_version: str | None = None
    prediction: float | str | bool | None = None
    score: float | None = None
    scores: dict[str, float] | None = None
    features: dict[str, FeatureValue] | None = None
    segment: dict[str, str] | None = None
    trace_id: str | None = None


class Label(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The truth about a record; of several the one with the latest `ts` counts."""

    record_id: str
    model: str
    ts: Time
    label: float | str | bool
    model_version: str | None = None
    segment: dict[str, str] | None = None
    trace_id: str | None = None


class Measurement(msgspec.Struct, kw_only=True):
    """One statistic of one window, at one revision."""

    model: str
    model_version: str
    window_start: Instant
    window_end: Instant
    segment: str
    feature: str
    kind: str
    metric: str
    value: float | None
    status: str
    num_rows: int
    computed_at: Instant
    lower: float | None = None
    upper: float | None = None
    p_value: float | None = None
    alpha: float | None = None
    threshold: float | None = None
    scale: int = 1
    num_sampled: int = 0
    label_coverage: float | None = None
    covered: int = 0
    revision: int = 0
    spec_version: int = 0
    source: str = ""
    sampling_error: float | None = None
    interval_lower: float | None = None
    interval_upper: float | None = None


class Alert(msgspec.Struct, kw_only=True):
    """One state change of an alert."""

    alert_id: str
    transition_id: str
    model: str
    model_version: str
    rule: str
    kind: str
    feature: str
    metric: str
    segment: str
    severity: Literal["info", "low", "high", "critical"]
    state: Literal["pending", "firing", "resolved"]
    value: float | None
    threshold: float | None
    harm: float | None
    reason: str
    window_start: Instant
    window_end: Instant
    at: Instant
    revision: int = 0
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)


class RetrainRequest(msgspec.Struct, kw_only=True):
    """Asks for one retraining; once made it is not withdrawn."""

    request_id: str
    model: str
    rule: str
    trigger_alert_id: str
    reason: str
    first_window_start: Instant
    first_window_end: Instant
    window_size_ms: int
    requested_at: Instant
    manual: bool = False


RetrainEventType = Literal[
    "claimed", "heartbeat", "waiting", "started", "resumed", "batch_halved", "epoch", "trained", "evaluated",
    "accepted", "promoted", "rejected", "failed", "cancel", "cancelled",
]  # fmt: skip


class RetrainEvent(msgspec.Struct, kw_only=True):
    """One step of a job; of two claims on one attempt the first in the log wins.

    `heartbeat` is a worker's sign of life, for all jobs that it has; `cancel` asks whoever has the job to end it, with
    `reason` in its detail.
    """

    job_id: str
    model: str
    type: RetrainEventType
    attempt: int
    worker: str
    at: Instant
    detail: dict[str, Any] = msgspec.field(default_factory=dict)


class RoleMap(msgspec.Struct, kw_only=True):
    """The whole role map of a model: role → version. Holds for events from `at` (event time) on.

    Roles are `champion` (exactly one, always), `challenger` and `shadow` (scored beside it), `retired` (the last one
    that lost its role; not scored). `cause` says what changed them: `gates`, `shadow`, `manual` or `rollback`, empty in
    older messages; `evidence` has the figures that it was decided by.
    """

    model: str
    epoch: int
    roles: dict[str, str]
    at: Instant
    changed_at: Instant
    reason: str = ""
    job_id: str = ""
    cause: str = ""
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)


class DeadLetter(msgspec.Struct, kw_only=True):
    """A refused row: its bytes, its place, why, and what to do. `raw` is text, or base64 where `raw_encoding` says so.

    `at` is the Kafka timestamp of the message, so that a dead letter is a pure function of the log.
    """

    model: str
    reason: str
    message: str
    raw: str
    stage: str
    at: Instant
    topic: str
    topic_id: str
    partition: int
    offset: int
    row: int
    path: str = ""
    raw_encoding: Literal["utf-8", "base64"] = "utf-8"


class Progress(msgspec.Struct, kw_only=True):
    """A window closed or changed in one partition; only makes stage 2 prompt."""

    model: str
    window_start: Instant
    topic: str
    topic_id: str
    partition: int
    stamp: int
    watermark: Instant | None = None
    model_version: str = ""


EventType = TypeVar("EventType", bound=msgspec.Struct)


def encode_event(event: msgspec.Struct) -> bytes:
    """Give the JSON of an event, its instants in RFC 3339; NaN becomes null."""
    fields: dict[str, Any] = msgspec.to_builtins(event)
    for name in _instant_fields(type(event)):
        if fields.get(name) is not None:
            fields[name] = format_instant(fields[name])
    return msgspec.json.encode(fields)


def decode_event(kind: type[EventType], data: bytes) -> EventType:
    """Read an outbound event; unknown keys are ignored. msgspec.ValidationError if it is none."""
    fields = msgspec.json.decode(data)
    if isinstance(fields, dict):
        for name in _instant_fields(kind):
            if isinstance(fields.get(name), str):
                try:
                    fields[name] = parse_instant(fields[name])
                except ValueError as error:
                    raise msgspec.ValidationError(f"{error} - at `$.{name}`") from None
    return msgspec.convert(fields, kind)


@cache
def _instant_fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return tuple(field.encode_name for field in info.fields if _is_instant(field.type))


def _is_instant(kind: msgspec.inspect.Type) -> bool:
    if isinstance(kind, msgspec.inspect.UnionType):
        return any(_is_instant(option) for option in kind.types)
    return isinstance(kind, msgspec.inspect.Metadata) and bool((kind.extra or {}).get("instant"))
