"""Trainings of one job in several processes: `python -m torch.distributed.run … -m tests.learner_worker CASE FOLDER`.

Each process writes what it learnt from and ended with to FOLDER: `ended-RANK.json`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from retrain import limits
from retrain.candidates import choose_rows, make_measure
from retrain.device import pin_threads
from retrain.joint_training import end_training, follow
from retrain.order import CHALLENGER, BatchHalved, JobReport
from retrain.ranks import ALONE, Ranks
from retrain.snapshot import Snapshot, build_snapshot
from retrain.trained_model import save_weights
from schemas.spec import DataSpec, ModelSpec, ResourceSpec, parse_spec
from tests import counted_network
from tests.learners import make_learner

CHANGE = 1_000_000
SPEC = """
model: turned
task: binary
reference: r.parquet
windows: {{size: 1h}}
features: {{x: number, y: number}}
retrain:
  architecture: tests.counted_network:build
  training: {{epochs: 3, early_stopping: none, batch_rows: {batch_rows}}}
"""
# Beyond what a process holds before it trains: a step on half of the rows does not fit, one on an eighth does.
NUM_LARGE_ROWS, ROOM_BYTES = 400_000, 200 << 20


def make_rows(num_before: int, num_after: int, spec: ModelSpec) -> Snapshot:
    """A label follows the sum of all columns, and after the change the opposite of it."""
    rng = np.random.default_rng(5)
    num_rows = num_before + num_after
    columns = {f"f:{name}": rng.normal(size=num_rows) for name in spec.features}
    logit = np.sum(list(columns.values()), axis=0) * np.where(np.arange(num_rows) < num_before, 3.0, -3.0)
    table = pa.table(
        {
            "record_id": [f"r{place:06}" for place in range(num_rows)],
            "ts": pa.array(CHANGE - num_before + np.arange(num_rows), pa.timestamp("ms", "UTC")),
            **columns,
            "label": (rng.random(num_rows) < 1 / (1 + np.exp(-logit))).astype(np.float64),
            "label_text": pa.nulls(num_rows, pa.string()),
        }
    )
    return build_snapshot([table], "binary", spec.features, 0, CHANGE + num_after)


def train(case: str, folder: Path, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Train what a case says; returns what is known of it in the end."""
    num_rows, batch_rows = (NUM_LARGE_ROWS, NUM_LARGE_ROWS) if case == "limited" else (640, 64)
    spec = parse_spec(SPEC.format(batch_rows=batch_rows), "turned.yaml")
    reports: list[JobReport] = []
    learner = make_learner(spec, folder, reports.append, ranks)
    if case == "candidates":
        rows = make_rows(960, 640, spec)
        _, choice = choose_rows(rows, CHANGE, DataSpec(), "binary", 1, make_measure(learner, "binary"))
        return {"window": choice.window, "losses": choice.losses}
    lesson = learner.prepare(CHALLENGER, make_rows(num_rows, 0, spec))
    if case == "limited":
        limit()
    learnt = learner.train(lesson)
    halved = [(report.batch_rows, report.reason) for report in reports if isinstance(report, BatchHalved)]
    return {"halved": halved, "batch_rows": learnt.config.batch_rows}


def limit() -> None:
    """Give this process so much memory and no more."""
    limits.limit_memory(ResourceSpec(memory_bytes=limits._read_status_bytes("VmData") + ROOM_BYTES))


def main(case: str, folder: Path) -> None:
    """Train a case as one of several processes."""
    pin_threads()
    ranks = Ranks.join()
    ended: dict[str, Any] = {}
    if ranks.leads:
        ended = train(case, folder, ranks)
        end_training(ranks)
    else:
        if case == "limited":
            limit()
        follow(ranks, ResourceSpec(accelerator="cpu"))
    ended["steps"] = [network.num_rows for network in counted_network.BUILT]
    ended["weights"] = save_weights(counted_network.BUILT[-1])
    (folder / f"ended-{ranks.rank}.json").write_bytes(msgspec.json.encode(ended))
    ranks.leave()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
