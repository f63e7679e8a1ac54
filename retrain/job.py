"""One job, start to end, in a process of its own: snapshot, train, judge, store.

A pure function of the order, the rows in the store, the code and the seed. It must not promote, nor
write a job's state: it reports on standard output, and the trainer records. Run as
`python -m retrain.job` with the order as the first line of standard input; when that input closes,
the trainer is gone, and the process ends. With `--order FILE` the order is read there, and input means nothing.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import sys
import threading
from contextlib import suppress
from pathlib import Path

import msgspec

from retrain.evaluation import evaluate_challenger
from retrain.fitting import Fitting
from retrain.joint_training import end_training, follow
from retrain.limits import is_out_of_memory, limit_memory
from retrain.order import (
    JobFinished,
    JobInterrupted,
    JobOrder,
    JobReport,
    JobUnfit,
    Report,
    ResourcesUsed,
    decode_order,
    describe_report,
    encode_line,
)
from retrain.ranks import ALONE, Ranks
from retrain.snapshot import Snapshot, guard_against_leaks, take_snapshot
from retrain.storing import store_challenger
from retrain.target import UnfitLabelsError
from retrain.trained_model import TrainedModel, save_weights
from retrain.training import DivergedError
from retrain.use import UseMeter
from retrain.warm_start import find_champion
from schemas.clock import Clock, SystemClock
from schemas.errors import ConfigurationError, Retryable
from schemas.spec import ResourceSpec, RetrainSpec
from store.client import ClickHouse

log = logging.getLogger(__name__)

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
        fitting = Fitting(order, train, gate, report, clock, ranks)
        del train  # once encoded, the rows are gone
        fitting.choose(_find_start(ch, order))
        fitting.run()
        weights = save_weights(fitting.model.network)
        size_bytes = len(weights) + len(msgspec.json.encode(fitting.preprocessing))
        found = evaluate_challenger(ch, order, gate, fitting.model, size_bytes, clock)
        return store_challenger(ch, order, fitting, weights, gate, found)
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
    meter = UseMeter(ranks, SystemClock())  # it may have waited long for the order
    threading.Thread(target=_end_with_trainer, args=(parent, given.order is None), daemon=True).start()
    if ranks.leads:
        meter.tell(_print)
        last = _run_limited(order, ranks)
        _print(_end_together(ranks, meter))
        _print(last)
    else:
        resources = _find_resources(order, ranks)
        with suppress(MemoryError):  # the leader has the same limit, and says so
            limit_memory(resources)
        follow(ranks, resources)
        meter.finish(ranks)
    ranks.leave()
    return 0


def _end_together(ranks: Ranks, meter: UseMeter) -> ResourcesUsed:
    """Let the other processes end, and return what all have used; without the CPU of others that are gone."""
    try:
        # Where only this process failed, the others still wait for it in the middle of a step, and end when it does.
        if not ranks.is_busy:
            end_training(ranks)
            return meter.finish(ranks)
    except RuntimeError as error:
        log.warning("the other processes are gone: %s", error)
    return meter.finish()


def _run_limited(order: JobOrder, ranks: Ranks) -> JobReport:
    try:
        resources = _find_resources(order, ranks)
        limit_memory(resources)
        ranks.take_gpu(resources.accelerator)
        return run_job(order, _print, SystemClock(), ranks)
    except (UnfitLabelsError, ConfigurationError, DivergedError) as error:
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
