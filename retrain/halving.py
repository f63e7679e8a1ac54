"""Training where memory is short: begin again with smaller steps, until it fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from retrain.limits import is_out_of_memory
from retrain.training import TrainingConfig

Trained = TypeVar("Trained")


def train_within_memory(
    train: Callable[[TrainingConfig], Trained],
    config: TrainingConfig,
    report: Callable[[TrainingConfig, str], None],
) -> tuple[Trained, TrainingConfig]:
    """Train; where memory is short, report it and begin again with half as many rows a step, down to one.

    Returns what `train` gives, and the configuration that it was given last.
    """
    while True:
        try:
            return train(config), config
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or config.batch_rows == 1:
                raise
            reason = str(error).partition("\n")[0][:200]
        # Behind the handler: until then the traceback holds what the failed attempt held.
        config = msgspec.structs.replace(config, batch_rows=config.batch_rows // 2)
        report(config, reason)
