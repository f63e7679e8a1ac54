"""Several processes train whatever a job trains, candidates too; where one is short of memory, all begin again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.learner_worker import NUM_LARGE_ROWS, train
from tests.role_process import REPOSITORY

pytestmark = pytest.mark.timeout(300)


def train_together(case: str, folder: Path, short_ranks: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Train a case in two processes with gloo; returns what each ended with."""
    options = ["--standalone", "--nproc-per-node=2", "--monitor-interval=0.1"]
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, "-m", "tests.learner_worker", case, str(folder)],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1", "DRIFTLOOP_TEST_SHORT_RANKS": short_ranks},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr
    leader, other = (msgspec.json.decode((folder / f"ended-{rank}.json").read_bytes()) for rank in (0, 1))
    assert leader["weights"] == other["weights"]
    return leader, other


def test_candidates_are_trained_by_all_processes(tmp_path: Path) -> None:
    leader, other = train_together("candidates", tmp_path)
    # All rows but the last 192, and the 448 newer ones with 112 older: three epochs of each, half of every step.
    assert leader["steps"] == other["steps"]
    assert [sum(steps) for steps in leader["steps"]] == [3 * 1408 // 2, 3 * 560 // 2]
    alone = train("candidates", tmp_path / "alone")
    assert leader["window"] == alone["window"] == "after_change"
    assert leader["losses"] == pytest.approx(alone["losses"], abs=1e-5)


@pytest.mark.parametrize("short_ranks", ["0", "1", "01"])
def test_where_one_process_is_short_of_memory_all_begin_again_with_half(short_ranks: str, tmp_path: Path) -> None:
    leader, other = train_together("short", tmp_path, short_ranks)
    assert leader["batch_rows"] == 32
    assert leader["halved"] == [[32, "memory was short in one of the processes"]]
    assert leader["steps"] == other["steps"] == [[32] * 4, [16] * 60]


def test_what_really_does_not_fit_is_halved_in_all_processes(tmp_path: Path) -> None:
    leader, _ = train_together("limited", tmp_path)
    sizes = [size for size, _ in leader["halved"]]
    assert sizes == [NUM_LARGE_ROWS >> time for time in range(1, len(sizes) + 1)]
    assert 1 <= len(sizes) <= 8
    assert leader["batch_rows"] == sizes[-1]
