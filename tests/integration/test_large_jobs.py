"""A job whose rows do not fit into the memory that it declares: they pass through it in blocks; on real servers."""

from __future__ import annotations

import pytest

from schemas.spec import FeatureSpec, ResourceSpec, RetrainSpec, TrainingSpec
from tests.retraining import (  # noqa: F401
    SIZE_MS,
    START,
    START_MS,
    World,
    bootstrap,
    clickhouse_url,
    start,
    wait_until,
    world,
)

pytestmark = pytest.mark.timeout(600)

NUM_ROWS, NUM_NUMBERS = 3_000_000, 10
# The process has some 1,400 MiB of addresses before it has read a row (300 MiB are used), and these count. The rows
# would take 400 MiB as columns in memory, and more than as much again while they are read and encoded.
MEMORY_BYTES = 1_750 << 20


def test_job_needs_memory_for_a_block_of_rows_not_for_all(world: World, start: START) -> None:
    fill(world)
    for number in (2, 3):
        world.store_window(number, share_labelled=1.0)
    names = [f"n{place}" for place in range(NUM_NUMBERS)]
    training = TrainingSpec(epochs=1, early_stopping="none")
    retrain = RetrainSpec(resources=ResourceSpec(memory_bytes=MEMORY_BYTES), training=training, architecture="linear")
    features = dict.fromkeys(names, FeatureSpec(type="number"))
    world.publish_spec(version=2, changed={"retrain": retrain, "features": features})
    start("train")
    job_id = world.request(manual=True)
    wait_until(lambda: world.job(job_id).get("state") in ("promoted", "rejected", "failed"), 400, "the job to end")
    job = world.job(job_id)
    assert job["state"] != "failed", job["reason"]
    assert job["num_train_rows"] >= NUM_ROWS
    ((peak,),) = world.ch.query("SELECT peak_memory_bytes FROM jobs")
    assert 100 << 20 < peak < 800 << 20


def fill(world: World) -> None:
    """Let the server make the rows of the first two windows, and their labels."""
    numbers = ", ".join(f"'n{place}', rand({place}) / 4294967295" for place in range(NUM_NUMBERS))
    shared = (
        f"'{world.model}', concat('many', toString(number)), "
        f"fromUnixTimestamp64Milli(toInt64({START_MS} + number * {2 * SIZE_MS} / {NUM_ROWS}), 'UTC'), "
        "'bench', '00000000-0000-0000-0000-000000000001', toUInt32(0), number"
    )
    for table, column, value in (
        ("records", "features", f"map({numbers})"),
        ("labels", "label", "toFloat64(rand(77) % 2)"),
    ):
        world.ch.command(
            f"INSERT INTO {table} (model, record_id, ts, topic, topic_id, partition, offset, {column}) "
            f"SELECT {shared}, {value} FROM numbers({NUM_ROWS})"
        )
