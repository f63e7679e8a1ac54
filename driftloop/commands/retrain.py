"""`driftloop retrain`"""

from __future__ import annotations

import uuid

import click

from driftloop.cli import Context
from driftloop.connecting import open_store
from driftloop.printing import encode_json
from driftloop.published import READ_TIMEOUT_S, find_published, read_history
from driftloop.retrain_explained import explain_retraining, list_sentences
from schemas.clock import SystemClock
from schemas.connections import Runtime
from schemas.errors import ConfigurationError
from schemas.events import RetrainRequest, encode_event
from store.log import Producer
from store.log.followers import RoleFollower


@click.command(short_help="Ask for a retraining, or why there is none.")
@click.argument("model")
@click.option("--reason", default="asked for by hand", show_default=True, help="Kept with the job.")
@click.option("--explain", is_flag=True, help="Ask for nothing; say why a retraining would or would not start now.")
@click.option("--json", "as_json", is_flag=True, help="With --explain: print one JSON array with one object.")
@click.pass_obj
def retrain(context: Context, model: str, reason: str, explain: bool, as_json: bool) -> None:
    """Ask for one retraining of MODEL: on all labelled rows but the last labelled window, gated on that one.

    \b
    Example:  driftloop retrain fraud --reason "new merchant data"
              driftloop jobs --model fraud
              driftloop retrain --explain fraud
    """
    runtime = context.settings.runtime
    if explain:
        print_explanation(runtime, model, as_json)
        return
    if as_json:
        raise click.UsageError("--json goes with --explain")
    ask(runtime, model, reason)


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
