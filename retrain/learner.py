"""Every training of a job, whatever it is for: candidates, folds, and the challenger in the end.

Owns what they have in common: rows are encoded, the network is configured, all processes train it together, from the
last checkpoint of that training on, and where memory is short they begin again with smaller steps. It must not choose
rows, nor judge what was learnt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import torch
from torch import nn

from retrain.checkpoints import Checkpoints
from retrain.device import repeatable
from retrain.halving import train_within_memory
from retrain.joint_training import train_jointly
from retrain.network import NetworkConfig, configure_network
from retrain.order import BatchHalved, JobOrder, NetworkTrained, Report, Resumed
from retrain.preprocessing import Preprocessing, fit_preprocessing
from retrain.ranks import ALONE, Ranks
from retrain.snapshot import Snapshot
from retrain.target import Target, fit_target
from retrain.tensors import TrainingRows
from retrain.trained_model import TrainedModel, read_code_version
from retrain.training import EpochMeasured, TrainingConfig, configure_training
from retrain.warm_start import WarmWeights, choose_weights, start_from_scratch
from schemas.clock import Clock
from schemas.spec import RetrainSpec


@dataclass(frozen=True, slots=True)
class Lesson:
    """A training that can begin: encoded rows, and what is to learn from them. `name` is its own within the job."""

    name: str
    data: TrainingRows
    preprocessing: Preprocessing
    target: Target
    network: NetworkConfig
    start: WarmWeights
    config: TrainingConfig


@dataclass(frozen=True, slots=True)
class Learnt:
    """What came of it: `config` is the one that the memory sufficed for."""

    model: TrainedModel
    config: TrainingConfig
    num_epochs: int


class Learner:
    """Trains for one job, on one device and with all its processes, from a champion or (a sentence says why) not."""

    def __init__(
        self,
        order: JobOrder,
        device: torch.device,
        champion: TrainedModel | str,
        data_hash: str,
        report: Report,
        clock: Clock,
        ranks: Ranks = ALONE,
    ) -> None:
        self._order, self._device, self._champion, self._data_hash = order, device, champion, data_hash
        self._report, self._clock, self._ranks = report, clock, ranks
        self._settings = order.published.spec.retrain or RetrainSpec()

    def prepare(self, name: str, rows: Snapshot) -> Lesson:
        """Encode rows, and configure what learns from them; the rows themselves are not kept.

        UnfitLabelsError where they cannot be learnt from.
        """
        spec, settings, champion = self._order.published.spec, self._settings, self._champion
        before = None if isinstance(champion, str) else champion
        features = rows.read_features()
        preprocessing = fit_preprocessing(features, spec.features, before.preprocessing if before else None)
        target = fit_target(spec.task, rows.labels, settings.training.class_weights, before.target if before else None)
        network = configure_network(settings.architecture, preprocessing, target)
        start = (
            start_from_scratch(champion)
            if isinstance(champion, str)
            else choose_weights(champion, self._order.champion, network, target)
        )
        config = configure_training(rows.num_rows, self._order.seed, network, settings.training)
        data = TrainingRows.load(preprocessing.encode(features), target.encode(rows.labels), self._device)
        return Lesson(name, data, preprocessing, target, network, start, config)

    def train(self, lesson: Lesson, report_epoch: Callable[[EpochMeasured], None] = lambda _: None) -> Learnt:
        """Train; ArithmeticError where it diverges."""
        begun_s = self._clock.monotonic_s()

        def halved(config: TrainingConfig, reason: str) -> None:
            self._report(BatchHalved(training=lesson.name, batch_rows=config.batch_rows, reason=reason))
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

        with repeatable(self._settings.training.deterministic):
            (network, num_epochs), config = train_within_memory(
                lambda config: self._train(lesson, config, report_epoch), lesson.config, halved
            )
        seconds = self._clock.monotonic_s() - begun_s
        self._report(NetworkTrained(training=lesson.name, num_epochs=num_epochs, seconds=seconds))
        model = TrainedModel(network, lesson.network, lesson.preprocessing, lesson.target)
        return Learnt(model, config, num_epochs)

    def _train(
        self, lesson: Lesson, config: TrainingConfig, report_epoch: Callable[[EpochMeasured], None]
    ) -> tuple[nn.Module, int]:
        """Train, going on from where another attempt of this job came to, if it did the same."""
        checkpoints = Checkpoints(self._order.artifacts, self._order.job_id, self._find_key(lesson, config))
        if checkpoints.last is not None:
            facts = checkpoints.last.facts
            self._report(Resumed(training=lesson.name, phase=facts["phase"], num_epochs=facts["num_done"]))
        what = (lesson.network, lesson.target, lesson.data, config)
        return train_jointly(self._ranks, *what, report_epoch, lesson.start.weights, checkpoints)

    def _find_key(self, lesson: Lesson, config: TrainingConfig) -> str:
        """Name all that the weights depend on: a repeated attempt finds the same, another spec or release does not."""
        learnt = (self._data_hash, lesson.name, len(lesson.data), lesson.preprocessing, lesson.target, lesson.network)
        how = (lesson.start.start, config, read_code_version(), self._ranks.size)
        return hashlib.sha256(msgspec.json.encode((learnt, how))).hexdigest()
