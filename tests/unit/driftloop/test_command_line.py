"""What people see of the command: help with examples, one clear line for a mistake, exit codes, never a traceback."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from driftloop import cli
from driftloop.commands import load_command

ROOT = Path(__file__).resolve().parents[3]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, closed_port: int) -> Run:
    """Runs the command in this process, nothing listening anywhere: (exit code, stdout, stderr)."""
    monkeypatch.setenv("DRIFTLOOP_CLICKHOUSE_URL", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("DRIFTLOOP_KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{closed_port}")

    def run_command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["driftloop", "--data", str(tmp_path / "data"), *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return code, captured.out, captured.err

    return run_command


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_an_example(run: Run, name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert f"Example:  driftloop {'--data' if name == 'up' else name}" in out
    assert load_command(name).get_short_help_str()


def test_subcommands_have_help_too(run: Run) -> None:
    group = load_command("topics")
    assert isinstance(group, click.Group)
    for name in group.commands:
        code, out, _ = run("topics", name, "--help")
        assert code == 0
        assert out


def test_the_list_of_commands_says_what_each_is_for(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for name in cli.COMMANDS:
        assert f"\n  {name} " in out


BAD_SPEC = "model: fraud\ntask: binary\nreference: r.csv\nwindows: {size: 1h, sise: 2}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["status", "--jsn"], "No such option"),
        (["replay", "x.csv"], "Missing option '--model'"),
        (["replay", "x.csv", "--model", "m", "--interval", "soon"], "'soon' is not a duration"),
        (["replay", "x.csv", "--model", "m", "--speed", "fast"], "'fast' is not a speed"),
        (["up", "--kafka-port", "70000"], "70000 is not in the range"),
        (["apply", "nothing.yaml"], "nothing.yaml: there is no such file"),
        (["apply", "bad.yaml"], "bad.yaml:4: windows"),
        (["init", "nothing.csv"], "nothing.csv: there is no such file"),
        (["init", "data.csv", "--label-column", "truth"], "data.csv: there is no column 'truth'"),
        (["init", "data.txt"], "files of type '.txt' are not known"),
        (["subscribe"], "--url: say where to deliver to"),
    ],
)
def test_a_users_mistake_is_one_clear_line_and_exit_code_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(BAD_SPEC)
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    (tmp_path / "data.txt").write_text("a,b\n1,2\n")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    # click shows how a command is used; our own messages are one line.
    assert err.startswith("Usage:") or err.count("\n") == 1


def test_a_wrong_variable_is_a_users_mistake(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_CLICKHOUSE_URL", "localhost")
    code, _, err = run("sql", "SELECT 1")
    assert code == 2
    assert err.startswith("driftloop: DRIFTLOOP_CLICKHOUSE_URL: 'localhost' is not the address")


@pytest.mark.parametrize("arguments", [["sql", "SELECT 1"], ["models", "--json"]])
def test_clickhouse_that_is_down_is_said_and_exit_code_1(run: Run, closed_port: int, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert f"ClickHouse at http://127.0.0.1:{closed_port} is not reachable" in err
    assert "driftloop up" in err


@pytest.mark.parametrize("arguments", [["topics", "diff"], ["retrain", "fraud"]])
def test_kafka_that_is_down_is_said_and_exit_code_1(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert "driftloop up" in err


def test_doctor_goes_on_when_everything_is_down(run: Run) -> None:
    code, out, _ = run("doctor")
    assert code == 1
    found = {line.split()[1]: line.split()[0] for line in out.splitlines() if not line.startswith(" ")}
    assert found == {"kafka": "FAIL", "topics": "FAIL", "clickhouse": "FAIL", "clock": "FAIL", "gpu": "ok"}


def test_a_process_says_nothing_beside_the_message(tmp_path: Path, closed_port: int) -> None:
    """As in a shell: no log line of a library, no warning."""
    command = [sys.executable, "-m", "driftloop", "--data", str(tmp_path), "alerts"]
    environment = {"PATH": "/usr/bin:/bin", "DRIFTLOOP_CLICKHOUSE_URL": f"http://127.0.0.1:{closed_port}"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=environment)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert [line.split()[0] for line in ended.stderr.splitlines()] == ["driftloop:", "Is"]
