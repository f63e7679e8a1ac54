"""The trainer, killed at one point of a job's way: `DRIFTLOOP_TEST_KILL_AT=POINT` or `POINT:N` for the N-th time.

`python -m tests.trainer_probe train`; POINT is one of `POINTS`, or `second candidate`. SIGKILL: nothing is tidied up.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from driftloop import roles
from retrain import outcome, promotion, trainer
from retrain.open_job import OpenJob
from retrain.order import CHALLENGER, EpochTrained, JobFinished, JobReport, NetworkTrained, Resumed

SECOND = "second candidate"
POINTS = ("snapshot", "training", "evaluation", "version", "promotion", "promoted", "closing")
# Short epochs may all be over before the process hears that its trainer is gone: then it goes on behind them.
REPORTS: dict[str, tuple[type, ...]] = {
    "training": (EpochTrained, Resumed),
    "evaluation": (NetworkTrained,),
    "version": (JobFinished,),
}


class Trap:
    """Kills the process when it has been stepped on so often."""

    def __init__(self, text: str) -> None:
        self.point, _, number = text.partition(":")
        assert self.point in (*POINTS, SECOND), text
        self.number = int(number or 1)

    def step_on(self, point: str) -> None:
        if point == self.point:
            self.number -= 1
            if self.number == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def set_trap(trap: Trap) -> None:
    """Put the trap into the trainer's own code: it runs as ever up to there."""

    def before(owner: Any, name: str, point: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def called(*arguments: Any, **named: Any) -> Any:
            trap.step_on(point)
            return real(*arguments, **named)

        setattr(owner, name, called)

    def after(owner: Any, name: str, point: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def called(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named)
            trap.step_on(point)
            return result

        setattr(owner, name, called)

    real_record = outcome.Outcome._record

    def record(self: outcome.Outcome, report: JobReport) -> None:
        for point, kinds in REPORTS.items():
            if isinstance(report, kinds) and getattr(report, "training", CHALLENGER) == CHALLENGER:
                trap.step_on(point)
        if trap.point == SECOND and isinstance(report, NetworkTrained) and report.training == "all":
            wait_for_checkpoint_of_second(Path(self._order.artifacts) / ".checkpoints" / self._order.job_id)
            trap.step_on(SECOND)
        real_record(self, report)

    outcome.Outcome._record = record  # type: ignore[method-assign]
    after(trainer, "start_job", "snapshot")
    before(promotion, "publish_roles", "promotion")
    after(promotion, "publish_roles", "promoted")
    before(OpenJob, "end", "closing")


def wait_for_checkpoint_of_second(folder: Path) -> None:
    """Wait until the second training of a job has saved how far it is."""
    deadline_s = time.monotonic() + 60
    while len({path.parent for path in folder.glob("*/*.safetensors")}) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


if __name__ == "__main__":
    set_trap(Trap(os.environ["DRIFTLOOP_TEST_KILL_AT"]))
    roles.leave(roles.main())
