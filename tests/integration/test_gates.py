"""Four challengers through the real pipeline: worse, equal, better but not for everybody, and better.

Only the last one is promoted. What makes them so is in the data alone; broker, store, trainer and training are real.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from retrain.card_facts import CARD_JSON, CardFacts
from schemas.spec import FairnessSpec, PromoteSpec, RetrainSpec
from store.artifacts import ArtifactFolder
from store.gates import Gate, read_gates
from store.log import TopicReader
from store.versions import read_version
from tests.brokers import make_broker
from tests.clickhouses import EmbeddedClickHouse
from tests.retraining import HARMED, ROWS, Rows, World, make_rows, wait_until
from tests.role_process import RoleProcess
from tests.roles_watch import RoleWatch, watching_roles

# Four trainings in processes with torch in them; a busy machine takes minutes.
pytestmark = pytest.mark.timeout(900)

GATE = HARMED + 1


def squash(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def draw(number: int, chances: np.ndarray) -> np.ndarray:
    return (np.random.default_rng(1000 + number).random(ROWS) < chances).astype(float)


def find_logit(rows: Rows, number: int) -> np.ndarray:
    return 2 * (rows.amount - (8 if number >= HARMED else 0))


def make_worse(number: int) -> Rows:
    """The old model is right, and the labels to learn from are noise: somebody labelled at random."""
    rows = make_rows(number)
    logit = find_logit(rows, number)
    label = draw(number, squash(logit if number == GATE else 0 * logit))
    return dataclasses.replace(rows, label=label, score=squash(logit))


def make_equal(number: int) -> Rows:
    """The old model says the true chances, so there is nothing to gain."""
    rows = make_rows(number)
    logit = find_logit(rows, number)
    return dataclasses.replace(rows, label=draw(number, squash(logit)), score=squash(logit))


def make_unequal(number: int) -> Rows:
    """As when it is better, but for one country whose labels hang on what only the old model sees."""
    rows = make_rows(number)
    rng = np.random.default_rng(2000 + number)
    country = rng.choice(["DE", "FR", "US"], ROWS, p=[0.5, 0.3, 0.2])
    hidden = 3 * rng.normal(size=ROWS)
    apart = country == "US"
    score = np.where(apart, squash(hidden), rows.score)
    label = np.where(apart, draw(number, squash(hidden)), rows.label)
    return dataclasses.replace(rows, country=country.tolist(), label=label, score=score)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, RoleWatch]]:
    """One broker, store and trainer for all four models, and a reader of the roles beside them."""
    folder = tmp_path_factory.mktemp("gates")
    clickhouse = EmbeddedClickHouse(folder / "clickhouse")
    clickhouse.start()
    broker = make_broker("embedded", folder / "broker")
    broker.start()
    world = World.make(broker.bootstrap, clickhouse.url, "gates", folder)
    trainer = RoleProcess("train", world.runtime, folder / "train.log")
    try:
        with watching_roles(world.runtime) as watch:
            yield world, watch
    finally:
        print(trainer.log)
        status = trainer.stop(60)
        world.ch.close()
        broker.stop()
        clickhouse.stop()
    assert status == 0


def retrain(shared: tuple[World, RoleWatch], name: str, rows: object, **changed: object) -> tuple[dict, list[Gate]]:
    """Store windows up to the gate, ask for a retraining, and wait for its end: the job and its gates."""
    world = dataclasses.replace(shared[0], model=name, rows=rows)
    world.publish_spec(changed={"segments": ["country"], **changed})
    for number in range(GATE + 1):
        world.store_window(number, share_labelled=1.0)
    job_id = world.request()
    ended = ("promoted", "rejected", "failed")
    wait_until(lambda: world.job(job_id).get("state") in ended, 300, f"the job of {name} to end")
    job = world.job(job_id)
    return {**job, "job_id": job_id}, read_gates(world.ch, name, str(job["version"]))


def list_failed(gates: list[Gate]) -> list[tuple[str, str]]:
    return [(gate.name, gate.segment) for gate in gates if not gate.passed]


def test_worse_challenger_is_refused(shared: tuple[World, RoleWatch]) -> None:
    job, gates = retrain(shared, "worse", make_worse)
    assert job["state"] == "rejected", job
    assert list_failed(gates)[:3] == [("calibration", ""), ("gain", ""), ("gain_lower", "")]
    assert {segment for name, segment in list_failed(gates)[3:]} == {"country=DE", "country=FR", "country=US"}
    assert shared[1].champions("worse") == []


def test_equal_challenger_is_refused(shared: tuple[World, RoleWatch]) -> None:
    job, gates = retrain(shared, "equal", make_equal)
    assert job["state"] == "rejected", job
    failed = list_failed(gates)
    assert ("gain", "") in failed
    assert not any(name == "segment" for name, _ in failed)
    (gain,) = [gate for gate in gates if gate.name == "gain"]
    assert gain.value == pytest.approx(0, abs=0.01)
    assert shared[1].champions("equal") == []


def test_challenger_that_is_better_but_for_one_segment_is_refused(shared: tuple[World, RoleWatch]) -> None:
    job, gates = retrain(shared, "unequal", make_unequal)
    assert job["state"] == "rejected", job
    assert list_failed(gates) == [("segment", "country=US")]
    assert "for country=US its AUC is surely worse by more than 0.01" in str(job["verdict"])
    (gain,) = [gate for gate in gates if gate.name == "gain_lower"]
    assert gain.value is not None
    assert gain.value > 0.05, "on average it is better"
    assert shared[1].champions("unequal") == []


def test_better_challenger_is_promoted_and_its_card_says_why(shared: tuple[World, RoleWatch]) -> None:
    world, watch = shared
    retrain_spec = RetrainSpec(promote=PromoteSpec(max_latency_ms=10_000, max_size_bytes=1 << 20))
    job, gates = retrain(
        shared, "better", make_rows, fairness=FairnessSpec(demographic_parity=0.5), retrain=retrain_spec
    )
    assert job["state"] == "promoted", job
    assert list_failed(gates) == []
    assert {gate.name for gate in gates} == {
        "rows", "gain", "gain_lower", "calibration", "segment", "demographic_parity", "latency", "size",
    }  # fmt: skip
    wait_until(lambda: watch.champions("better") == ["1"], 30, "the watch to see the champion")

    version = read_version(world.ch, "better", "1")
    assert version is not None
    assert version.metrics["latency_ms_p99"] > 0 < version.metrics["rows_per_s"]
    files = ArtifactFolder(world.runtime.artifacts).read(version.uri, version.sha256)
    facts = msgspec.json.decode(files[CARD_JSON], type=CardFacts)
    lineage = facts.lineage
    assert (facts.passed, lineage.alert_id, lineage.rule, lineage.champion) == (True, "a1", "harm", "external")
    assert (lineage.request_id, lineage.data_hash) == (job["job_id"], job["data_hash"])
    # What is known of the machine's clock is in the table, not in the artifact.
    kept = {(gate.name, gate.segment): gate for gate in facts.gates}
    assert kept["latency", ""].value is None
    for gate in gates:
        if gate.name != "latency":
            assert kept[gate.name, gate.segment] == gate
    # The queries of the card read the rows of the card.
    for data in (facts.train, facts.gate):
        assert len(world.ch.query(data.query.sql, data.query.parameters)) == data.rows.num_rows
    card = files["README.md"].decode()
    assert "| segment | country=DE | yes |" in card
    assert "alert `a1`" in card

    # The verdict on the log has the gates, too.
    reader = TopicReader(world.runtime.kafka, world.runtime.topics("retrain-events"))
    events = [msgspec.json.decode(message.value or b"{}") for message in reader.read_to_end(20)]
    reader.close()
    (evaluated,) = [e for e in events if e.get("job_id") == job["job_id"] and e["type"] == "evaluated"]
    assert sorted(gate["name"] for gate in evaluated["detail"]["gates"]) == sorted(gate.name for gate in gates)
