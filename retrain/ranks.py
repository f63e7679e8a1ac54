"""The processes that train one network together: rank 0 leads, and each learns from its part of every batch.

Owns the words between them: bytes and tensors from the leader, and sums over all. It must not know what
is trained. torchrun tells each process its rank through the environment, which is read here alone.
State: with NCCL and several GPUs never run yet.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from retrain.limits import is_out_of_memory
from retrain.shares import Share, take_share
from schemas.errors import ConfigurationError

# A rank waits for as long as the leader reads rows or judges. torchrun ends all when one ends, and the trainer when
# they take too long, so this only has to be longer than any job.
_WAIT = timedelta(days=30)
# More at once would double the memory of a large tensor on its way.
_CHUNK_BYTES = 64 * 2**20
# To ask a GPU for a number is to wait for everything that it has been given to do.
_CHECK_EVERY_STEPS = 64


class ShortMemoryError(MemoryError):
    """Memory was short in one of several processes; each of them raises it, at the same step."""


class Ranks:
    """The processes of one job, seen from one of them; where it is alone, nothing is sent and nothing changes."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self._local_rank = rank, size, local_rank
        # Between the message that all train and their leaving that together: the others listen to sums alone.
        self.is_busy = False
        # The network itself sums over ranks.
        self.sums_inside = False
        self._num_steps = 0
        self._num_short: Tensor | None = None

    @classmethod
    def join(cls) -> Ranks:
        """Meet the other processes of torchrun; alone where this process was not started by it."""
        if not dist.is_torchelastic_launched():
            return cls()
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_WAIT)
        return cls(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))

    def leave(self) -> None:
        """Be the last that this process calls: where there are several, each waits for all and ends at once.

        PyTorch's own threads now and then abort a process that ends in its own way (seen in one run of ten).
        """
        if self.size > 1:
            # Busy ones cannot be waited for, and one that is gone need not be.
            with suppress(RuntimeError):
                if not self.is_busy:
                    self.sum_numbers([0.0])
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    @property
    def leads(self) -> bool:
        """Tell whether this process reads rows, validates, judges, stores and reports."""
        return self.rank == 0

    def divide(self, number: int | None) -> int | None:
        """Return one process's part of what the job may use, at least 1; None where it may use what it likes."""
        return None if number is None else max(1, number // self.size)

    def take_gpu(self, accelerator: str) -> None:
        """Let each rank use a GPU of its own, where GPUs are used; ConfigurationError where there are too few."""
        if self.size == 1 or accelerator == "cpu" or not torch.cuda.is_available():
            return
        if torch.cuda.device_count() < self.size:
            raise ConfigurationError(
                f"{self.size} processes need a GPU each, and there are {torch.cuda.device_count()}",
                key="retrain.resources.processes",
                remedy="leave it out, or set accelerator to cpu",
            )
        torch.cuda.set_device(self._local_rank)

    # ── from the leader to all ───────────────────────────────────────────────────────────────────

    def tell(self, message: bytes = b"") -> bytes:
        """Return the leader's message."""
        if self.size == 1:
            return message
        length = torch.tensor([len(message)])
        dist.broadcast(length, 0)
        content = torch.zeros(int(length), dtype=torch.uint8)
        if self.leads and message:
            content = torch.frombuffer(bytearray(message), dtype=torch.uint8)
        self._send_bytes(content)
        return content.numpy().tobytes()

    def send(self, tensor: Tensor) -> None:
        """Give every rank's tensor, of one shape and type, the leader's values."""
        if self.size == 1 or tensor.numel() == 0:
            return
        content = tensor.detach().to("cpu").contiguous()
        self._send_bytes(content.reshape(-1).view(torch.uint8))
        if not self.leads:
            with torch.no_grad():
                tensor.copy_(content)

    def send_number(self, number: float) -> float:
        """Return the leader's number, to the bit."""
        if self.size == 1:
            return number
        value = torch.tensor([number], dtype=torch.float64)
        dist.broadcast(value, 0)
        return float(value)

    def _send_bytes(self, content: Tensor) -> None:
        for part in torch.split(content, _CHUNK_BYTES):
            dist.broadcast(part, 0)

    # ── from all to all ──────────────────────────────────────────────────────────────────────────

    def split(self, order: Tensor, batch_rows: int) -> Share:
        """Return this rank's part of an epoch's rows; `retrain.shares` says which."""
        return take_share(order, batch_rows, self.rank, self.size)

    def learn(self, compute: Callable[[], Tensor], parameters: Sequence[nn.Parameter]) -> Tensor:
        """Call `compute`, which leaves gradients, and give every rank the sum of all ranks' gradients.

        Returns what `compute` returned. Raises ShortMemoryError on every rank when memory was short on one, so that all
        begin again together: on a CPU at once, on a GPU within 64 steps or in `finish_epoch`.
        """
        if self.size == 1:
            return compute()
        computed = torch.zeros((), device=parameters[0].device)
        is_short = False
        try:
            computed = compute()
        except (MemoryError, RuntimeError) as error:
            # Where the others wait for a sum in the middle of the network, they cannot be told.
            if not is_out_of_memory(error) or self.sums_inside:
                raise
            is_short = True
        self._sum_gradients(parameters, is_short)
        self._num_steps += 1
        if parameters[0].device.type == "cpu" or self._num_steps % _CHECK_EVERY_STEPS == 0:
            self._check_memory()
        return computed

    def finish_epoch(self, total: Tensor) -> Tensor:
        """Return the sum of all ranks' totals; ShortMemoryError as `learn`."""
        if self.size == 1:
            return total
        dist.all_reduce(total)
        self._check_memory()
        return total

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums of all ranks' numbers."""
        values = torch.tensor(numbers, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(values)
        return [float(value) for value in values]

    def _sum_gradients(self, parameters: Sequence[nn.Parameter], is_short: bool) -> None:
        """Sum the gradients in one message a data type; behind the first of them stands how many ranks were short."""
        groups: dict[torch.dtype, list[nn.Parameter]] = {}
        for parameter in parameters:
            groups.setdefault(parameter.dtype, []).append(parameter)
        for number, (dtype, group) in enumerate(groups.items()):
            parts = [
                (torch.zeros_like(each) if each.grad is None or is_short else each.grad).reshape(-1) for each in group
            ]
            if number == 0:
                parts.append(torch.full((1,), float(is_short), dtype=dtype, device=group[0].device))
            flat = torch.cat(parts)
            dist.all_reduce(flat)
            sums = torch.split(flat, [part.numel() for part in parts])
            for parameter, gradient in zip(group, sums, strict=False):
                parameter.grad = gradient.view_as(parameter)
            if number == 0:
                self._num_short = sums[-1] if self._num_short is None else self._num_short + sums[-1]

    def _check_memory(self) -> None:
        if self._num_short is not None and float(self._num_short) > 0:
            self._num_short = None
            raise ShortMemoryError("memory was short in one of the processes")


ALONE = Ranks()


def list_trained(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are trained, in the network's order."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
