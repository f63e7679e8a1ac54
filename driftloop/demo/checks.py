"""Holds the facts in ClickHouse against what the demo promises. Each promise is one line, kept or broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from driftloop.demo import truths
from measures.performance import measure_performance
from measures.sampling import recalibrate_two_fold
from store.client import ClickHouse
from store.events import read_labelled
from store.overview import read_alert_changes, read_drift, read_jobs, read_primary


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise of the demo, what was found, and whether it is kept."""

    text: str
    found: str
    kept: bool


@dataclass(frozen=True, slots=True)
class Grid:
    """Window numbers of the demo: window k begins at first_ms + k · size_ms."""

    first_ms: int
    size_ms: int

    def number(self, window_start_ms: int) -> int:
        return (window_start_ms - self.first_ms) // self.size_ms

    def start(self, number: int) -> int:
        return self.first_ms + number * self.size_ms


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Old model and new champion on the same labelled rows."""

    old_auc: float
    new_auc: float
    old_log_loss_recalibrated: float
    new_log_loss: float
    num_rows: int


class Facts:
    """What ClickHouse says of one model, by window number."""

    def __init__(self, store: ClickHouse, model: str, grid: Grid) -> None:
        self.primary = read_primary(store, model, "roc_auc")
        self.drift = read_drift(store, model)
        self.alerts = read_alert_changes(store, model)
        self.jobs = read_jobs(store, model)
        self.grid = grid

    def values(self, kind: str, version: str = "external") -> dict[int, float]:
        return {
            self.grid.number(row["window_start"]): row["value"]
            for row in self.primary
            if row["kind"] == kind and row["model_version"] == version and row["value"] is not None
        }

    def harmed(self, kind: str, version: str = "external") -> list[int]:
        """Windows whose status is alert."""
        return sorted(
            self.grid.number(row["window_start"])
            for row in self.primary
            if row["kind"] == kind and row["model_version"] == version and row["status"] == "alert"
        )

    def changes(self, rule: str, state: str) -> list[dict[str, Any]]:
        return [row for row in self.alerts if row["rule"] == rule and row["state"] == state]

    def windows_of(self, rows: Sequence[dict[str, Any]]) -> list[int]:
        return [self.grid.number(row["window_start"]) for row in rows]


def check_employment(facts: Facts) -> Iterator[Promise]:
    harmed = list(truths.EMPLOYMENT_HARMED)
    realized, estimated = facts.values("performance"), facts.values("estimate")
    yield Promise(
        "employment: every one of 42 windows is measured, realized and estimated",
        f"{len(realized)} realized, {len(estimated)} estimated",
        len(realized) == len(estimated) == truths.EMPLOYMENT_WINDOWS,
    )
    for kind, values, expected in (
        ("performance", realized, truths.EMPLOYMENT_REALIZED),
        ("estimate", estimated, truths.EMPLOYMENT_ESTIMATED),
    ):
        found = {number: round(values.get(number, np.nan), 4) for number in expected}
        yield Promise(f"employment: {kind} of windows 27 and 28 as known", str(found), found == expected)
        yield Promise(
            f"employment: {kind} has status alert at 27 and 28 only",
            str(facts.harmed(kind)),
            facts.harmed(kind) == harmed,
        )
    relp = {
        facts.grid.number(row["window_start"]): row["value"] for row in facts.drift if row["feature"] == "RELP"
    }  # fmt: skip
    after = [value for number, value in relp.items() if number >= truths.EMPLOYMENT_DRIFT_FROM]
    before = [value for number, value in relp.items() if number < truths.EMPLOYMENT_DRIFT_FROM]
    yield Promise(
        "employment: RELP drifts from window 14 on, and not before",
        f"at most {max(before, default=np.nan):.3f} before, at least {min(after, default=np.nan):.3f} after",
        bool(before and after) and max(before) < 0.1 <= min(after),
    )
    notes = facts.changes("drift", "firing")
    at_14 = [row for row in notes if facts.grid.number(row["window_start"]) == truths.EMPLOYMENT_DRIFT_FROM]
    yield Promise(
        "employment: the harmless drift at 14 is a note (severity info) about RELP",
        "; ".join(
            f"window {facts.grid.number(row['window_start'])}: {row['feature']}, {row['severity']}" for row in notes
        ),
        bool(at_14) and all(row["feature"] == "RELP" and row["severity"] == "info" for row in at_14),
    )
    fired, resolved = facts.changes("harm", "firing"), facts.changes("harm", "resolved")
    yield Promise(
        "employment: one harm alert, fired at window 27 and resolved at 29",
        f"fired {facts.windows_of(fired)}, resolved {facts.windows_of(resolved)}",
        facts.windows_of(fired) == [27] and facts.windows_of(resolved) == [29],
    )
    yield Promise(
        "employment: the alert's reason names the composition (RELP) as evidence",
        fired[0]["reason"] if fired else "no alert",
        bool(fired) and "RELP" in fired[0]["reason"],
    )
    yield from check_job(facts, "employment", state="rejected", train_to=28, gate=28)


def check_car_loan(facts: Facts, both: SideBySide | None) -> Iterator[Promise]:
    harmed = list(truths.CAR_LOAN_HARMED)
    for kind, known, tolerance in (
        ("performance", truths.CAR_LOAN_REALIZED, 1e-6),
        ("estimate", truths.CAR_LOAN_ESTIMATED, 1e-4),
    ):
        values = facts.values(kind)
        found = [values.get(number, np.nan) for number in range(truths.CAR_LOAN_WINDOWS)]
        worst = float(np.max(np.abs(np.array(found) - np.array(known))))
        yield Promise(
            f"car loan: {kind} of all ten windows equals the known values to {tolerance:g}",
            f"largest difference {worst:.1e}",
            worst <= tolerance,
        )
        yield Promise(
            f"car loan: the old model's {kind} has status alert at 5 to 9 only",
            str(facts.harmed(kind)),
            facts.harmed(kind) == harmed,
        )
    fired, resolved = facts.changes("harm", "firing"), facts.changes("harm", "resolved")
    yield Promise(
        "car loan: one harm alert, fired at window 5 and resolved at the new champion's first good labelled window, 8",
        f"fired {facts.windows_of(fired)}, resolved {facts.windows_of(resolved)}",
        facts.windows_of(fired) == [5] and facts.windows_of(resolved) == [8],
    )
    yield Promise(
        "car loan: the harm alert has a stored report (driftloop report car_loan --alert ID)",
        f"{sum(row['has_report'] for row in fired)} of {len(fired)}",
        bool(fired) and all(row["has_report"] for row in fired),
    )
    yield from check_job(facts, "car loan", state="promoted", train_to=6, gate=6)
    yield Promise(
        "car loan: on windows 8 and 9 the new champion beats the old model, in AUC and in log loss (recalibrated)",
        "no champion" if both is None else
        f"AUC {both.new_auc:.4f} against {both.old_auc:.4f}, "
        f"log loss {both.new_log_loss:.4f} against {both.old_log_loss_recalibrated:.4f}, {both.num_rows} rows",
        both is not None
        and both.num_rows == 2 * truths.ROWS
        and both.new_auc - both.old_auc >= truths.CAR_LOAN_GAIN_MIN
        and both.new_log_loss < both.old_log_loss_recalibrated,
    )  # fmt: skip


def check_job(facts: Facts, name: str, state: str, train_to: int, gate: int) -> Iterator[Promise]:
    jobs = facts.jobs
    found = [
        f"{row['state']}, trained on windows 0 to {facts.grid.number(row['train_to']) - 1}, "
        f"gated on {facts.grid.number(row['gate_from'])} to {facts.grid.number(row['gate_to']) - 1}"
        for row in jobs
    ]
    kept = (
        len(jobs) == 1
        and jobs[0]["state"] == state
        and facts.grid.number(jobs[0]["train_to"]) == train_to
        and facts.grid.number(jobs[0]["gate_from"]) == gate
        and facts.grid.number(jobs[0]["gate_to"]) == gate + 1
    )
    yield Promise(
        f"{name}: one retraining, trained on windows 0 to {train_to - 1} and gated on {gate}, {state}",
        "; ".join(found) or "none",
        kept,
    )


def compare_side_by_side(store: ClickHouse, model: str, version: str, start_ms: int, end_ms: int) -> SideBySide | None:
    """Old model and a version on the labelled rows of [start, end); None where the version scored nothing."""
    old = read_labelled(store, model, "external", start_ms, end_ms).to_pandas().set_index("record_id")
    new = read_labelled(store, model, version, start_ms, end_ms).to_pandas().set_index("record_id")
    joined = old[["score", "label"]].join(new[["score"]], rsuffix="_new", how="inner").dropna()
    if joined.empty:
        return None
    labels = joined["label"].to_numpy(float)
    before, after = joined["score"].to_numpy(float), joined["score_new"].to_numpy(float)
    metrics = ["roc_auc", "log_loss"]
    old_values = measure_performance("binary", labels, scores=before, metrics=["roc_auc"])
    fair = measure_performance("binary", labels, scores=recalibrate_two_fold(labels, before), metrics=["log_loss"])
    new_values = measure_performance("binary", labels, scores=after, metrics=metrics)
    return SideBySide(
        old_values["roc_auc"], new_values["roc_auc"], fair["log_loss"], new_values["log_loss"], len(joined)
    )
