"""The middle of a job: rows are chosen, encoded and learnt from.

Owns the order of these steps, and what is reported of them. It must not judge the challenger, nor store it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

import msgspec
import numpy as np
import torch
from torch import nn

from measures.performance import measure_performance, primary_metric
from retrain.candidates import choose_rows, cross_validate, make_measure
from retrain.champion import arrange_challenger
from retrain.checkpoints import Checkpoints
from retrain.device import choose_device, hold_gpu_memory, pin_threads, repeatable
from retrain.halving import train_within_memory
from retrain.joint_training import lead_training
from retrain.network import NetworkConfig, configure_network
from retrain.order import BatchHalved, EpochTrained, JobOrder, JobReport, NetworkTrained, Resumed, Snapshotted
from retrain.preprocessing import Preprocessing, fit_preprocessing
from retrain.ranks import Ranks
from retrain.snapshot import Snapshot
from retrain.target import Target, fit_target
from retrain.tensors import TrainingRows
from retrain.trained_model import DataRange, TrainedModel, read_code_version
from retrain.training import EpochMeasured, TrainingConfig, configure_training, train_network
from retrain.warm_start import WarmWeights, choose_weights, start_from_scratch
from schemas.clock import Clock
from schemas.spec import RetrainSpec

log = logging.getLogger(__name__)

Report = Callable[[JobReport], None]


class Fitting:
    """From rows to a network, with all that the manifest tells of it: `choose` the rows, then `run`."""

    def __init__(
        self, order: JobOrder, train: Snapshot, gate: Snapshot, report: Report, clock: Clock, ranks: Ranks
    ) -> None:
        self._order, self._train, self._report, self._clock, self._ranks = order, [train], report, clock, ranks
        self.spec = order.published.spec
        self.settings = self.spec.retrain or RetrainSpec()
        self.device = choose_device(self.settings.resources.accelerator)
        self.num_threads, self.num_processes = pin_threads(ranks.divide(self.settings.resources.cpus)), ranks.size
        hold_gpu_memory(self.device, self.settings.resources.gpu_memory_bytes)
        self.data_hash = hashlib.sha256(f"{train.sha256}\n{gate.sha256}\n".encode()).hexdigest()
        report(
            Snapshotted(
                num_train_rows=train.num_rows,
                num_gate_rows=gate.num_rows,
                data_hash=self.data_hash,
                device=self.device.type,
            )
        )
        self.train = _range_of(train)
        self.gate = _range_of(gate)

    def choose(self, champion: TrainedModel | str) -> None:
        """Choose the rows to learn from; afterwards `choice` and `metrics` are there."""
        order, data, task = self._order, self.settings.data, self.spec.task
        measure = make_measure(self.spec, order.seed, self.device, champion, order.champion)
        with repeatable(self.settings.training.deterministic):
            rows, self.choice = choose_rows(self._train.pop(), order.change_at, data, task, order.seed, measure)
            folds = cross_validate(rows, data.folds, task, measure) if data.folds else {}
        self._train.append(rows)
        self.metrics: dict[str, float] = {**self.choice.list_metrics(), **folds}
        log.info("%s", self.choice.words)

    def run(self, champion: TrainedModel | str) -> None:
        """Train; afterwards `network`, `model`, `num_epochs` and all configurations are there."""
        train, settings = self._train.pop(), self.settings.training
        self._labels = train.labels
        rows = train.read_features()
        before = None if isinstance(champion, str) else champion
        self.preprocessing: Preprocessing = fit_preprocessing(
            rows, self.spec.features, before.preprocessing if before else None
        )
        self.target: Target = fit_target(
            self.spec.task, train.labels, settings.class_weights, before.target if before else None
        )
        self.network_config: NetworkConfig = configure_network(
            self.settings.architecture, self.preprocessing, self.target
        )
        self.start: WarmWeights = (
            start_from_scratch(champion)
            if isinstance(champion, str)
            else choose_weights(champion, self._order.champion, self.network_config, self.target)
        )
        self.config: TrainingConfig = configure_training(
            train.num_rows, self._order.seed, self.network_config, settings
        )
        data = TrainingRows.load(self.preprocessing.encode(rows), self.target.encode(train.labels), self.device)
        del train, rows
        self._started_s = self._epoch_started_s = self._clock.monotonic_s()
        self.network: nn.Module
        with repeatable(settings.deterministic):
            (self.network, self.num_epochs), self.config = train_within_memory(
                lambda config: self._train_network(data, config), self.config, self._report_halved
            )
        self._ranks.is_busy = False
        self.model = TrainedModel(self.network, self.network_config, self.preprocessing, self.target)
        self._report(NetworkTrained(num_epochs=self.num_epochs, seconds=self._clock.monotonic_s() - self._started_s))

    def _train_network(self, data: TrainingRows, config: TrainingConfig) -> tuple[nn.Module, int]:
        """Train, going on from where another attempt of this job came to, if it did the same."""
        learnt = (self.choice.window, self.choice.num_rows)
        same = (self.data_hash, learnt, self.network_config, config, read_code_version(), self._ranks.size)
        key = hashlib.sha256(msgspec.json.encode(same)).hexdigest()
        checkpoints = Checkpoints(self._order.artifacts, self._order.job_id, key)
        if checkpoints.last is not None:
            facts = checkpoints.last.facts
            self._report(Resumed(phase=facts["phase"], num_epochs=facts["num_done"]))
        training = (self.network_config, self.target, data, config)
        lead_training(self._ranks, *training, self.start.weights, checkpoints.last)
        return train_network(*training, self._report_epoch, self.start.weights, checkpoints, self._ranks)

    def _report_halved(self, config: TrainingConfig, reason: str) -> None:
        self._report(BatchHalved(batch_rows=config.batch_rows, reason=reason))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _report_epoch(self, epoch: EpochMeasured) -> None:
        now_s = self._clock.monotonic_s()
        metric, value = self._measure(epoch)
        self._report(
            EpochTrained(
                epoch=epoch.epoch,
                loss=epoch.loss,
                validation_loss=None if np.isnan(epoch.validation_loss) else epoch.validation_loss,
                metric_name=metric,
                metric=None if np.isnan(value) else value,
                seconds=now_s - self._epoch_started_s,
            )
        )
        self._epoch_started_s = now_s

    def _measure(self, epoch: EpochMeasured) -> tuple[str, float]:
        """Measure the task's primary metric on the validation rows; NaN where there are none."""
        task, metric = self.spec.task, primary_metric(self.spec.task)
        if not len(epoch.outputs):
            return metric, np.nan
        labels = self._labels.slice(len(self._labels) - len(epoch.outputs)).to_numpy(zero_copy_only=False)
        scored = self.target.decode(epoch.outputs)
        classes = self.target.classes
        outputs = arrange_challenger(scored, task, classes)
        if task == "regression":
            value = measure_performance(task, labels, predictions=outputs, metrics=[metric])[metric]
        else:
            value = measure_performance(task, labels, scores=outputs, classes=classes, metrics=[metric])[metric]
        return metric, value


def _range_of(rows: Snapshot) -> DataRange:
    return DataRange(start=rows.start, end=rows.end, num_rows=rows.num_rows, sha256=rows.sha256)
