"""A request becomes a job, the job a version, the version the champion, and the scorer follows: on real servers."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from retrain.trained_model import Choice
from retrain.verification import find_job, verify_job
from schemas.events import RoleMap
from schemas.spec import ModelHistory, QuietHoursSpec, RetrainSpec
from store.artifacts import ArtifactFolder
from store.log import TopicReader, publish_roles
from store.reference import read_reference
from store.versions import read_version
from tests.retraining import (  # noqa: F401 - fixtures
    ROWS,
    SIZE_MS,
    START,
    START_MS,
    World,
    bootstrap,
    clickhouse_url,
    make_rows,
    read_events,
    start,
    wait_until,
    world,
)

# Two trainings and several processes with torch in them; a busy machine takes minutes.
pytestmark = pytest.mark.timeout(900)


def read_predictions(world: World) -> list[tuple[bytes | None, dict[str, object]]]:
    reader = TopicReader(world.runtime.kafka, world.runtime.topics("predictions"))
    found = [(message.key, msgspec.json.decode(message.value or b"")) for message in reader.read_to_end(20)]
    reader.close()
    return found


class _Chosen(msgspec.Struct):
    choice: Choice


def test_request_waits_trains_promotes_and_the_scorer_swaps(world: World, start: START) -> None:
    start("train")
    scorer = start("score")
    for number in (0, 1):
        world.store_window(number, share_labelled=1.0)
    world.store_window(2)
    job_id = world.request()

    # It waits, says for what, and a repeated request changes nothing.
    wait_until(lambda: "0.00 of 0.90 labelled" in str(world.job(job_id).get("reason")), 60, "the job to wait")
    assert str(world.job(job_id)["reason"]).startswith("waits until window 2025-12-29T09:53:20.000Z is labelled")
    assert world.request() == job_id
    world.label_window(2)
    world.store_window(3, share_labelled=0.5)
    wait_until(lambda: "(0.50 of 0.90 labelled)" in str(world.job(job_id).get("reason")), 60, "the job to wait on")
    assert "is labelled to gate on; 2025-12-29T09:53:20.000Z to train on is labelled" in str(
        world.job(job_id)["reason"]
    )

    # No champion of ours yet: records are passed over.
    passed_over = world.send_records(3)
    world.label_window(3)
    wait_until(lambda: world.job(job_id)["state"] not in ("waiting", "running"), 300, "the job to end")
    job = world.job(job_id)
    assert job["state"] == "promoted", job
    assert (job["version"], job["num_train_rows"], job["num_gate_rows"]) == ("1", 3 * ROWS, ROWS)
    assert str(job["verdict"]).startswith("Passed: AUC 0.")

    # Every step is on the log, in order, and a row.
    kinds = [event.type for event in read_events(world, job_id) if event.type != "heartbeat"]
    steps = list(dict.fromkeys(kinds))
    assert steps == ["claimed", "waiting", "started", "trained", "epoch", "evaluated", "promoted"]
    trained = [event.detail["training"] for event in read_events(world, job_id) if event.type == "trained"]
    assert trained == ["all", "after_change", "challenger"]
    assert kinds.count("claimed") == kinds.count("started") == kinds.count("promoted") == 1
    assert world.ch.query("SELECT count() FROM epochs")[0][0] == kinds.count("epoch") > 2
    roles = world.ch.query("SELECT role, version, epoch, toUnixTimestamp64Milli(at), job_id FROM roles ORDER BY role")
    at = START_MS + 4 * SIZE_MS
    assert roles == [("champion", "1", 1, at, job_id), ("shadow", "external", 1, at, job_id)]

    # The alert says when the world changed: both kinds of rows were tried, and the card says which was better.
    made = read_version(world.ch, world.model, "1")
    assert made is not None
    choice = msgspec.json.decode(made.manifest, type=_Chosen).choice
    assert choice.words in made.card
    assert "on 450 later rows that neither had seen" in choice.words
    assert {"candidate_all_log_loss", "candidate_after_change_log_loss"} <= set(made.metrics)

    # Read again, the rows are the same; with one label corrected they are not.
    row = find_job(world.ch, job_id)
    history = ModelHistory([world.make_spec(RetrainSpec())])
    verified = verify_job(world.ch, row, history)
    assert verified.is_same
    assert [(each.found == each.recorded, each.num_rows) for each in verified.uses] == [(True, 3 * ROWS), (True, ROWS)]
    world.correct_label(3)
    verified = verify_job(world.ch, row, history)
    assert not verified.is_same
    assert [each.found == each.recorded for each in verified.uses] == [True, False]

    # The version's reference is the gate rows, scored by it.
    version = read_version(world.ch, world.model, "1")
    assert version is not None
    reference = read_reference(world.ch, version.reference_hash)
    gate = make_rows(3)
    assert np.array_equal(reference["label"], gate.label)
    assert reference["amount"].tolist() == gate.amount.tolist()
    assert reference["country"].tolist() == gate.country
    assert roc_auc_score(gate.label, reference["score"]) == pytest.approx(version.metrics["roc_auc"], abs=1e-12)
    assert set(ArtifactFolder(world.runtime.artifacts).read(version.uri, version.sha256)) == {
        "model.safetensors",
        "manifest.json",
        "README.md",
        "card.json",
    }

    # Records sent after the promotion are scored, each once; those before were passed over.
    sent = world.send_records(4)
    wait_until(lambda: len(read_predictions(world)) >= len(sent), 60, "the predictions")
    predictions = read_predictions(world)
    assert not set(passed_over) & {event["record_id"] for _, event in predictions}
    assert sorted(str(event["record_id"]) for _, event in predictions) == sorted(sent)
    rows = make_rows(4)
    by_id = {event["record_id"]: event for _, event in predictions}
    assert all((key or b"").decode() == event["record_id"] for key, event in predictions)
    assert [by_id[record_id]["ts"] for record_id in rows.ids] == rows.ts.tolist()
    assert {event["model_version"] for event in by_id.values()} == {"1"}
    scores = [by_id[record_id]["score"] for record_id in rows.ids]
    assert roc_auc_score(rows.label, scores) > 0.8 > 0.6 > roc_auc_score(rows.label, rows.score)

    # Read again from the beginning, the same records get the same bytes.
    assert scorer.stop(60) == 0
    before = {event["record_id"]: event for _, event in predictions}
    _forget_offsets(world)
    start("score")
    everything = len(sent) * 2 + len(passed_over)
    wait_until(lambda: len(read_predictions(world)) >= everything, 60, "the predictions again")
    again = [event for _, event in read_predictions(world)[:] if event["record_id"] in before]
    assert all(event == before[event["record_id"]] for event in again)


def test_worse_challenger_is_refused_and_the_champion_stays(world: World, start: START) -> None:
    """Windows before the change: the old model is as good as any, so nothing may replace it."""
    for number in (0, 1):
        world.store_window(number, share_labelled=1.0)
    start("train")
    job_id = world.request(manual=True)
    wait_until(lambda: world.job(job_id).get("state") in ("promoted", "rejected", "failed"), 300, "the job to end")
    job = world.job(job_id)
    assert job["state"] == "rejected", job
    assert (job["num_train_rows"], job["num_gate_rows"]) == (ROWS, ROWS)
    assert "is not accepted because its gain in AUC is below 0.003" in str(job["verdict"])
    assert world.ch.query("SELECT count() FROM roles") == [(0,)]
    assert world.ch.query("SELECT version, job_id FROM versions") == [("1", job_id)]


def test_trainer_killed_in_the_middle_of_a_job_completes_it_once(world: World, start: START) -> None:
    for number in (0, 1, 2, 3):
        world.store_window(number, share_labelled=1.0)
    trainer = start("train")
    job_id = world.request()
    wait_until(lambda: world.ch.query("SELECT count() FROM epochs")[0][0] >= 1, 90, "the first epoch")
    trainer.kill()
    assert world.job(job_id)["state"] == "running"

    start("train")
    wait_until(lambda: world.job(job_id)["state"] not in ("waiting", "running"), 300, "the job to end")
    job = world.job(job_id)
    assert (job["state"], job["attempt"], job["version"]) == ("promoted", 2, "1")
    assert [event.type for event in read_events(world, job_id)].count("promoted") == 1
    assert world.ch.query("SELECT count() FROM versions") == [(1,)]
    assert world.ch.query("SELECT epoch, count() FROM roles GROUP BY epoch") == [(1, 2)]


def test_a_thousand_equal_requests_start_one_job(world: World, start: START) -> None:
    for number in (0, 1, 2, 3):
        world.store_window(number, share_labelled=1.0)
    start("train")
    job_id = world.request(num_times=1000)
    wait_until(lambda: world.job(job_id).get("state") == "promoted", 300, "the promotion")
    # Asked for again when it is over, it does not start again either: the next job behind them is taken in order.
    assert world.request(num_times=10) == job_id
    other = world.request(manual=True)
    wait_until(lambda: bool(world.job(other)), 60, "the request behind them")
    assert world.ch.query("SELECT job_id, attempt FROM jobs WHERE job_id != {other:String}", {"other": other}) == [
        (job_id, 1)
    ]
    assert [event.type for event in read_events(world, job_id)].count("started") == 1
    assert world.ch.query("SELECT count() FROM versions") == [(1,)]


def test_a_job_waits_for_the_end_of_quiet_hours(world: World, start: START) -> None:
    for number in (0, 1, 2, 3):
        world.store_window(number, share_labelled=1.0)
    now = datetime.now(UTC)
    begin, end = (f"{(now.hour + shift) % 24:02}:00" for shift in (-1, 2))
    quiet = RetrainSpec(quiet_hours=QuietHoursSpec(from_=begin, to=end))
    world.publish_spec(version=2, changed={"retrain": quiet})
    start("train")
    job_id = world.request()
    reason = f"waits for the end of the quiet hours at {end} (UTC)"
    wait_until(lambda: world.job(job_id).get("reason") == reason, 60, "the job to wait")
    # A changed spec holds for jobs that wait; without quiet hours it starts.
    world.publish_spec(version=3)
    wait_until(lambda: world.job(job_id)["state"] != "waiting", 60, "the job to start")


def test_lost_race_for_the_roles_is_decided_again(world: World, start: START) -> None:
    """Someone names the outside model champion by hand first: the job's map comes second, and takes the next epoch."""
    by_hand = RoleMap(model=world.model, epoch=1, roles={"champion": "external"}, at=0, changed_at=0, reason="by hand")
    assert publish_roles(world.runtime.kafka, world.runtime.topics, by_hand)
    assert not publish_roles(world.runtime.kafka, world.runtime.topics, by_hand)
    for number in (0, 1, 2, 3):
        world.store_window(number, share_labelled=1.0)
    start("train")
    job_id = world.request()
    wait_until(lambda: world.job(job_id).get("state") == "promoted", 300, "the promotion")
    roles = world.ch.query("SELECT epoch, role, version FROM roles ORDER BY epoch, role")
    assert roles == [(1, "champion", "external"), (2, "champion", "1"), (2, "shadow", "external")]


def _forget_offsets(world: World) -> None:
    from confluent_kafka import Consumer, TopicPartition

    group = world.runtime.topics("driftloop-score")
    consumer = Consumer(world.runtime.kafka.librdkafka(group_id=group, enable_auto_commit=False))
    topic = world.runtime.topics("records")
    consumer.commit(
        offsets=[TopicPartition(topic, partition, 0) for partition in range(world.runtime.num_partitions)],
        asynchronous=False,
    )
    consumer.close()
