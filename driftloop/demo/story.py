"""Tells what happens while it happens: a line a window, and one for every alert and step of a job."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from driftloop.replay.driver import Progress, Step
from schemas.connections import ClickHouseConnection
from schemas.errors import Retryable
from store.client import ClickHouse
from store.overview import read_alert_changes, read_drift, read_jobs, read_primary

POLL_S = 0.3
JOB_STYLES = {"promoted": "bold green", "rejected": "bold yellow", "failed": "bold red"}
SEVERITY_STYLES = {"info": "cyan", "low": "yellow", "high": "bold red", "critical": "bold red"}


class Story:
    """Prints facts as ClickHouse has them; each once. `follow` runs until `close`."""

    def __init__(self, connection: ClickHouseConnection, console: Console, models: dict[str, int], first_ms: int,
                 size_ms: int) -> None:  # fmt: skip
        self.store = ClickHouse(connection)
        self.console = console
        self.num_windows = models
        self.first_ms, self.size_ms = first_ms, size_ms
        self.began = datetime.now(UTC)
        self._told: set[Any] = set()
        self._printing = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self.follow, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join(timeout=10)
        self.tell_changes()
        self.store.close()

    def follow(self) -> None:
        while not self._closing.wait(POLL_S):
            try:
                self.tell_changes()
            except Retryable:
                continue  # the supervisor starts the store again

    def elapsed_s(self) -> float:
        return (datetime.now(UTC) - self.began).total_seconds()

    def say(self, model: str, text: str, style: str | None = None) -> None:
        with self._printing:
            self.console.print(f"{self.elapsed_s():6.1f} s  {model:<11} {text}", style=style, soft_wrap=True)

    def number(self, window_start_ms: int) -> int:
        return (window_start_ms - self.first_ms) // self.size_ms

    def tell_step(self, model: str, step: Step, _progress: Progress) -> None:
        """One line for the window that ended: what the estimate says of it, and the labels of the one before."""
        start_ms = step.end_ms - self.size_ms
        number = self.number(start_ms)
        if number >= self.num_windows[model]:
            return
        primary = read_primary(self.store, model, "roc_auc")
        drifted = [row for row in read_drift(self.store, model, start_ms) if row["value"] >= row["threshold"]]
        parts = []
        for row in primary:
            if row["value"] is None or row["status"] in ("too_few_rows", "partial"):
                continue
            kind = "estimated" if row["kind"] == "estimate" else "realized"
            if (kind, row["window_start"]) in (("estimated", start_ms), ("realized", start_ms - self.size_ms)):
                version = "" if row["model_version"] == "external" else f" by version {row['model_version']}"
                mark = "[red]" if row["status"] == "alert" else "[green]"
                of = "" if kind == "estimated" else f" of window {number - 1}"
                parts.append(f"{kind} AUC{of}{version} {mark}{row['value']:.4f}[/]")
        drift = f"; drifted: {drifted[0]['feature']} {drifted[0]['value']:.2f}" if drifted else ""
        self.say(model, f"window {number:>2} of {self.num_windows[model]}: {', '.join(parts) or 'measured'}{drift}")

    def tell_changes(self) -> None:
        for row in read_alert_changes(self.store):
            if row["transition_id"] not in self._told:
                self._told.add(row["transition_id"])
                what = "note" if row["severity"] == "info" else "ALERT"
                self.say(
                    row["model"],
                    f"{what} {row['state']} ({row['rule']}, severity {row['severity']}) at window "
                    f"{self.number(row['window_start'])}: {row['reason']}",
                    "green" if row["state"] == "resolved" else SEVERITY_STYLES[row["severity"]],
                )
        for row in read_jobs(self.store):
            words = row["verdict"] if row["state"] in JOB_STYLES else row["reason"]
            if row["state"] == "running":
                words = (
                    f"learns from windows {self.number(row['train_from'])} to {self.number(row['train_to']) - 1}, "
                    f"is judged on window {self.number(row['gate_from'])}"
                )
            fact = (row["job_id"], row["state"], words[:60])
            if fact not in self._told:
                self._told.add(fact)
                self.say(row["model"], f"retraining {row['state']}: {words}", JOB_STYLES.get(row["state"], "magenta"))
