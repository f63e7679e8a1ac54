"""What trains in tests as a job does, without a job around it."""

from __future__ import annotations

from pathlib import Path

import torch

from retrain.learner import Learner
from retrain.order import JobOrder, Report
from retrain.ranks import ALONE, Ranks
from schemas.catalogue import PublishedSpec
from schemas.clock import SystemClock
from schemas.connections import ClickHouseConnection
from schemas.spec import ModelSpec


def make_learner(spec: ModelSpec, folder: Path, report: Report = lambda _: None, ranks: Ranks = ALONE) -> Learner:
    """Give what trains from scratch on the CPU, with checkpoints in a folder."""
    published = PublishedSpec(
        spec=spec, spec_version=1, effective_from=0, published_at=0, reference_hash="r", reference_rows=1
    )
    order = JobOrder(
        job_id="job", model=spec.model, published=published, champion="external", train_from=0, train_to=1, gate_from=1,
        gate_to=2, clickhouse=ClickHouseConnection("http://127.0.0.1:9"), artifacts=str(folder),
    )  # fmt: skip
    return Learner(order, torch.device("cpu"), "the test says so", "hash", report, SystemClock(), ranks)
