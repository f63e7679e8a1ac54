"""The versions that a scorer has in memory.

Owns loading them, verified to the last bit, and keeping few. It must not know roles.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

from retrain.trained_model import TrainedModel, load_model
from schemas.clock import Clock
from schemas.errors import ConfigurationError, Retryable
from store.artifacts import DamagedArtifactError, open_artifacts
from store.client import ClickHouse
from store.versions import read_version

log = logging.getLogger(__name__)

# Champion and shadow of some dozens of models; each takes tens to hundreds of kilobytes.
_NUM_MODELS_MAX = 128
# A name that is not among our versions is an outside version; it may yet be trained under that name.
_ASK_AGAIN_S = 30.0


class LoadedVersions:
    """Versions by (model, version), the least used given up first."""

    def __init__(self, ch: ClickHouse, artifacts: str, clock: Clock) -> None:
        self._ch, self._clock = ch, clock
        self._artifacts = open_artifacts(artifacts)
        self._models: OrderedDict[tuple[str, str], TrainedModel] = OrderedDict()
        self._outside: dict[tuple[str, str], float] = {}

    def find(self, model: str, version: str) -> TrainedModel | None:
        """Return a version of ours, loaded; None for an outside version.

        Raises Retryable when it is ours and cannot be loaded: scoring waits, since passing its records
        over would lose them.
        """
        name = (model, version)
        if name in self._models:
            self._models.move_to_end(name)
            return self._models[name]
        now_s = self._clock.monotonic_s()
        if version == "external" or now_s < self._outside.get(name, 0.0):
            return None
        row = read_version(self._ch, model, version)
        if row is None:
            self._outside[name] = now_s + _ASK_AGAIN_S
            return None
        try:
            loaded = load_model(self._artifacts.read(row.uri, row.sha256))
        except (DamagedArtifactError, ConfigurationError, ValueError) as error:
            # Damaged, written by another release, or in need of the user's code.
            remedy = "restore what it needs or give the role to another version"
            raise Retryable(f"version {version} of model {model} cannot be loaded: {error}; {remedy}") from error
        self._models[name] = loaded
        if len(self._models) > _NUM_MODELS_MAX:
            self._models.popitem(last=False)
        log.info("model %s: version %s is loaded", model, version)
        return loaded
