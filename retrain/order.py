"""What the trainer tells a job's process, and what the process answers: one JSON line each.

Owns the words between the two; it imports nothing heavy, so that the trainer stays small.
"""

from __future__ import annotations

import hashlib

import msgspec

from schemas.catalogue import PublishedSpec
from schemas.connections import ClickHouseConnection


class JobOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a job needs to know; equal orders on equal rows give equal weights. Instants are epoch ms."""

    job_id: str
    model: str
    published: PublishedSpec
    champion: str
    train_from: int
    train_to: int
    gate_from: int
    gate_to: int
    clickhouse: ClickHouseConnection
    artifacts: str

    @property
    def seed(self) -> int:
        """Derive the seed from the job and the spec, so that a repeated attempt draws the same numbers."""
        chosen = self.published.spec.retrain.seed if self.published.spec.retrain else 0
        return int.from_bytes(hashlib.sha256(f"{self.job_id}/{chosen}".encode()).digest()[:4]) >> 1


class Snapshotted(msgspec.Struct, frozen=True, kw_only=True, tag="snapshotted"):
    """The rows are read."""

    num_train_rows: int
    num_gate_rows: int
    data_hash: str
    device: str


class EpochTrained(msgspec.Struct, frozen=True, kw_only=True, tag="epoch"):
    """One epoch is over; the metric is measured on the validation rows, where any are held out."""

    epoch: int
    loss: float
    validation_loss: float | None
    metric_name: str
    metric: float | None
    seconds: float


class NetworkTrained(msgspec.Struct, frozen=True, kw_only=True, tag="trained"):
    """The network is trained, on all rows."""

    num_epochs: int
    seconds: float


class JobFinished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """The challenger is judged, stored, and its reference rows with it."""

    passed: bool
    verdict: str
    metrics: dict[str, float]
    architecture: str
    data_hash: str
    uri: str
    sha256: str
    reference_hash: str
    manifest: str
    card: str


class JobUnfit(msgspec.Struct, frozen=True, kw_only=True, tag="unfit"):
    """The job cannot succeed with these rows and settings; trying again would not help."""

    reason: str


class JobInterrupted(msgspec.Struct, frozen=True, kw_only=True, tag="interrupted"):
    """Something outside was away; trying again helps."""

    reason: str


JobReport = Snapshotted | EpochTrained | NetworkTrained | JobFinished | JobUnfit | JobInterrupted

_ORDERS = msgspec.json.Decoder(JobOrder)
_REPORTS: msgspec.json.Decoder[JobReport] = msgspec.json.Decoder(JobReport)


def encode_line(message: JobOrder | JobReport) -> bytes:
    """Write a message as one line of JSON."""
    return msgspec.json.encode(message) + b"\n"


def decode_order(line: bytes) -> JobOrder:
    """Read an order; msgspec.ValidationError if it is none."""
    return _ORDERS.decode(line)


def decode_report(line: bytes) -> JobReport:
    """Read a report; msgspec.ValidationError if it is none."""
    return _REPORTS.decode(line)
