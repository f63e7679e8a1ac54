"""`driftloop` as people run it: a real process, its printed words, its exit codes, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests import truth
from tests.brokers import find_free_port
from tests.stacks import print_logs, wait_until

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("monitor", "sink", "notify", "score", "train")
START_S = 120.0
STOP_S = 10.0


def make_environment() -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLOOP_")}
    return ours | {"DO_NOT_TRACK": "1", "PYTHONPATH": str(ROOT)}


def run(data: Path, *arguments: str, timeout_s: float = 240.0, folder: Path = ROOT) -> tuple[int, str, str]:
    """One command: (exit code, stdout, stderr)."""
    command = [sys.executable, "-m", "driftloop", "--data", str(data), *arguments]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, cwd=folder, env=make_environment()
    )
    return ended.returncode, ended.stdout, ended.stderr


def find_children(pid: int) -> dict[int, str]:
    """{process id: command line} of a process's children, as Linux has them now."""
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == pid:
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
    return found


def find_descendants(pid: int) -> set[int]:
    children = set(find_children(pid))
    return children.union(*(find_descendants(child) for child in children))


def runs(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Up:
    """A running `driftloop up`, its folder and its printed words."""

    process: subprocess.Popen[bytes]
    data: Path
    kafka_port: int
    clickhouse_port: int
    output: Path

    def find(self, part: str) -> int | None:
        """The child whose command line has this in it."""
        return next((pid for pid, line in find_children(self.process.pid).items() if part in line), None)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("command")
    data, output = folder / "data", folder / "output.txt"
    ports = find_free_port(), find_free_port()
    command = [sys.executable, "-m", "driftloop", "--data", str(data), "up"]
    command += ["--kafka-port", str(ports[0]), "--clickhouse-port", str(ports[1])]
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, env=make_environment())
    running = Up(process, data, *ports, output)
    try:
        wait_until(
            lambda: "stop with Ctrl-C" in output.read_text() or process.poll() is not None, START_S, "driftloop up"
        )
        assert process.poll() is None, output.read_text()
        yield running
    except BaseException:
        print_logs(data / "logs")
        raise
    finally:
        descendants = find_descendants(process.pid)
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(3 * STOP_S)
        finally:
            for pid in descendants:
                if runs(pid):
                    os.kill(pid, signal.SIGKILL)


def test_it_says_where_everything_listens(up: Up) -> None:
    said = up.output.read_text()
    assert f"Kafka       127.0.0.1:{up.kafka_port}" in said
    assert f"ClickHouse  http://127.0.0.1:{up.clickhouse_port}" in said
    assert "monitor, sink, notify, score, train" in said
    for role in ROLES:
        assert up.find(f"driftloop.roles {role}") is not None
        assert (up.data / "logs" / f"{role}.log").exists()


def test_a_second_one_on_the_folder_is_refused(up: Up) -> None:
    code, out, err = run(up.data, "up", "--kafka-port", str(find_free_port()))
    assert (code, out) == (2, "")
    assert f"another driftloop (process {up.process.pid}) runs on this data folder" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("option", ["--kafka-port", "--clickhouse-port"])
def test_a_taken_port_is_refused(up: Up, tmp_path: Path, option: str) -> None:
    ports = {"--kafka-port": find_free_port(), "--clickhouse-port": find_free_port()}
    ports[option] = up.kafka_port
    code, _, err = run(tmp_path / "other", "up", *(str(part) for pair in ports.items() for part in pair))
    assert code == 2
    assert f"{option}: port {up.kafka_port} is taken" in err
    assert "Traceback" not in err
    assert not (tmp_path / "other" / "endpoints.json").exists()


def test_a_killed_role_comes_back(up: Up) -> None:
    before = up.find("driftloop.roles notify")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: up.find("driftloop.roles notify") not in (None, before), 30.0, "notify to come back")
    wait_until(lambda: "notify ended (signal SIGKILL)" in up.output.read_text(), 10.0, "the restart to be said")


@pytest.fixture(scope="module")
def replayed(up: Up) -> truth.Truth:
    """A small stream of known truth, applied and replayed by the commands."""
    known = truth.make_truth(num_windows=3, rows_per_window=400)
    truth.write_truth(known, up.data / "files")
    code, out, err = run(up.data, "apply", "files/credit.yaml", folder=up.data)
    assert code == 0, err
    assert "credit, spec version 1: 3 features, 4000 reference rows, in force for all times" in out
    code, out, err = run(up.data, "apply", "files/credit.yaml", folder=up.data)
    assert (code, out) == (0, "credit, spec version 1: nothing changed\n"), err
    code, out, err = run(up.data, *REPLAY, "--json", folder=up.data)
    assert code == 0, err
    (sent,) = json.loads(out)
    assert (sent["records"], sent["predictions"], sent["labels"]) == (1_200, 1_200, 1_200)
    return known


REPLAY = (
    "replay", "files/stream.parquet", "--model", "credit", "--time-column", "ts", "--id-column", "id",
    "--score-column", "y_proba", "--prediction-column", "y_pred", "--label-column", "repaid",
    "--label-delay", "500s", "--drain", "--timeout", "3m",
)  # fmt: skip


def read_json(up: Up, *arguments: str) -> Any:
    code, out, err = run(up.data, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_what_was_replayed_is_measured_as_it_is_known(up: Up, replayed: truth.Truth) -> None:
    query = """
        SELECT toUnixTimestamp64Milli(window_start) AS start, segment, kind, feature, metric, value
        FROM measurements_now WHERE model = 'credit'
    """
    found = {
        (row["start"], row["segment"], row["kind"], row["feature"], row["metric"]): row["value"]
        for row in read_json(up, "sql", query)
    }
    differences = truth.compare(truth.compute_expected(replayed), found)
    assert not differences, "\n".join(differences[:20])


def test_replaying_again_doubles_nothing(up: Up, replayed: truth.Truth) -> None:
    code, out, err = run(up.data, *REPLAY, folder=up.data)
    assert code == 0, err
    assert out.startswith("sent 1200 records, 1200 predictions and 1200 labels of credit")
    assert out.rstrip().endswith("all measured")
    for table in ("records", "predictions", "labels"):
        assert read_json(up, "sql", f"SELECT count() AS num FROM {table}") == [{"num": 1_200}]


def test_status_tells_how_far_everything_is(up: Up, replayed: truth.Truth) -> None:
    (facts,) = read_json(up, "status")
    assert {place["topic"] for place in facts["partitions"]} == {"records", "predictions", "labels"}
    assert len(facts["partitions"]) == 12
    assert all(place["sink_lag"] == place["monitor_lag"] == 0 for place in facts["partitions"])
    (model,) = facts["models"]
    assert (model["model"], model["spec_version"], model["open_windows"]) == ("credit", 1, 0)
    assert facts["jobs"] == []


def test_models_and_alerts_tell_the_models_health(up: Up, replayed: truth.Truth) -> None:
    (model,) = read_json(up, "models")
    assert (model["model"], model["metric"], model["model_version"]) == ("credit", "roc_auc", "external")
    assert model["realized"] is not None
    alerts = read_json(up, "alerts")
    assert len(alerts) == model["num_open_alerts"]
    # The second half of the stream drifts in its features.
    assert any(alert["rule"] == "drift" for alert in read_json(up, "alerts", "--all"))
    # People read when a window began, programs its milliseconds.
    start_ms = read_json(up, "alerts", "--all")[0]["window_start"]
    code, out, err = run(up.data, "alerts", "--all")
    assert code == 0, err
    assert datetime.fromtimestamp(start_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S") in out
    assert read_json(up, "jobs") == []
    assert read_json(up, "models", "credit") == []
    (told,) = read_json(up, "retrain", "--explain", "credit")
    assert (told["asks"], told["verdict"]) == (False, "its spec has no section retrain, so nothing is retrained")


def test_topics_and_doctor_find_nothing_to_do(up: Up) -> None:
    assert run(up.data, "topics", "diff")[:2] == (0, "the cluster matches\n")
    findings = read_json(up, "doctor")
    assert [finding["name"] for finding in findings if not finding["ok"]] == []


def test_mistakes_against_a_running_system_are_one_line(up: Up, replayed: truth.Truth) -> None:
    for arguments, said in (
        (("replay", "files/stream.parquet", "--model", "credits"), "no model 'credits'. Did you mean 'credit'?"),
        (("replay", "files/nothing.csv", "--model", "credit"), "files/nothing.csv: there is no such file"),
        (("replay", "files/stream.parquet", "--model", "credit", "--label-column", "truth"), "no column 'truth'"),
        (("retrain", "credit"), "the spec of credit has no retrain section"),
        (("retrain", "--verify", "nope"), "there is no job 'nope'"),
        (("subscribe", "--remove", "nobody"), "there is no subscription 'nobody'"),
        (("sql", "SELECT nothing FROM records"), "nothing"),
    ):
        code, out, err = run(up.data, *arguments, folder=up.data)
        assert (code, out) == (2, ""), arguments
        assert said in err
        assert err.count("\n") == 1, err


def test_a_wrong_query_for_the_reference_is_a_users_mistake(up: Up, tmp_path: Path) -> None:
    spec = tmp_path / "other.yaml"
    spec.write_text("model: other\ntask: binary\nreference: {sql: SELECT nothing FROM records}\nwindows: {size: 1h}\n")
    code, _, err = run(up.data, "apply", str(spec))
    assert code == 2
    assert "reference.sql" in err
    assert "Traceback" not in err


# Last in this file: it ends the process that the others use.
def test_sigterm_ends_it_and_all_that_it_started(up: Up) -> None:
    descendants = find_descendants(up.process.pid)
    assert len(descendants) >= 2 + len(ROLES)
    began_s = time.monotonic()
    up.process.terminate()
    # What is promised is ten seconds; a machine that tests load gets as many again.
    assert up.process.wait(2 * STOP_S) == 0
    print(f"stopped in {time.monotonic() - began_s:.1f} s")
    wait_until(gone(descendants), 2.0, "every process to be gone")
    assert up.output.read_text().rstrip().endswith("stopped")
    assert not (up.data / "endpoints.json").exists()


def gone(pids: set[int]) -> Callable[[], bool]:
    return lambda: not any(runs(pid) for pid in pids)
