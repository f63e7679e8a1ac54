"""The training loop.

Owns early stopping and the order of batches. It must not read a store, know a task, or judge the
result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from retrain.checkpoints import Checkpoint, Checkpoints
from retrain.compilation import choose_compilation, compile_network
from retrain.device import autocast
from retrain.network import NetworkConfig
from retrain.ranks import ALONE, Ranks, list_trained
from retrain.schedule import plan_one_cycle
from retrain.synced_norm import sync_norms
from retrain.target import Target
from retrain.tensors import Inputs, TrainingRows
from schemas.spec import TrainingSpec


class DivergedError(ArithmeticError):
    """The loss is no number any more; of several processes each raises it, since it is the loss of all of them."""


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
    checkpoints: Checkpoints | None = None,
    ranks: Ranks = ALONE,
    checkpoint: Checkpoint | None = None,
) -> tuple[nn.Module, int]:
    """Train on rows in the order of time; return the network and its number of epochs.

    The last tenth of the rows decides how many epochs are best. It is also what the model needs most
    when the world has changed, so a second network then learns from all rows for that many epochs.
    Without early stopping there is one network, which learns from all rows for all epochs. Layers that
    `weights` names begin with those. On one device with one number of threads, equal arguments give
    equal weights, bit for bit, also when training goes on from the last of `checkpoints`.

    Of several processes (`ranks`), all call this with equal arguments and get equal weights. The leader alone keeps
    checkpoints; the others are told the one to go on from. Outputs for `report` are the leader's alone.
    """
    weights = weights or {}
    checkpoint = checkpoints.last if checkpoints is not None else checkpoint
    num_epochs = config.max_epochs
    is_final = config.patience_epochs is None
    if not is_final and (checkpoint is None or checkpoint.facts["phase"] == _SEARCH):
        num_validation = max(1, int(len(rows) * config.validation_share))
        validation = rows.take(len(rows) - num_validation, len(rows))
        fit_rows = rows.take(0, len(rows) - num_validation)
        search = TrainingRun(network_config, target, fit_rows, config, num_epochs, weights, ranks)
        num_epochs = _find_num_epochs(search, validation, config.patience_epochs, report, checkpoints, checkpoint)
        checkpoint = None
    elif not is_final and checkpoint is not None:
        num_epochs = checkpoint.facts["num_epochs"]
    run = TrainingRun(network_config, target, rows, config, num_epochs, weights, ranks)
    if checkpoint is not None:
        run.resume(checkpoint)
    while run.num_done < num_epochs:
        loss = run.run_epoch()
        if is_final:
            report(EpochMeasured(run.num_done, loss, math.nan, torch.empty(0, target.num_outputs)))
        if checkpoints is not None:
            # The last one is what spares another attempt this training.
            is_last = run.num_done == num_epochs
            checkpoints.save(partial(run.checkpoint, phase=_FINAL, num_epochs=num_epochs), always=is_last)
    return run.network, num_epochs


# A training's two phases, as its checkpoints name them.
_SEARCH, _FINAL = "search", "final"


def _find_num_epochs(
    run: TrainingRun,
    validation: TrainingRows,
    patience_epochs: int | None,
    report: Callable[[EpochMeasured], None],
    checkpoints: Checkpoints | None,
    checkpoint: Checkpoint | None,
) -> int:
    assert patience_epochs is not None
    best_loss, best_epoch = math.inf, 1
    if checkpoint is not None:
        run.resume(checkpoint)
        best_loss, best_epoch = checkpoint.facts["best_loss"], checkpoint.facts["best_epoch"]
    while run.num_done < run.num_epochs and run.num_done - best_epoch < patience_epochs:
        loss = run.run_epoch()
        validation_loss, outputs = run.measure(validation)
        report(EpochMeasured(run.num_done, loss, validation_loss, outputs))
        if validation_loss < best_loss:
            best_loss, best_epoch = validation_loss, run.num_done
        if checkpoints is not None:
            checkpoints.save(partial(run.checkpoint, phase=_SEARCH, best_loss=best_loss, best_epoch=best_epoch))
    return best_epoch


class TrainingRun:
    """One network on its way through `num_epochs` of one schedule, of which `num_done` are over."""

    def __init__(
        self,
        network_config: NetworkConfig,
        target: Target,
        rows: TrainingRows,
        config: TrainingConfig,
        num_epochs: int,
        weights: Mapping[str, Tensor],
        ranks: Ranks = ALONE,
    ) -> None:
        torch.manual_seed(config.seed)
        self.num_epochs, self.num_done = num_epochs, 0
        self.network = network_config.build()
        self._block_rows = network_config.block_rows
        if weights:
            self.network.load_state_dict(dict(weights), strict=False)
        self.network.to(rows.device)
        self._ranks, self._seed = ranks, config.seed
        if ranks.size > 1:
            ranks.sums_inside = sync_norms(self.network)
            for tensor in self.network.state_dict().values():
                ranks.send(tensor)
        self._target, self._rows, self._batch_rows = target, rows, config.batch_rows
        self._order = torch.Generator().manual_seed(config.seed)
        # One kernel a step instead of one a tensor: a third of a small network's time, on the CPU too.
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        num_steps = num_epochs * -(-len(rows) // config.batch_rows)
        rates, momenta = plan_one_cycle(config.learning_rate, num_steps)
        self._plan = list(zip(rates.tolist(), momenta.tolist(), strict=True))
        self._num_steps = 0
        compilation = choose_compilation(
            rows.device,
            num_steps,
            is_heavy=network_config.convolutions,
            # Compiled code with sums over processes in it was never tried.
            deterministic=config.deterministic or ranks.size > 1,
        )
        self._parameters = list_trained(self.network)
        self._forward = compile_network(self.network, compilation)

    def run_epoch(self) -> float:
        """Learn from every row once, in a new order; return the mean loss."""
        self.network.train()
        rows, device, ranks = self._rows, self._rows.device, self._ranks
        self._begin_epoch()
        total = torch.zeros((), device=device)
        (group,) = self._optimizer.param_groups
        for order in rows.shuffle(self._order, self._batch_rows):
            share = ranks.split(order, self._batch_rows)
            batches = rows.batch(share.order, share.batch_rows)
            for (inputs, truth), num_rows, scale in zip(batches, share.num_rows, share.scales, strict=True):
                group["lr"], momentum = self._plan[self._num_steps]
                self._num_steps += 1
                group["betas"] = (momentum, group["betas"][1])
                self._optimizer.zero_grad(set_to_none=True)
                loss = ranks.learn(partial(self._learn, inputs, truth, scale), self._parameters)
                self._optimizer.step()
                total += loss * num_rows
        mean_loss = float(ranks.finish_epoch(total)) / len(rows)
        if not math.isfinite(mean_loss):
            raise DivergedError(f"training diverged: the loss is {mean_loss}")
        self.num_done += 1
        return mean_loss

    def _learn(self, inputs: Inputs, truth: Tensor, scale: float) -> Tensor:
        """Leave the gradients of the mean loss times `scale`; return the mean loss."""
        with autocast(self._rows.device):
            outputs = self._forward(inputs.dense, inputs.codes, inputs.extra)
        loss = self._target.compute_loss(outputs.float(), truth)
        torch.autograd.backward(loss if scale == 1.0 else loss * scale)
        return loss.detach()

    def _begin_epoch(self) -> None:
        """Let ranks draw different numbers (dropout), the same ones whenever the epoch is repeated."""
        if self._ranks.size > 1:
            torch.manual_seed((self._seed << 20) + (self.num_done << 10) + self._ranks.rank)

    def measure(self, validation: TrainingRows) -> tuple[float, Tensor]:
        """Return the loss on rows, and the outputs, which are empty where another process leads."""
        device, loss, outputs = self._rows.device, 0.0, torch.empty(0, self._target.num_outputs)
        if self._ranks.leads:
            outputs = compute_outputs(self.network, validation.inputs, self._block_rows, device)
            loss = float(self._target.compute_loss(outputs, validation.truth.to(device)))
        return self._ranks.send_number(loss), outputs

    def checkpoint(self, **facts: Any) -> Checkpoint:
        """Return all that the next epoch depends on."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for index, parameter in enumerate(self.network.parameters()):
            for name, tensor in self._optimizer.state[parameter].items():
                tensors[f"optimizer.{index}.{name}"] = tensor
        tensors |= {"order": self._order.get_state(), "random": torch.get_rng_state()}
        if self._rows.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self._rows.device)
        return Checkpoint(tensors, {**facts, "num_done": self.num_done, "num_steps": self._num_steps})

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was made."""
        self.num_done, self._num_steps = checkpoint.facts["num_done"], checkpoint.facts["num_steps"]
        tensors = checkpoint.tensors
        network = {name.removeprefix("network."): tensor for name, tensor in tensors.items() if name[:8] == "network."}
        self.network.load_state_dict(network)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                state.setdefault(int(index), {})[key] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})
        self._order.set_state(tensors["order"])
        torch.set_rng_state(tensors["random"])
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self._rows.device)


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
