"""A user's network that remembers what it learnt from, and that is short of memory where a test says so."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from retrain.network import NetworkSchema

# All networks that this process has built, in order.
BUILT: list[Counted] = []
# Which processes are short of memory, from which step on, and beyond how many rows.
SHORT_RANKS = os.environ.get("DRIFTLOOP_TEST_SHORT_RANKS", "")
FIRST_SHORT_STEP, ROWS_THAT_FIT = 4, 20


class Counted(nn.Module):
    """Two layers; `num_rows` are those of each step."""

    def __init__(self, schema: NetworkSchema) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(len(schema.dense), 64), nn.ReLU(), nn.Linear(64, schema.num_outputs))
        self.num_rows: list[int] = []
        BUILT.append(self)

    def forward(self, dense: Tensor, codes: Tensor, extra: Mapping[str, Tensor]) -> Tensor:
        if self.training:
            self.num_rows.append(len(dense))
            if len(self.num_rows) >= FIRST_SHORT_STEP and len(dense) > ROWS_THAT_FIT:
                run_short()
        outputs: Tensor = self.layers(dense)
        return outputs


def run_short() -> None:
    """Raise what PyTorch does: each process says it in another way."""
    rank = os.environ.get("RANK", "0")
    if rank in SHORT_RANKS:
        raise (
            torch.OutOfMemoryError("CUDA out of memory")
            if rank == "0"
            else RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")
        )


def build(schema: NetworkSchema) -> nn.Module:
    """The factory."""
    return Counted(schema)
