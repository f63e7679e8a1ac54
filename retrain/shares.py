"""Which rows of an epoch each process learns from. Pure: it must not know how processes speak with each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Share(NamedTuple):
    """One process's part of an epoch: its rows in their order, `batch_rows` a step, and what each step counts.

    `num_rows[k]` of the process's rows of step k count, and are `scales[k]` of all rows of the step.
    """

    order: Tensor
    batch_rows: int
    num_rows: list[int]
    scales: list[float]


def take_share(order: Tensor, batch_rows: int, rank: int, num_ranks: int) -> Share:
    """Split each step's `batch_rows` rows over the processes; together they learn from `order` as one would alone.

    A process for which a step has no row computes on the step's first row, and that does not count.
    """
    num_full, num_left = divmod(len(order), batch_rows)
    full, left = order[: num_full * batch_rows].view(num_full, batch_rows), order[num_full * batch_rows :]
    start, end = _find_part(batch_rows, rank, num_ranks)
    parts = [(full[:, start:end] if end > start else full[:, :1]).reshape(-1)]
    num_rows, scales = [end - start] * num_full, [(end - start) / batch_rows] * num_full
    own_batch_rows = max(1, end - start)
    if num_left:
        start, end = _find_part(num_left, rank, num_ranks)
        parts.append(left[start:end] if end > start else left[:1])
        num_rows.append(end - start)
        scales.append((end - start) / num_left)
    return Share(torch.cat(parts), own_batch_rows, num_rows, scales)


def _find_part(num_rows: int, rank: int, num_ranks: int) -> tuple[int, int]:
    return rank * num_rows // num_ranks, (rank + 1) * num_rows // num_ranks
