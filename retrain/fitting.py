"""The middle of a job: rows are chosen, encoded and learnt from.

Owns the order of these steps, and what is reported of them. It must not judge the challenger, nor store it.
"""

from __future__ import annotations

import hashlib
import logging

import numpy as np

from measures.performance import measure_performance, primary_metric
from retrain.candidates import choose_rows, cross_validate, make_measure
from retrain.champion import arrange_challenger
from retrain.device import choose_device, hold_gpu_memory, pin_threads
from retrain.learner import Learner
from retrain.order import CHALLENGER, EpochTrained, JobOrder, Report, Snapshotted
from retrain.ranks import Ranks
from retrain.snapshot import Snapshot
from retrain.trained_model import DataRange, TrainedModel
from retrain.training import EpochMeasured
from schemas.clock import Clock
from schemas.spec import RetrainSpec

log = logging.getLogger(__name__)


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
        self._learner = Learner(order, self.device, champion, self.data_hash, self._report, self._clock, self._ranks)
        measure = make_measure(self._learner, task)
        rows, self.choice = choose_rows(self._train.pop(), order.change_at, data, task, order.seed, measure)
        folds = cross_validate(rows, data.folds, task, measure) if data.folds else {}
        self._train.append(rows)
        self.metrics: dict[str, float] = {**self.choice.list_metrics(), **folds}
        log.info("%s", self.choice.words)

    def run(self) -> None:
        """Train on the chosen rows; afterwards `model`, `num_epochs` and all configurations are there."""
        self._labels = self._train[0].labels
        lesson = self._learner.prepare(CHALLENGER, self._train.pop())
        self.preprocessing, self.target, self.network_config = lesson.preprocessing, lesson.target, lesson.network
        self.start = lesson.start
        self._epoch_started_s = self._clock.monotonic_s()
        learnt = self._learner.train(lesson, self._report_epoch)
        self.model, self.config, self.num_epochs = learnt.model, learnt.config, learnt.num_epochs

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
