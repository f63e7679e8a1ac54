"""A role ends within its deadline when it is told to, whatever it waits for."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]

STUCK = """
import threading
from driftloop import roles

def wait_for_ever(runtime, worker, stop):
    print("running", flush=True)
    threading.Event().wait()

roles.STOP_TIMEOUT_S = 0.2
roles.RUNS["sink"] = wait_for_ever
roles.main(["sink"])
"""


def test_a_role_that_cannot_stop_is_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", STUCK], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "running"
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "still not stopped" in said
    finally:
        process.kill()
