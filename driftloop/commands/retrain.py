"""`driftloop retrain`"""

from __future__ import annotations

import uuid

import click

from driftloop.cli import Context
from driftloop.published import find_published
from schemas.clock import SystemClock
from schemas.errors import ConfigurationError
from schemas.events import RetrainRequest, encode_event
from store.log import Producer


@click.command(short_help="Ask for a retraining.")
@click.argument("model")
@click.option("--reason", default="asked for by hand", show_default=True, help="Kept with the job.")
@click.pass_obj
def retrain(context: Context, model: str, reason: str) -> None:
    """Ask for one retraining of MODEL: on all labelled rows but the last labelled window, gated on that one.

    \b
    Example:  driftloop retrain fraud --reason "new merchant data"
              driftloop jobs --model fraud
    """
    runtime = context.settings.runtime
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
