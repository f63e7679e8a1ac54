"""Memory that does not suffice for a step: training begins again with half the rows, and says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_ROWS = 400_000
# What a process may hold beyond the rows: a step on all of them takes about 300 MiB, one on a quarter of them fits.
ROOM_BYTES = 150 << 20


def main() -> None:
    """In a process of its own, whose limit ends with it."""
    import torch

    from retrain import limits
    from retrain.device import pin_threads
    from retrain.halving import train_within_memory
    from retrain.network import configure_network
    from retrain.preprocessing import FeatureRows, fit_preprocessing
    from retrain.target import fit_target
    from retrain.tensors import TrainingRows
    from retrain.training import TrainingConfig, train_network
    from schemas.spec import FeatureSpec, ResourceSpec

    pin_threads()
    rng = np.random.default_rng(0)
    columns = {f"x{index}": rng.normal(size=NUM_ROWS) for index in range(8)}
    rows = FeatureRows(columns, {}, NUM_ROWS)
    labels = pa.array((columns["x0"] > 0).astype(float))
    preprocessing = fit_preprocessing(rows, dict.fromkeys(columns, FeatureSpec(type="number")))
    target = fit_target("binary", labels)
    network = configure_network("mlp", preprocessing, target)
    data = TrainingRows.load(preprocessing.encode(rows), target.encode(labels), torch.device("cpu"))
    limits.limit_memory(ResourceSpec(memory_bytes=limits._read_status_bytes("VmData") + ROOM_BYTES))
    told: list[tuple[int, str]] = []
    config = TrainingConfig(seed=0, batch_rows=NUM_ROWS, max_epochs=8, patience_epochs=None)
    (_, num_epochs), used = train_within_memory(
        lambda config: train_network(network, target, data, config, lambda _: None),
        config,
        lambda config, reason: told.append((config.batch_rows, reason)),
    )
    print(json.dumps({"told": told, "used": used.batch_rows, "num_epochs": num_epochs}))


@pytest.mark.timeout(300)
def test_a_step_that_does_not_fit_is_halved_until_it_does() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.numerics.test_short_memory"],
        capture_output=True, text=True, timeout=240, cwd=REPOSITORY,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert [size for size, _ in found["told"]] == [NUM_ROWS >> time for time in range(1, len(found["told"]) + 1)]
    assert 1 <= len(found["told"]) <= 10
    assert all("allocate memory" in reason for _, reason in found["told"])
    assert (found["used"], found["num_epochs"]) == (found["told"][-1][0], 8)


if __name__ == "__main__":
    main()
