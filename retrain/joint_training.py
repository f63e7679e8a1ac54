"""How the leader has all processes of a job train the same network: what it sends, and how the others follow.

Owns the message. The leader calls `train_jointly`, which trains as it would alone; the others are in `follow` for all
their lives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from retrain.checkpoints import Checkpoint, Checkpoints
from retrain.device import choose_device, hold_gpu_memory, pin_threads, repeatable
from retrain.disk import allocate
from retrain.network import NetworkConfig
from retrain.ranks import Ranks, ShortMemoryError
from retrain.target import Target
from retrain.tensors import Inputs, TrainingRows
from retrain.training import DivergedError, EpochMeasured, TrainingConfig, train_network
from schemas.errors import ConfigurationError
from schemas.spec import ResourceSpec

# What is known from a sum, so that all processes leave a training at the same step.
FAILED_TOGETHER = (ShortMemoryError, DivergedError)


class _TensorHead(msgspec.Struct, frozen=True):
    name: str
    dtype: str
    shape: tuple[int, ...]


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    """What to train; the tensors' values follow it."""

    network: NetworkConfig
    target: Target
    training: TrainingConfig
    checkpoint: dict[str, Any] | None
    tensors: list[_TensorHead]
    is_resident: bool


def train_jointly(
    ranks: Ranks,
    network: NetworkConfig,
    target: Target,
    rows: TrainingRows,
    training: TrainingConfig,
    report: Callable[[EpochMeasured], None],
    weights: Mapping[str, Tensor],
    checkpoints: Checkpoints | None = None,
) -> tuple[nn.Module, int]:
    """Train as `train_network` does, with the other processes, where there are any.

    ConfigurationError where they are still in the middle of an earlier training.
    """
    what = (network, target, rows, training)
    _call_others(ranks, *what, weights, None if checkpoints is None else checkpoints.last)
    try:
        trained = train_network(*what, report, weights, checkpoints, ranks)
    except FAILED_TOGETHER:
        ranks.is_busy = False
        raise
    ranks.is_busy = False
    return trained


def _call_others(
    ranks: Ranks,
    network: NetworkConfig,
    target: Target,
    rows: TrainingRows,
    training: TrainingConfig,
    weights: Mapping[str, Tensor],
    checkpoint: Checkpoint | None,
) -> None:
    """Have the other processes train this with us, from a checkpoint if there is one; nothing where there are none."""
    if ranks.size == 1:
        return
    if ranks.is_busy:
        raise ConfigurationError(
            "memory was short in one of several processes, at a moment from which they cannot begin again together",
            key="retrain.training.batch_rows",
            remedy="declare a smaller number",
        )
    extra = {f"extra.{name}": tensor for name, tensor in rows.inputs.extra.items()}
    tensors = {"dense": rows.inputs.dense, "codes": rows.inputs.codes, "truth": rows.truth, **extra}
    tensors |= {f"weights.{name}": tensor for name, tensor in weights.items()}
    if checkpoint is not None:
        tensors |= {f"checkpoint.{name}": tensor for name, tensor in checkpoint.tensors.items()}
    facts = None if checkpoint is None else dict(checkpoint.facts)
    heads = [
        _TensorHead(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]
    call = _Call(
        network=network,
        target=target,
        training=training,
        checkpoint=facts,
        tensors=heads,
        is_resident=rows.is_resident,
    )
    ranks.tell(msgspec.json.encode(call))
    for tensor in tensors.values():
        ranks.send(tensor)
    ranks.is_busy = True


def end_training(ranks: Ranks) -> None:
    """Let the other processes end in order."""
    ranks.tell(b"")


def follow(ranks: Ranks, resources: ResourceSpec) -> None:
    """Train whatever the leader says, until it says that there is no more."""
    ranks.take_gpu(resources.accelerator)
    device = choose_device(resources.accelerator)
    pin_threads(ranks.divide(resources.cpus))
    hold_gpu_memory(device, resources.gpu_memory_bytes)
    while message := ranks.tell():
        # In a function, so that the next one's rows do not lie beside the last one's.
        with suppress(*FAILED_TOGETHER):  # the leader knows it too, and calls again, or ends
            _follow_once(ranks, msgspec.json.decode(message, type=_Call), device)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _follow_once(ranks: Ranks, call: _Call, device: torch.device) -> None:
    tensors = {head.name: _make_room(head) for head in call.tensors}
    for tensor in tensors.values():
        ranks.send(tensor)
    rows = _place_rows(tensors, device, call.is_resident)
    weights = _take_prefixed(tensors, "weights.")
    checkpoint = None
    if call.checkpoint is not None:
        checkpoint = Checkpoint(_take_prefixed(tensors, "checkpoint."), call.checkpoint)
    what = (call.network, call.target, rows, call.training)
    with repeatable(call.training.deterministic):
        train_network(*what, _ignore, weights, ranks=ranks, checkpoint=checkpoint)


def _make_room(head: _TensorHead) -> Tensor:
    if head.name.startswith(("weights.", "checkpoint.")):
        return torch.empty(head.shape, dtype=getattr(torch, head.dtype))
    return torch.from_numpy(allocate(head.shape, head.dtype))


def _place_rows(tensors: Mapping[str, Tensor], device: torch.device, is_resident: bool) -> TrainingRows:
    inputs = Inputs(tensors["dense"], tensors["codes"], _take_prefixed(tensors, "extra."))
    truth = tensors["truth"]
    if is_resident:
        inputs, truth = inputs.map(lambda tensor: tensor.to(device)), truth.to(device)
    return TrainingRows(inputs, truth, device, is_resident)


def _take_prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _ignore(_: Any) -> None:
    """Reports are the leader's."""
