"""One job, start to end, in a process of its own: snapshot, train, judge, store.

A pure function of the order, the rows in the store, the code and the seed. It must not promote, nor
write a job's state: it reports on standard output, and the trainer records. Run as
`python -m retrain.job` with the order as the first line of standard input; when that input closes,
the trainer is gone, and the process ends. With `--order FILE` the order is read there, and input means nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import torch
from torch import nn

from measures.performance import measure_performance, primary_metric
from retrain.candidates import choose_rows, cross_validate, make_measure
from retrain.card import write_card
from retrain.card_facts import CARD_JSON, build_card, encode_card, find_queries
from retrain.champion import arrange_challenger
from retrain.checkpoints import Checkpoints
from retrain.device import choose_device, hold_gpu_memory, pin_threads, repeatable
from retrain.evaluation import Evaluation, evaluate_challenger
from retrain.gate_budgets import without_times
from retrain.halving import train_within_memory
from retrain.joint_training import end_training, follow, lead_training
from retrain.limits import is_out_of_memory, limit_memory, measure_use
from retrain.network import NetworkConfig, configure_network
from retrain.order import (
    BatchHalved,
    EpochTrained,
    JobFinished,
    JobInterrupted,
    JobOrder,
    JobReport,
    JobUnfit,
    NetworkTrained,
    ResourcesUsed,
    Resumed,
    Snapshotted,
    decode_order,
    describe_report,
    encode_line,
)
from retrain.preprocessing import Preprocessing, fit_preprocessing
from retrain.ranks import ALONE, Ranks
from retrain.snapshot import Snapshot, guard_against_leaks, take_snapshot
from retrain.target import Scored, Target, UnfitLabelsError, fit_target
from retrain.tensors import TrainingRows
from retrain.trained_model import (
    CARD,
    MANIFEST,
    WEIGHTS,
    DataRange,
    Manifest,
    TrainedModel,
    describe_signature,
    read_code_version,
    save_weights,
)
from retrain.training import EpochMeasured, TrainingConfig, configure_training, train_network
from retrain.warm_start import WarmWeights, choose_weights, find_champion, start_from_scratch
from schemas.clock import Clock, SystemClock
from schemas.errors import ConfigurationError, Retryable
from schemas.spec import ResourceSpec, RetrainSpec
from store.artifacts import open_artifacts
from store.client import ClickHouse
from store.reference import insert_reference

log = logging.getLogger(__name__)

Report = Callable[[JobReport], None]

_STDIN = 0
_LOOK_EVERY_S = 0.5

# Below this a network only learns noise, and a tenth of the rows validates nothing.
_MIN_TRAIN_ROWS = 100


def run_job(order: JobOrder, report: Report, clock: Clock, ranks: Ranks = ALONE) -> JobFinished:
    """Run a job; safe to repeat, since all that it stores is named by its content.

    Raises UnfitLabelsError or ConfigurationError when trying again would not help.
    """
    ch = ClickHouse(order.clickhouse)
    try:
        train, gate = _take_snapshots(ch, order)
        training = _Training(order, train, gate, report, clock, ranks)
        del train  # once encoded, the rows are gone
        start = _find_start(ch, order)
        training.choose(start)
        training.run(start)
        weights = save_weights(training.network)
        size_bytes = len(weights) + len(msgspec.json.encode(training.preprocessing))
        found = evaluate_challenger(ch, order, gate, training.model, size_bytes, clock)
        return _store(ch, order, training, weights, gate, found)
    finally:
        ch.close()


def _take_snapshots(ch: ClickHouse, order: JobOrder) -> tuple[Snapshot, Snapshot]:
    spec = order.published.spec
    train = take_snapshot(ch, order.model, spec.task, spec.features, order.train_from, order.train_to)
    gate = take_snapshot(ch, order.model, spec.task, spec.features, order.gate_from, order.gate_to)
    if train.num_rows < _MIN_TRAIN_ROWS:
        raise UnfitLabelsError(f"there are {train.num_rows} labelled rows to train on; {_MIN_TRAIN_ROWS} are needed")
    return train, guard_against_leaks(train, gate)


def _find_start(ch: ClickHouse, order: JobOrder) -> TrainedModel | str:
    """Return the champion where the spec says to start from it, and a sentence where there is none to start from."""
    settings = order.published.spec.retrain or RetrainSpec()
    if settings.training.start == "scratch":
        return "the spec says so"
    return find_champion(ch, order.artifacts, order.model, order.champion)


class _Training:
    """The middle of a job: from rows to a network, with all that the manifest tells of it."""

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
        labels = self._labels.to_numpy(zero_copy_only=False)[-len(epoch.outputs) :]
        scored = self.target.decode(epoch.outputs)
        classes = self.target.classes
        outputs = arrange_challenger(scored, task, classes)
        if task == "regression":
            value = measure_performance(task, labels, predictions=outputs, metrics=[metric])[metric]
        else:
            value = measure_performance(task, labels, scores=outputs, classes=classes, metrics=[metric])[metric]
        return metric, value


def _store(
    ch: ClickHouse, order: JobOrder, training: _Training, weights: bytes, gate: Snapshot, found: Evaluation
) -> JobFinished:
    verdict = found.verdict
    manifest = Manifest(
        model=order.model,
        job_id=order.job_id,
        architecture=training.settings.architecture,
        spec_version=order.published.spec_version,
        signature=describe_signature(training.preprocessing, training.target),
        preprocessing=training.preprocessing,
        target=training.target,
        network=training.network_config,
        training=training.config,
        start=training.start.start,
        num_epochs=training.num_epochs,
        train=training.train,
        gate=training.gate,
        choice=training.choice,
        champion=order.champion,
        verdict=verdict.words,
        metrics={**verdict.metrics, **training.metrics},
        code_version=read_code_version(),
        torch_version=str(torch.__version__),
        device=training.device.type,
        num_threads=training.num_threads,
        num_processes=training.num_processes,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    gates = tuple(without_times(gate) for gate in verdict.gates)
    facts = build_card(manifest, order, verdict.passed, gates, training.data_hash, find_queries(ch, order))
    text, card = msgspec.json.format(msgspec.json.encode(manifest)), write_card(manifest, facts)
    files = {WEIGHTS: weights, MANIFEST: text, CARD: card.encode(), CARD_JSON: encode_card(facts)}
    stored = open_artifacts(order.artifacts).write(order.model, order.job_id[:12], files)
    reference_hash = hashlib.sha256(f"{gate.sha256}\n{stored.sha256}\n".encode()).hexdigest()
    insert_reference(ch, reference_hash, _build_reference(gate, found.scored))
    return JobFinished(
        passed=verdict.passed,
        verdict=verdict.words,
        metrics={**found.list_metrics(), **training.metrics},
        architecture=manifest.architecture,
        data_hash=training.data_hash,
        uri=stored.uri,
        sha256=stored.sha256,
        reference_hash=reference_hash,
        manifest=text.decode(),
        card=card,
        gates=verdict.gates,
    )


def _build_reference(gate: Snapshot, scored: Scored) -> pd.DataFrame:
    """Return the gate rows as a reference: features, ts and label as stored, outputs by the new version."""
    table = gate.table
    columns: dict[str, object] = {
        name[2:]: table[name].to_pandas() for name in table.column_names if name[:2] in ("f:", "t:")
    }
    columns["ts"] = table["ts"].to_pandas()
    columns["label"] = gate.labels.to_numpy(zero_copy_only=False)
    if scored.score is not None:
        columns["score"] = scored.score
    columns["prediction"] = scored.prediction if scored.prediction_text is None else scored.prediction_text
    columns |= {f"scores:{name}": values for name, values in (scored.scores or {}).items()}
    return pd.DataFrame(columns)


def _range_of(rows: Snapshot) -> DataRange:
    return DataRange(start=rows.start, end=rows.end, num_rows=rows.num_rows, sha256=rows.sha256)


def main(arguments: list[str] | None = None) -> int:
    """Run the job that is ordered; the exit status is 0 when the last report says how it ended."""
    parser = argparse.ArgumentParser(prog="python -m retrain.job", description=__doc__)
    parser.add_argument("--order", type=Path)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    parent = os.getppid()
    ranks = Ranks.join()
    line = b"" if not ranks.leads else given.order.read_bytes() if given.order else _read_line()
    order = decode_order(ranks.tell(line))
    begun_s = SystemClock().monotonic_s()  # it may have waited long for the order
    threading.Thread(target=_end_with_trainer, args=(parent, given.order is None), daemon=True).start()
    if ranks.leads:
        last = _run_limited(order, ranks)
        _print(_end_together(ranks, begun_s))
        _print(last)
    else:
        resources = _find_resources(order, ranks)
        with suppress(MemoryError):  # the leader has the same limit, and says so
            limit_memory(resources)
        follow(ranks, resources)
        _measure_use(ranks, begun_s)
    ranks.leave()
    return 0


def _end_together(ranks: Ranks, begun_s: float) -> ResourcesUsed:
    """Let the other processes end, and return what all have used; what only this one has if others are gone."""
    try:
        # Where only this process failed, the others still wait for it in the middle of a step, and end when it does.
        if not ranks.is_busy:
            end_training(ranks)
            return _measure_use(ranks, begun_s)
    except RuntimeError as error:
        log.warning("the other processes are gone: %s", error)
    return _measure_use(ALONE, begun_s)


def _run_limited(order: JobOrder, ranks: Ranks) -> JobReport:
    try:
        resources = _find_resources(order, ranks)
        limit_memory(resources)
        ranks.take_gpu(resources.accelerator)
        return run_job(order, _print, SystemClock(), ranks)
    except (UnfitLabelsError, ConfigurationError) as error:
        return JobUnfit(reason=str(error))
    except Retryable as error:
        return JobInterrupted(reason=str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return JobUnfit(reason=f"memory was short: {error}")


def _find_resources(order: JobOrder, ranks: Ranks) -> ResourceSpec:
    """Return what this process may use: its part of the job's memory."""
    resources = (order.published.spec.retrain or RetrainSpec()).resources
    return msgspec.structs.replace(resources, memory_bytes=ranks.divide(resources.memory_bytes))


def _measure_use(ranks: Ranks, begun_s: float) -> ResourcesUsed:
    """Add up what all processes have used."""
    cpu_seconds, peak_memory_bytes = measure_use()
    on_gpu = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
    gpu_seconds = SystemClock().monotonic_s() - begun_s if on_gpu else 0.0
    peak_gpu_memory_bytes = torch.cuda.max_memory_allocated() if on_gpu else 0
    used = ranks.sum_numbers([cpu_seconds, gpu_seconds, peak_memory_bytes, peak_gpu_memory_bytes])
    return ResourcesUsed(
        cpu_seconds=used[0], gpu_seconds=used[1], peak_memory_bytes=int(used[2]), peak_gpu_memory_bytes=int(used[3])
    )


def _print(report: JobReport) -> None:
    # Standard error is the job's log; reports are for the trainer.
    log.info("%s", describe_report(report))
    sys.stdout.buffer.write(encode_line(report))
    sys.stdout.buffer.flush()


def _read_line() -> bytes:
    # Not through sys.stdin: its lock, held by the thread below, would end the interpreter with an abort.
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(_STDIN, 65_536)
        if not part:
            raise EOFError("the order was cut off: the trainer is gone")
        line += part
    return line


def _end_with_trainer(parent: int, is_ordered_by_input: bool) -> None:
    # A trainer that was killed cannot say so; the end of our input does. Between it and us may stand torchrun, which
    # shares its input with us, and whose end alone we see by having another parent.
    inputs = [_STDIN] if is_ordered_by_input else []
    while os.getppid() == parent:
        readable, _, _ = select.select(inputs, [], [], _LOOK_EVERY_S)
        if readable and not os.read(_STDIN, 1):
            break
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main())
