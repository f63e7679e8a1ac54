"""What the trainer tells a job's process, and what the process answers: one JSON line each.

Owns the words between the two; it imports nothing heavy, so that the trainer stays small.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from schemas.catalogue import PublishedSpec
from schemas.connections import ClickHouseConnection
from store.gates import Gate


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
    # When the world changed, as far as an alert says so.
    change_at: int | None = None
    rule: str = ""
    trigger_alert_id: str = ""
    reason: str = ""

    @property
    def seed(self) -> int:
        """Derive the seed from the job and the spec, so that a repeated attempt draws the same numbers."""
        chosen = self.published.spec.retrain.seed if self.published.spec.retrain else 0
        return int.from_bytes(hashlib.sha256(f"{self.job_id}/{chosen}".encode()).digest()[:4]) >> 1


# The name of the training that all the others of a job are for.
CHALLENGER = "challenger"


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
    """A network is trained, on all its rows: the challenger, or a candidate that is only compared."""

    training: str = CHALLENGER
    num_epochs: int
    seconds: float


class Resumed(msgspec.Struct, frozen=True, kw_only=True, tag="resumed"):
    """Training goes on from an earlier attempt's checkpoint: `search` finds the number of epochs, `final` uses it."""

    training: str = CHALLENGER
    phase: str
    num_epochs: int


class BatchHalved(msgspec.Struct, frozen=True, kw_only=True, tag="batch_halved"):
    """Memory was short, so training began again with half as many rows a step."""

    training: str = CHALLENGER
    batch_rows: int
    reason: str


class ResourcesUsed(msgspec.Struct, frozen=True, kw_only=True, tag="resources_used"):
    """What the job's processes took since the last such report; GPU time is summed over GPUs. Of memory, the most."""

    cpu_seconds: float
    gpu_seconds: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int


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
    gates: tuple[Gate, ...] = ()


class JobUnfit(msgspec.Struct, frozen=True, kw_only=True, tag="unfit"):
    """The job cannot succeed with these rows and settings; trying again would not help."""

    reason: str


class JobInterrupted(msgspec.Struct, frozen=True, kw_only=True, tag="interrupted"):
    """Something outside was away; trying again helps."""

    reason: str


JobReport = (
    Snapshotted
    | Resumed
    | EpochTrained
    | NetworkTrained
    | BatchHalved
    | ResourcesUsed
    | JobFinished
    | JobUnfit
    | JobInterrupted
)

Report = Callable[[JobReport], None]

_ORDERS = msgspec.json.Decoder(JobOrder)
_REPORTS: msgspec.json.Decoder[JobReport] = msgspec.json.Decoder(JobReport)


def describe_report(report: JobReport) -> str:
    """Say a report in words, for the log of the job."""
    match report:
        case Snapshotted():
            return (
                f"{report.num_train_rows} labelled rows to train on, {report.num_gate_rows} to gate on; "
                f"device {report.device}"
            )
        case EpochTrained():
            metric = "" if report.metric is None else f", {report.metric_name} {report.metric:.4f}"
            losses = f"loss {report.loss:.5f}"
            if report.validation_loss is not None:
                losses += f", validation loss {report.validation_loss:.5f}"
            return f"epoch {report.epoch}: {losses}{metric}, {report.seconds:.2f} s"
        case NetworkTrained():
            return f"{_name(report.training)}trained for {report.num_epochs} epochs in {report.seconds:.2f} s"
        case Resumed():
            place = f"behind epoch {report.num_epochs} of phase {report.phase}"
            return f"{_name(report.training)}goes on from a checkpoint, {place}"
        case BatchHalved():
            short = f"memory was short ({report.reason})"
            return f"{_name(report.training)}{short}: begins again with {report.batch_rows} rows a step"
        case ResourcesUsed():
            return f"took {report.cpu_seconds:.1f} s of CPU, {report.peak_memory_bytes >> 20} MiB at most"
        case JobFinished():
            return report.verdict
        case JobUnfit() | JobInterrupted():
            return report.reason


def _name(training: str) -> str:
    return "" if training == CHALLENGER else f"{training}: "


def encode_line(message: JobOrder | JobReport) -> bytes:
    """Write a message as one line of JSON."""
    return msgspec.json.encode(message) + b"\n"


def decode_order(line: bytes) -> JobOrder:
    """Read an order; msgspec.ValidationError if it is none."""
    return _ORDERS.decode(line)


def decode_report(line: bytes) -> JobReport:
    """Read a report; msgspec.ValidationError if it is none."""
    return _REPORTS.decode(line)
