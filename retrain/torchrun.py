"""One job in several processes: torchrun starts them, ends all when one ends, and says what became of them.

Run as `python -m retrain.torchrun --processes N [--order FILE]`; the processes are `python -m retrain.job` and inherit
standard input, so they too end when the trainer is gone. It must not know what a job does.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from retrain.order import JobInterrupted, encode_line


def main(arguments: list[str] | None = None) -> int:
    """Run the job; the exit status is 0 when every process has ended in order."""
    parser = argparse.ArgumentParser(prog="python -m retrain.torchrun", description=__doc__)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--order")
    given = parser.parse_args(arguments)
    # torchrun would set it too, and warn.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options = ["--standalone", "--max-restarts=0", "--monitor-interval=0.1", f"--nproc-per-node={given.processes}"]
    order = ["--order", given.order] if given.order else []
    try:
        run.main([*options, "-m", "retrain.job", *order])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        status = failure.exitcode
        words = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        report = JobInterrupted(reason=f"process {rank} of its {given.processes} {words}")
        sys.stdout.buffer.write(encode_line(report))
        sys.stdout.buffer.flush()
        return 1
    except SignalException as error:
        return 128 + error.sigval
    return 0


if __name__ == "__main__":
    sys.exit(main())
