"""Rows as tensors: what a network reads, with the truth beside it, on the device or on their way there.

Owns where the rows lie. It must not know what they mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from retrain.preprocessing import EncodedRows

# Rows are gathered in chunks of many batches: one gather costs the same few microseconds whatever its size. A chunk
# of 16,384 rows of 50 numbers is 3 MB, which stays in a cache; one of images stays below 64 MiB.
_CHUNK_ROWS, _CHUNK_BYTES = 16_384, 64 * 2**20
# A run of a megabyte is read at a disk's full speed, and a part of 256 of them is as good as all rows: it is some
# thousand steps of a network of columns.
_SHUFFLED_WHOLE_BYTES, _RUN_BYTES, _RUNS_PER_PART = 2 * 2**30, 2**20, 256
# The rest of the device's free memory is for weights, activations and a chunk.
_RESIDENT_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Inputs:
    """n rows as a network reads them: `dense` (n, width), `codes` (n, categories), `extra` (n, …) by feature."""

    dense: Tensor
    codes: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, encoded: EncodedRows) -> Inputs:
        """Share the memory of encoded rows."""
        extra = {name: torch.from_numpy(values) for name, values in encoded.extra.items()}
        return cls(torch.from_numpy(encoded.dense), torch.from_numpy(encoded.codes), extra)

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """Return the same tensors, each changed."""
        extra = {name: change(tensor) for name, tensor in self.extra.items()}
        return Inputs(change(self.dense), change(self.codes), extra)

    def take(self, start: int, end: int) -> Inputs:
        """Return the rows [start, end) without copying."""
        return self.map(lambda tensor: tensor[start:end])

    @property
    def num_bytes(self) -> int:
        """Count the bytes of all tensors."""
        tensors = (self.dense, self.codes, *self.extra.values())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def __len__(self) -> int:
        return len(self.dense)


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """n rows in the order of time, and their truth; `device` is where batches go, `is_resident` that rows lie there."""

    inputs: Inputs
    truth: Tensor
    device: torch.device
    is_resident: bool = True

    @classmethod
    def load(
        cls, encoded: EncodedRows, truth: Any, device: torch.device, *, is_resident: bool | None = None
    ) -> TrainingRows:
        """Copy encoded rows to the device once where they fit, else keep them in memory (`is_resident` decides)."""
        inputs, labels = Inputs.of(encoded), torch.as_tensor(truth)
        resident = _fit(inputs.num_bytes, device) if is_resident is None else is_resident
        if resident:
            inputs, labels = inputs.map(lambda tensor: tensor.to(device)), labels.to(device)
        return cls(inputs, labels, device, resident)

    def take(self, start: int, end: int) -> TrainingRows:
        """Return the rows [start, end) without copying."""
        return TrainingRows(self.inputs.take(start, end), self.truth[start:end], self.device, self.is_resident)

    def shuffle(self, generator: torch.Generator, batch_rows: int) -> Iterator[Tensor]:
        """Give an epoch's order, the indices of all rows, in parts of whole batches.

        Up to 2 GiB of rows have one part, in which every order is equally likely. More are shuffled in two steps, so
        that a part lies in few places of the disk and its indices in little memory: runs of rows are dealt out to the
        parts at random, and a part's rows are shuffled among themselves. That depends on the rows alone.
        """
        if len(self) * self._row_bytes <= _SHUFFLED_WHOLE_BYTES:
            yield torch.randperm(len(self), generator=generator)
            return
        run_rows = batch_rows * max(1, _RUN_BYTES // self._row_bytes // batch_rows)
        num_runs = len(self) // run_rows
        left = torch.arange(num_runs * run_rows, len(self))
        parts = torch.split(torch.randperm(num_runs, generator=generator), _RUNS_PER_PART)
        for number, runs in enumerate(parts, start=1):
            order = (runs[:, None] * run_rows + torch.arange(run_rows)).reshape(-1)
            if number == len(parts):
                order = torch.cat([order, left])
            yield order[torch.randperm(len(order), generator=generator)]

    @property
    def _row_bytes(self) -> int:
        return max(1, self.inputs.num_bytes // max(1, len(self)))

    def batch(self, order: Tensor, batch_rows: int) -> Iterator[tuple[Inputs, Tensor]]:
        """Give the rows in the order of these indices (on the CPU), `batch_rows` at a time, on the device."""
        row_bytes = self._row_bytes
        chunk_rows = batch_rows * max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // row_bytes) // batch_rows)
        parts = torch.split(order, chunk_rows)
        chunks = map(self._gather, parts) if self.is_resident else self._prefetch(parts)
        for inputs, truth in chunks:
            for start in range(0, len(truth), batch_rows):
                yield inputs.take(start, start + batch_rows), truth[start : start + batch_rows]

    def _gather(self, index: Tensor) -> tuple[Inputs, Tensor]:
        index = index.to(self.truth.device)
        return self.inputs.map(lambda tensor: tensor.index_select(0, index)), self.truth.index_select(0, index)

    def _prefetch(self, parts: Sequence[Tensor]) -> Iterator[tuple[Inputs, Tensor]]:
        """Give chunks that a thread gathers and sends ahead, one while the device works on the one before."""
        send = self._gather if self.device.type == "cpu" else _Sender(self.device, self._gather)
        with ThreadPoolExecutor(1, "prefetch") as pool:
            pending = deque([pool.submit(send, parts[0])])
            for part in [*parts[1:], None]:
                if part is not None:
                    pending.append(pool.submit(send, part))
                inputs, truth = pending.popleft().result()
                if isinstance(send, _Sender):
                    send.receive(inputs, truth)
                yield inputs, truth

    def __len__(self) -> int:
        return len(self.truth)


class _Sender:
    """Copies gathered rows to a GPU from pinned memory, on a stream of its own beside the one that computes.

    State: never run on a GPU yet.
    """

    def __init__(self, device: torch.device, gather: Callable[[Tensor], tuple[Inputs, Tensor]]) -> None:
        self._device, self._gather = device, gather
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, index: Tensor) -> tuple[Inputs, Tensor]:
        inputs, truth = self._gather(index)
        with torch.cuda.stream(self._stream):
            moved = inputs.map(self._send), self._send(truth)
        self._stream.synchronize()
        return moved

    def receive(self, inputs: Inputs, truth: Tensor) -> None:
        """Keep the memory until the computing stream is done with it."""
        stream = torch.cuda.current_stream(self._device)
        for tensor in (inputs.dense, inputs.codes, *inputs.extra.values(), truth):
            tensor.record_stream(stream)

    def _send(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory().to(self._device, non_blocking=True)


def _fit(num_bytes: int, device: torch.device) -> bool:
    if device.type == "cpu":
        # More lies on disk: a thread reads ahead.
        return num_bytes <= _SHUFFLED_WHOLE_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return num_bytes <= _RESIDENT_SHARE * free
