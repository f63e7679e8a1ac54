"""All roles against Apache Kafka that asks for SASL/PLAIN; the options reach every client, Faust's too."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.applying import apply_spec
from driftloop.settings import read_settings
from driftloop.stack import Stack
from tests import truth
from tests.brokers import ApacheKafka, find_free_port, find_kafka_home
from tests.feeding import count_rows, finish, read_measured, send
from tests.stacks import RunningStack, print_logs

OPTIONS = {
    "DRIFTLOOP_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "DRIFTLOOP_KAFKA_SASL_MECHANISM": "PLAIN",
    "DRIFTLOOP_KAFKA_SASL_USERNAME": "driftloop",
    "DRIFTLOOP_KAFKA_SASL_PASSWORD": "not-a-secret",
}


@pytest.mark.timeout(400)
def test_all_roles_with_sasl(tmp_path: Path) -> None:
    home = find_kafka_home()
    if home is None:
        pytest.skip("KAFKA_HOME is not set, or there is no Java to run it")
    broker = ApacheKafka(home, tmp_path / "kafka")
    broker.enable_sasl(OPTIONS["DRIFTLOOP_KAFKA_SASL_USERNAME"], OPTIONS["DRIFTLOOP_KAFKA_SASL_PASSWORD"])
    broker.start()
    environ = {**OPTIONS, "DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap}
    known = truth.make_truth(num_windows=2, rows_per_window=300)
    spec, _ = truth.write_truth(known, tmp_path / "files")
    stack = Stack(read_settings(tmp_path / "data", environ), find_free_port(), find_free_port(), print)
    running = RunningStack(stack, broker)
    try:
        stack.start()
        apply_spec(running.runtime, spec)
        send(running, list(truth.make_events(known)))
        finish(running, known.window_starts[-1] + 2 * truth.SIZE_MS)
        differences = truth.compare(truth.compute_expected(known), read_measured(running))
        assert not differences, "\n".join(differences[:20])
        assert count_rows(running, "predictions") == len(known.stream)
        # Every role has lived through it: none had to be started again.
        assert all(child.num_failures == 0 and child.running for child in stack.supervisor.children)
    except BaseException:
        print_logs(stack.logs)
        raise
    finally:
        stack.stop()
        broker.stop()
