"""The sums that a kernel two-sample test rests on, on the processor or, where there is one, on the GPU.

torch is imported only where the machine has a device file of a GPU: without one NumPy is as fast and starts sooner.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

log = logging.getLogger(__name__)


@cache
def find_device() -> str | None:
    """Give the name of a GPU that torch can use; None where there is none."""
    devices = Path("/dev")
    if not (any(devices.glob("nvidia[0-9]*")) or (devices / "kfd").exists() or (devices / "dxg").exists()):
        return None
    import torch

    return "cuda" if torch.cuda.is_available() else None


def sum_kernels(rows: Floats, assignments: Floats, device: str | None) -> tuple[Floats, Floats, Floats]:
    """Give for each of k assignments (float64[n, k], 1 for one side and 0 for the other) the sums of a kernel.

    Over pairs of rows (float64[n, dimensions]) within side 1, between the sides, and within side 0: float64[k] each.
    Gaussian, as wide as the median squared distance; a row's pair with itself counts 0. In float64 on any `device`,
    None being NumPy.
    """
    if device is not None:
        try:
            return _sum_on_device(rows, assignments, device)
        except MemoryError as error:
            log.warning("no memory on the GPU for a kernel of %d rows: %s", len(rows), error)
    return _sum_on_processor(rows, assignments)


def _sum_on_processor(rows: Floats, assignments: Floats) -> tuple[Floats, Floats, Floats]:
    squares = np.sum(rows**2, axis=1)
    distances = np.maximum(0.0, squares[:, None] + squares[None, :] - 2.0 * rows @ rows.T)
    width = float(np.median(distances[np.triu_indices(len(rows), 1)])) or 1.0
    kernel = np.exp(-distances / width)
    np.fill_diagonal(kernel, 0.0)
    rest = 1.0 - assignments
    to_first, to_rest = kernel @ assignments, kernel @ rest
    within = np.einsum("ij,ij->j", assignments, to_first)
    between = np.einsum("ij,ij->j", rest, to_first)
    return within, between, np.einsum("ij,ij->j", rest, to_rest)


def _sum_on_device(rows: Floats, assignments: Floats, device: str) -> tuple[Floats, Floats, Floats]:
    """The same; MemoryError where it does not fit."""
    import torch

    try:
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(rows)).to(device)
            first = torch.from_numpy(np.ascontiguousarray(assignments)).to(device)
            squares = (x * x).sum(dim=1)
            distances = (squares[:, None] + squares[None, :] - 2.0 * (x @ x.T)).clamp_min_(0.0)
            upper = torch.triu_indices(len(rows), len(rows), 1, device=device)
            width = _find_median(distances[upper[0], upper[1]]) or 1.0
            kernel = torch.exp(distances / -width)
            kernel.fill_diagonal_(0.0)
            rest = 1.0 - first
            to_first, to_rest = kernel @ first, kernel @ rest
            sums = ((first * to_first).sum(dim=0), (rest * to_first).sum(dim=0), (rest * to_rest).sum(dim=0))
            within, between, outside = (each.cpu().numpy() for each in sums)
            return within, between, outside
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error


def _find_median(values: object) -> float:
    """The mean of the two middle ones where their number is even, as NumPy has it and torch has not."""
    import torch

    assert isinstance(values, torch.Tensor)
    ordered = values.sort().values
    size = len(ordered)
    return float((ordered[(size - 1) // 2] + ordered[size // 2]) / 2.0)
