"""Every report can be said in words, whatever of it is not known: a job must not end for want of a word."""

from __future__ import annotations

import pytest

from retrain.order import (
    BatchHalved,
    EpochTrained,
    JobInterrupted,
    JobReport,
    JobUnfit,
    NetworkTrained,
    ResourcesUsed,
    Resumed,
    Snapshotted,
    decode_report,
    describe_report,
    encode_line,
)

REPORTS: list[tuple[JobReport, str]] = [
    (Snapshotted(num_train_rows=5, num_gate_rows=2, data_hash="h", device="cpu"), "5 labelled rows to train on, 2"),
    (
        EpochTrained(epoch=1, loss=0.5, validation_loss=None, metric_name="roc_auc", metric=None, seconds=1.0),
        "epoch 1: loss 0.50000, 1.00 s",
    ),
    (
        EpochTrained(epoch=2, loss=0.5, validation_loss=0.25, metric_name="roc_auc", metric=0.75, seconds=1.0),
        "epoch 2: loss 0.50000, validation loss 0.25000, roc_auc 0.7500, 1.00 s",
    ),
    (NetworkTrained(num_epochs=3, seconds=2.0), "trained for 3 epochs in 2.00 s"),
    (NetworkTrained(training="fold_2", num_epochs=3, seconds=2.0), "fold_2: trained for 3 epochs in 2.00 s"),
    (Resumed(phase="search", num_epochs=4), "behind epoch 4 of phase search"),
    (BatchHalved(batch_rows=16, reason="no room"), "memory was short (no room): begins again with 16 rows a step"),
    (ResourcesUsed(cpu_seconds=1, gpu_seconds=0, peak_memory_bytes=1 << 21, peak_gpu_memory_bytes=0), "2 MiB at most"),
    (JobUnfit(reason="one class only"), "one class only"),
    (JobInterrupted(reason="away"), "away"),
]


@pytest.mark.parametrize(("report", "words"), REPORTS)
def test_a_report_comes_back_from_its_line_and_is_said_in_words(report: JobReport, words: str) -> None:
    assert decode_report(encode_line(report)) == report
    assert words in describe_report(report)
