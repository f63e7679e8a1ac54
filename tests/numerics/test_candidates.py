"""On some data old rows help and on some they hurt: the choice, by real training, is the right one on both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from retrain.candidates import choose_rows, cross_validate, make_measure
from retrain.device import pin_threads
from retrain.order import JobReport, NetworkTrained, Resumed
from retrain.snapshot import Snapshot, build_snapshot
from schemas.spec import DataSpec, ModelSpec, parse_spec
from tests.learners import make_learner

CHANGE = 1_000_000
SPEC = """
model: codes
task: binary
reference: r.parquet
windows: {size: 1h}
features: {code: category, amount: number, other: number}
retrain: {}
"""


def make_rows(num_before: int, num_after: int, *, are_codes_swapped: bool) -> tuple[Snapshot, ModelSpec]:
    """Labels follow a code and two numbers; after the change the codes may mean each other."""
    spec = parse_spec(SPEC, "codes.yaml")
    rng = np.random.default_rng(5)
    num_rows = num_before + num_after
    after = np.arange(num_rows) >= num_before
    code = rng.integers(0, 2, num_rows)
    amount, other = rng.normal(size=(2, num_rows))
    logit = 3.0 * (2 * code - 1) + amount * other * 2
    shown = np.where(after & are_codes_swapped, 1 - code, code)
    table = pa.table(
        {
            "record_id": [f"r{place:06}" for place in range(num_rows)],
            "ts": pa.array(CHANGE - num_before + np.arange(num_rows), pa.timestamp("ms", "UTC")),
            "f:amount": amount,
            "f:other": other,
            "t:code": np.where(shown == 1, "A", "B"),
            "label": (rng.random(num_rows) < 1 / (1 + np.exp(-logit))).astype(np.float64),
            "label_text": pa.nulls(num_rows, pa.string()),
        }
    )
    return build_snapshot([table], "binary", spec.features, 0, CHANGE + num_after), spec


def choose(rows: Snapshot, spec: ModelSpec, folder: Path) -> tuple[str, dict[str, float], list[JobReport]]:
    pin_threads()
    reports: list[JobReport] = []
    measure = make_measure(make_learner(spec, folder, reports.append), "binary")
    _, choice = choose_rows(rows, CHANGE, DataSpec(), "binary", 1, measure)
    return choice.window, choice.losses, reports


def test_where_codes_were_swapped_old_rows_hurt(tmp_path: Path) -> None:
    window, losses, _ = choose(*make_rows(4000, 1000, are_codes_swapped=True), tmp_path)
    assert window == "after_change"
    assert losses["after_change_log_loss"] < losses["all_log_loss"] - 0.1


def test_where_nothing_but_the_time_changed_old_rows_help(tmp_path: Path) -> None:
    window, losses, _ = choose(*make_rows(4000, 500, are_codes_swapped=False), tmp_path)
    assert window == "all"
    assert losses["all_log_loss"] < losses["after_change_log_loss"]


def test_a_candidate_that_an_earlier_attempt_has_trained_is_measured_again_and_not_trained(tmp_path: Path) -> None:
    rows, spec = make_rows(800, 600, are_codes_swapped=True)
    first = choose(rows, spec, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("**/*.safetensors")}
    second = choose(rows, spec, tmp_path)
    assert second[:2] == first[:2]
    assert [type(report) for report in first[2]] == [NetworkTrained] * 2
    assert [type(report) for report in second[2]] == [Resumed, NetworkTrained] * 2
    for before, after in zip(second[2][::2], second[2][1::2], strict=True):
        assert isinstance(before, Resumed)
        assert isinstance(after, NetworkTrained)
        # Behind the last epoch of its last phase there is nothing to train.
        assert (before.training, before.phase, before.num_epochs) == (after.training, "final", after.num_epochs)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("**/*.safetensors")} == files
    assert len(files) == 2


def test_folds_show_when_the_world_changed(tmp_path: Path) -> None:
    """The block after the change is the one that training on the blocks before it does badly on."""
    rows, spec = make_rows(3000, 1000, are_codes_swapped=True)
    found = cross_validate(rows, 3, "binary", make_measure(make_learner(spec, tmp_path), "binary"))
    assert found["fold_3_log_loss"] > 2 * max(found["fold_1_log_loss"], found["fold_2_log_loss"])
