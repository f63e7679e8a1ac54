"""Whether the rows of a job, read again, are still those that it learnt from and was judged on.

Reads only.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

from retrain.snapshot import take_snapshot
from schemas.errors import ConfigurationError
from schemas.spec import ModelHistory
from store.client import ClickHouse
from store.jobs import JobRow, read_job
from store.versions import read_version_of_job


class _Rows(msgspec.Struct):
    sha256: str = ""
    num_rows: int = 0


class _Recorded(msgspec.Struct):
    """What of a manifest of any format is needed."""

    spec_version: int = 0
    train: _Rows = msgspec.field(default_factory=_Rows)
    gate: _Rows = msgspec.field(default_factory=_Rows)


class ReadAgain(NamedTuple):
    """One use of rows: the hash recorded (empty where only both together are) and found, and the rows found."""

    use: str
    recorded: str
    found: str
    num_rows: int


class Verification(NamedTuple):
    """A job's rows read again; `is_same` says that every hash is the recorded one."""

    job_id: str
    model: str
    is_same: bool
    recorded: str
    found: str
    uses: list[ReadAgain]


def find_job(ch: ClickHouse, job_id: str) -> JobRow:
    """Return a job that has read its rows; ConfigurationError if there is none, or it has not read them."""
    row = read_job(ch, job_id)
    if row is None:
        raise ConfigurationError(f"there is no job {job_id!r}", key="--verify", remedy="See `driftloop jobs --json`.")
    if not row.data_hash:
        raise ConfigurationError(f"job {job_id} has not read its rows", key="--verify")
    return row


def verify_job(ch: ClickHouse, row: JobRow, history: ModelHistory) -> Verification:
    """Run a job's queries again and hash what they give, with the features of the spec that the job had."""
    version = read_version_of_job(ch, row.model, row.job_id)
    recorded = msgspec.json.decode(version.manifest, type=_Recorded) if version else _Recorded()
    published = {each.spec_version: each for each in history.versions}.get(recorded.spec_version, history.latest)
    spec = published.spec
    train = take_snapshot(ch, row.model, spec.task, spec.features, row.train_from, row.train_to)
    gate = take_snapshot(ch, row.model, spec.task, spec.features, row.gate_from, row.gate_to)
    found = hashlib.sha256(f"{train.sha256}\n{gate.sha256}\n".encode()).hexdigest()
    uses = [
        ReadAgain("training", recorded.train.sha256, train.sha256, train.num_rows),
        ReadAgain("gate", recorded.gate.sha256, gate.sha256, gate.num_rows),
    ]
    return Verification(row.job_id, row.model, found == row.data_hash, row.data_hash, found, uses)
