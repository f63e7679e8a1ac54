"""The training loop.

Owns early stopping and the order of batches. It must not read a store, know a task, or judge the
result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import msgspec
import torch
from torch import Tensor, nn

from retrain.compilation import choose_compilation, compile_network
from retrain.device import autocast
from retrain.network import NetworkConfig
from retrain.schedule import plan_one_cycle
from retrain.target import Target
from retrain.tensors import Inputs, TrainingRows
from schemas.spec import TrainingSpec


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to train; `configure_training` derives it from the spec, the number of rows and the network.

    `patience_epochs` None: no early stopping.
    """

    seed: int
    batch_rows: int
    max_epochs: int
    patience_epochs: int | None
    # The peak of a one-cycle schedule, which small networks stand well and which saves half the epochs.
    learning_rate: float = 2e-2
    weight_decay: float = 1e-3
    validation_share: float = 0.1
    deterministic: bool = False


# Small batches learn more a row, large ones cost less a row: fifty steps an epoch, in powers of two.
_STEPS_PER_EPOCH = 50
_BATCH_ROWS_MIN, _BATCH_ROWS_MAX = 32, 1024
# A convolution's step is long enough at 128 rows, and Fashion-MNIST's accuracy falls with larger batches.
_BATCH_ROWS_MAX_IMAGES = 128
_EPOCHS_MIN, _EPOCHS_MAX = 10, 40
# What a network needs to settle when an epoch is short (car-loan figures: AUC .967 ± .001 at 600, .968 ± .0004).
_STEPS_MIN = 1_200
_LEARNING_RATE = 2e-2
# Deeper networks do not stand the peak of the small ones.
_LEARNING_RATE_DEEP = 5e-3
# What is learnt already should be refined, not thrown about: a quarter of the peak.
_WARM_SHARE = 0.25


def configure_training(
    num_rows: int, seed: int, network: NetworkConfig | None = None, spec: TrainingSpec | None = None
) -> TrainingConfig:
    """Derive what the spec leaves open from the number of training rows and the network."""
    spec = spec or TrainingSpec()
    largest = _BATCH_ROWS_MAX_IMAGES if network and network.convolutions else _BATCH_ROWS_MAX
    batch_rows = _BATCH_ROWS_MIN
    while batch_rows * 2 * _STEPS_PER_EPOCH <= num_rows and batch_rows < largest:
        batch_rows *= 2
    batch_rows = spec.batch_rows or batch_rows
    steps_per_epoch = max(1, num_rows // batch_rows)
    max_epochs = spec.epochs or min(_EPOCHS_MAX, max(_EPOCHS_MIN, -(-_STEPS_MIN // steps_per_epoch)))
    patience: int | None
    match spec.early_stopping:
        case "none":
            patience = None
        case "auto":
            # While the learning rate is high the validation loss is noise: half a schedule without gain is a verdict.
            patience = max(1, max_epochs // 2)
        case given:
            patience = given
    is_deep = network is not None and (network.convolutions or network.num_blocks > 0 or ":" in network.architecture)
    learning_rate = _LEARNING_RATE_DEEP if is_deep else _LEARNING_RATE
    if spec.start == "warm":
        learning_rate *= _WARM_SHARE
    return TrainingConfig(
        seed=seed,
        batch_rows=batch_rows,
        max_epochs=max_epochs,
        patience_epochs=patience,
        learning_rate=spec.learning_rate or learning_rate,
        deterministic=spec.deterministic,
    )


@dataclass(frozen=True, slots=True)
class EpochMeasured:
    """One epoch: mean training loss, and on the validation rows (the last `len(outputs)` in time) loss and outputs.

    Without early stopping no rows are held out: the validation loss is NaN and there are no outputs.
    """

    epoch: int
    loss: float
    validation_loss: float
    outputs: Tensor


def train_network(
    network_config: NetworkConfig,
    target: Target,
    rows: TrainingRows,
    config: TrainingConfig,
    report: Callable[[EpochMeasured], None],
    weights: Mapping[str, Tensor] | None = None,
) -> tuple[nn.Module, int]:
    """Train on rows in the order of time; return the network and its number of epochs.

    The last tenth of the rows decides how many epochs are best. It is also what the model needs most
    when the world has changed, so a second network then learns from all rows for that many epochs.
    Without early stopping there is one network, which learns from all rows for all epochs. Layers that
    `weights` names begin with those. On one device with one number of threads, equal arguments give
    equal weights, bit for bit.
    """
    weights = weights or {}
    num_epochs = config.max_epochs
    is_final = config.patience_epochs is None
    if not is_final:
        num_validation = max(1, int(len(rows) * config.validation_share))
        fit_rows = rows.take(0, len(rows) - num_validation)
        validation = rows.take(len(rows) - num_validation, len(rows))
        num_epochs = _find_num_epochs(network_config, target, fit_rows, validation, config, report, weights)
    run = TrainingRun(network_config, target, rows, config, num_epochs, weights)
    for epoch in range(1, num_epochs + 1):
        loss = run.run_epoch()
        if is_final:
            report(EpochMeasured(epoch, loss, math.nan, torch.empty(0, target.num_outputs)))
    return run.network, num_epochs


def _find_num_epochs(
    network_config: NetworkConfig,
    target: Target,
    rows: TrainingRows,
    validation: TrainingRows,
    config: TrainingConfig,
    report: Callable[[EpochMeasured], None],
    weights: Mapping[str, Tensor],
) -> int:
    assert config.patience_epochs is not None
    run = TrainingRun(network_config, target, rows, config, config.max_epochs, weights)
    best_loss, best_epoch = math.inf, 1
    for epoch in range(1, config.max_epochs + 1):
        loss = run.run_epoch()
        outputs = compute_outputs(run.network, validation.inputs, network_config.block_rows, rows.device)
        validation_loss = float(target.compute_loss(outputs, validation.truth.to(rows.device)))
        report(EpochMeasured(epoch, loss, validation_loss, outputs))
        if validation_loss < best_loss:
            best_loss, best_epoch = validation_loss, epoch
        elif epoch - best_epoch >= config.patience_epochs:
            break
    return best_epoch


class TrainingRun:
    """One network on its way through `num_epochs` of one schedule."""

    def __init__(
        self,
        network_config: NetworkConfig,
        target: Target,
        rows: TrainingRows,
        config: TrainingConfig,
        num_epochs: int,
        weights: Mapping[str, Tensor],
    ) -> None:
        torch.manual_seed(config.seed)
        self.network = network_config.build()
        if weights:
            self.network.load_state_dict(dict(weights), strict=False)
        self.network.to(rows.device)
        self._target, self._rows, self._batch_rows = target, rows, config.batch_rows
        self._order = torch.Generator().manual_seed(config.seed)
        # One kernel a step instead of one a tensor: a third of a small network's time, on the CPU too.
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        num_steps = num_epochs * -(-len(rows) // config.batch_rows)
        rates, momenta = plan_one_cycle(config.learning_rate, num_steps)
        self._plan = iter(zip(rates.tolist(), momenta.tolist(), strict=True))
        compilation = choose_compilation(
            rows.device, num_steps, is_heavy=network_config.convolutions, deterministic=config.deterministic
        )
        self._forward = compile_network(self.network, compilation)

    def run_epoch(self) -> float:
        """Learn from every row once, in a new order; return the mean loss."""
        self.network.train()
        rows, device = self._rows, self._rows.device
        order = torch.randperm(len(rows), generator=self._order)
        total = torch.zeros((), device=device)
        (group,) = self._optimizer.param_groups
        for inputs, truth in rows.batch(order, self._batch_rows):
            group["lr"], momentum = next(self._plan)
            group["betas"] = (momentum, group["betas"][1])
            self._optimizer.zero_grad(set_to_none=True)
            with autocast(device):
                outputs = self._forward(inputs.dense, inputs.codes, inputs.extra)
            loss = self._target.compute_loss(outputs.float(), truth)
            torch.autograd.backward(loss)
            self._optimizer.step()
            total += loss.detach() * len(truth)
        mean_loss = float(total) / len(rows)
        if not math.isfinite(mean_loss):
            raise ArithmeticError(f"training diverged: the loss is {mean_loss}")
        return mean_loss


def compute_outputs(network: nn.Module, inputs: Inputs, block_rows: int, device: torch.device | None = None) -> Tensor:
    """Compute outputs (n, num_outputs) in float32; a row's output does not depend on the rows beside it.

    A matrix product of another height may round otherwise in the last bit. Every product has this height,
    so a redelivered record gets, to the bit, the prediction that it got before, whatever rows surround it.
    """
    device = device or inputs.dense.device
    network.eval()
    outputs = []
    with torch.inference_mode():
        # At least one block, so that there is always something to join.
        for start in range(0, max(1, len(inputs)), block_rows):
            block = inputs.take(start, start + block_rows)
            missing = block_rows - len(block)
            if missing:
                block = block.map(partial(_pad, num_rows=missing))
            block = block.map(lambda part: part.to(device))
            outputs.append(network(block.dense, block.codes, block.extra).float())
    return torch.cat(outputs)[: len(inputs)]


def _pad(part: Tensor, num_rows: int) -> Tensor:
    return torch.cat([part, part.new_zeros(num_rows, *part.shape[1:])])
