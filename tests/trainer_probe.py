"""The trainer, killed at one point of a job's way: `DRIFTLOOP_TEST_KILL_AT=POINT` or `POINT:N` for the N-th time.

`python -m tests.trainer_probe train`; POINT is one of `POINTS`. SIGKILL: nothing is tidied up.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from driftloop import roles
from retrain import outcome, promotion, trainer
from retrain.open_job import OpenJob
from retrain.order import EpochTrained, JobFinished, JobReport, NetworkTrained, Resumed

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
        assert self.point in POINTS, text
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
            if isinstance(report, kinds):
                trap.step_on(point)
        real_record(self, report)

    outcome.Outcome._record = record  # type: ignore[method-assign]
    after(trainer, "start_job", "snapshot")
    before(promotion, "publish_roles", "promotion")
    after(promotion, "publish_roles", "promoted")
    before(OpenJob, "end", "closing")


if __name__ == "__main__":
    set_trap(Trap(os.environ["DRIFTLOOP_TEST_KILL_AT"]))
    roles.leave(roles.main())
