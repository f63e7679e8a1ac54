"""What has been applied, as the topic `specs` has it now."""

from __future__ import annotations

import difflib

from schemas.connections import Runtime
from schemas.errors import ConfigurationError
from schemas.spec import Catalogue, ModelHistory, PublishedSpec
from store.log import SpecFollower

READ_TIMEOUT_S = 15.0


def read_catalogue(runtime: Runtime) -> Catalogue:
    """Every published spec, read to the topic's present end."""
    follower = SpecFollower(runtime.kafka, runtime.topics)
    try:
        follower.refresh(READ_TIMEOUT_S)
        return follower.catalogue
    finally:
        follower.close()


def find_published(runtime: Runtime, model: str) -> PublishedSpec:
    """The model's latest spec; raises ConfigurationError naming the models there are."""
    return read_history(runtime, model).latest


def read_history(runtime: Runtime, model: str) -> ModelHistory:
    """All versions of the model's spec; raises ConfigurationError naming the models there are."""
    catalogue = read_catalogue(runtime)
    history = catalogue.get(model)
    if history is None:
        known = catalogue.models()
        near = difflib.get_close_matches(model, known, n=1)
        applied = f"Applied are: {', '.join(known) or 'none'}; see driftloop apply"
        remedy = f"Did you mean {near[0]!r}?" if near else applied
        raise ConfigurationError(f"there is no model {model!r}", key="--model", remedy=remedy)
    return history
