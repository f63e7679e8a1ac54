"""`driftloop retrain`"""

from __future__ import annotations

import uuid

import click

from driftloop.cli import Context
from driftloop.connecting import open_store
from driftloop.printing import encode_json
from driftloop.published import READ_TIMEOUT_S, find_published, read_history
from driftloop.retrain_explained import explain_retraining, list_sentences
from retrain.verification import find_job, verify_job
from schemas.clock import SystemClock
from schemas.connections import Runtime
from schemas.errors import ConfigurationError
from schemas.events import RetrainRequest, encode_event
from store.log import Producer
from store.log.followers import RoleFollower


@click.command(short_help="Ask for a retraining, or why there is none; verify its rows.")
@click.argument("model", required=False)
@click.option("--reason", default="asked for by hand", show_default=True, help="Kept with the job.")
@click.option("--explain", is_flag=True, help="Ask for nothing; say why a retraining would or would not start now.")
@click.option("--verify", default="", metavar="JOB", help="Read a job's rows again; fail unless they are the same.")
@click.option("--json", "as_json", is_flag=True, help="With --explain or --verify: print one JSON array.")
@click.pass_obj
def retrain(context: Context, model: str | None, reason: str, explain: bool, verify: str, as_json: bool) -> None:
    """Ask for one retraining of MODEL: on all labelled rows but the last labelled window, gated on that one.

    \b
    Example:  driftloop retrain fraud --reason "new merchant data"
              driftloop jobs --model fraud
              driftloop retrain --explain fraud
              driftloop retrain --verify 3f0c1b7d9a4e5f60718293a4b5c6d7e8
    """
    runtime = context.settings.runtime
    if verify:
        if model or explain:
            raise click.UsageError("--verify takes a job and nothing else")
        print_verification(runtime, verify, as_json)
        return
    if not model:
        raise click.UsageError("name the MODEL")
    if explain:
        print_explanation(runtime, model, as_json)
        return
    if as_json:
        raise click.UsageError("--json goes with --explain or --verify")
    ask(runtime, model, reason)


def print_verification(runtime: Runtime, job_id: str, as_json: bool) -> None:
    """Exit with 1 if the rows are others now."""
    with open_store(runtime) as store:
        row = find_job(store, job_id)
        found = verify_job(store, row, read_history(runtime, row.model))
    if as_json:
        click.echo(encode_json([{**found._asdict(), "uses": [each._asdict() for each in found.uses]}]))
    else:
        for each in found.uses:
            state = "as recorded" if each.found == each.recorded else f"recorded was {each.recorded or 'nothing'}"
            click.echo(f"{each.use}: {each.num_rows:,} rows, SHA-256 {each.found}, {state}")
        same = "the rows are those of the job" if found.is_same else "the rows are others than the job's"
        click.echo(f"{same}: data hash {found.found}, recorded {found.recorded}")
    if not found.is_same:
        raise SystemExit(1)


def print_explanation(runtime: Runtime, model: str, as_json: bool) -> None:
    history = read_history(runtime, model)
    roles = RoleFollower(runtime.kafka, runtime.topics)
    try:
        roles.refresh(READ_TIMEOUT_S)
        role_map = roles.current(model)
    finally:
        roles.close()
    champion = role_map.roles.get("champion") if role_map else None
    with open_store(runtime) as store:
        facts = explain_retraining(store, history, champion, SystemClock().now_ms())
    click.echo(encode_json([facts]) if as_json else "\n".join(list_sentences(facts)))


def ask(runtime: Runtime, model: str, reason: str) -> None:
    published = find_published(runtime, model)
    if published.spec.retrain is None:
        raise ConfigurationError(
            f"the spec of {model} has no retrain section", key="retrain", remedy="Add `retrain: {}` and apply it again"
        )
    request = RetrainRequest(
        request_id=f"manual-{uuid.uuid4().hex[:16]}",
        model=model,
        rule="manual",
        trigger_alert_id="",
        reason=reason,
        first_window_start=0,
        first_window_end=0,
        window_size_ms=published.window_size_ms,
        requested_at=SystemClock().now_ms(),
        manual=True,
    )
    producer = Producer(runtime.kafka)
    producer.produce(runtime.topics("retrain-requests"), model, encode_event(request))
    producer.flush(30.0)
    click.echo(f"asked for: {request.request_id}; see `driftloop jobs --model {model}`")
