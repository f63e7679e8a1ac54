"""Several processes learn what one would: which rows each takes, and what comes of it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load

from retrain.shares import take_share
from tests.rank_worker import train
from tests.role_process import REPOSITORY

pytestmark = pytest.mark.timeout(300)


def train_together(case: str, folder: Path, num_processes: int = 2) -> tuple[bytes, list[tuple[float, float | None]]]:
    """Train a case in several processes with gloo; returns weights and losses."""
    folder.mkdir()
    options = ["--standalone", f"--nproc-per-node={num_processes}", "--monitor-interval=0.1"]
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, "-m", "tests.rank_worker", case, str(folder)],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    return (folder / "weights").read_bytes(), msgspec.json.decode((folder / "losses.json").read_bytes())


@pytest.mark.parametrize(("case", "num_processes"), [("columns", 2), ("columns", 3), ("images", 2)])
def test_several_processes_learn_what_one_does(case: str, num_processes: int, tmp_path: Path) -> None:
    weights, losses = train_together(case, tmp_path / "together", num_processes)
    alone, alone_losses = train(case)
    assert [loss for loss, _ in losses] == pytest.approx([loss for loss, _ in alone_losses], abs=1e-5)
    together, expected = load(weights), load(alone)
    assert together.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(together[name], tensor, rtol=0, atol=1e-5, msg=name)


def test_search_stops_at_the_same_epoch_and_equal_runs_give_equal_bits(tmp_path: Path) -> None:
    first, losses = train_together("search", tmp_path / "first")
    second, again = train_together("search", tmp_path / "second")
    assert (first, losses) == (second, again)
    _, alone_losses = train("search")
    assert len(losses) == len(alone_losses)
    assert [loss for _, loss in losses] == pytest.approx([loss for _, loss in alone_losses], abs=1e-4)


@pytest.mark.parametrize("num_rows", [1, 2, 7, 31, 64])
@pytest.mark.parametrize("batch_rows", [1, 2, 5, 8])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8])
def test_every_row_counts_once_in_its_step(num_rows: int, batch_rows: int, num_ranks: int) -> None:
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(num_rows))
    shares = [take_share(order, batch_rows, rank, num_ranks) for rank in range(num_ranks)]
    num_steps = math.ceil(num_rows / batch_rows)
    for step in range(num_steps):
        counted: list[int] = []
        for share in shares:
            rows = torch.split(share.order, share.batch_rows)[step]
            assert len(rows) == max(1, share.num_rows[step])
            counted += rows[: share.num_rows[step]].tolist()
        assert counted == order[step * batch_rows : (step + 1) * batch_rows].tolist()
        assert sum(share.scales[step] for share in shares) == pytest.approx(1)
    assert {len(torch.split(share.order, share.batch_rows)) for share in shares} == {num_steps}
